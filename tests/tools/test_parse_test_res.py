"""parse_test_res.py: the family's printed lines, base / new tables from the command line, exit codes, warnings."""

import json

import pytest

import parse_test_res


@pytest.fixture
def parse(capsys):
    def run(*argv: object) -> tuple[int, str, str]:
        code = parse_test_res.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_family_lines_are_literal(runs, parse):
    exp = runs.root / "exp"
    runs.log(exp / "seed1", "91.8")
    runs.log(exp / "seed2", "92.2")
    assert parse(exp) == (
        0,
        f"Parsing files in {exp}\n"
        f"file: {exp}/seed1/log.txt. accuracy: 91.80%. \n"
        f"file: {exp}/seed2/log.txt. accuracy: 92.20%. \n"
        "===\n"
        f"Summary of directory: {exp}\n"
        "* accuracy: 92.00% +- 0.20%\n"
        "===\n",
        "",
    )
    # 1.96 * 0.2 / sqrt(2) = 0.277
    assert "* accuracy: 92.00% +- 0.28%\n" in parse(exp, "--ci95")[1]
    assert "* error: 24.90% +- 0.00%\n" in parse(exp, "--keyword", "error")[1]


def test_test_logs(runs, parse, test_log):
    runs.log(runs.root / "exp" / "seed1", "80.4", test_log)
    code, out, err = parse(runs.root / "exp")
    assert (code, out) == (1, f"Parsing files in {runs.root}/exp\n")
    assert "try --test-log" in err
    assert "* accuracy: 80.40% +- 0.00%" in parse(runs.root / "exp", "--test-log")[1]


def test_metrics_win_over_logs(runs, parse):
    folder = runs.metrics(runs.root / "exp" / "seed1", 77.777)
    runs.log(folder, 10.0)
    out = parse(runs.root / "exp")[1]
    assert f"file: {folder}/metrics.json. accuracy: 77.78%. \n" in out


def test_strays_and_bad_runs_are_named(runs, parse):
    exp = runs.root / "exp"
    for seed, value in ((1, 60.0), (2, 70.0), (10, 80.0)):
        runs.metrics(exp / f"seed{seed}", value, seed=seed)
    runs.metrics(exp / "seed3", 0.0, seed=3, finished=False)
    (exp / "notes.txt").write_text("hello")
    (exp / ".hidden").mkdir()
    (exp / "plots").mkdir()
    code, out, err = parse(exp)
    assert code == 0
    assert "* accuracy: 70.00% +- 8.16%" in out
    assert out.index("seed2") < out.index("seed10")
    assert sorted(err.splitlines()) == [
        f"note: {exp}/notes.txt is a file beside the runs, passed over",
        f"warning: left out {exp}/plots: it holds neither metrics.json nor log.txt",
        f"warning: left out {exp}/seed3: unfinished (after 1 of 20 epochs); the command that began it goes on with it",
    ]


def test_multi_exp(runs, parse):
    runs.log(runs.root / "exps" / "a" / "seed1", "80.0")
    runs.log(runs.root / "exps" / "a" / "seed2", "90.0")
    runs.log(runs.root / "exps" / "b" / "seed1", "95.3")
    (runs.root / "exps" / "c").mkdir()
    code, out, err = parse(runs.root / "exps", "--multi-exp")
    assert code == 0
    assert out.count("Summary of directory") == 2
    assert out.endswith("Average performance\n* accuracy: 90.15%\n")
    assert err == f"warning: left out {runs.root}/exps/c: nothing found, no finished run in it\n"


def test_a_run_folder_itself(runs, parse):
    folder = runs.metrics(runs.root / "exp" / "seed1", 60.0)
    assert "* accuracy: 60.00% +- 0.00%" in parse(folder)[1]


@pytest.mark.parametrize("multi", [[], ["--multi-exp"]])
def test_other_formats_of_a_summary(runs, parse, multi):
    exp = runs.root / "exps" / "a"
    runs.metrics(exp / "seed1", 60.0)
    runs.metrics(exp / "seed2", 70.0, seed=2)
    where = exp.parent if multi else exp
    assert parse(where, "--format", "csv", *multi)[1] == f"directory,n,mean,spread\n{exp},2,65.0,5.0\n"
    rows = json.loads(parse(where, "--format", "json", *multi)[1])["rows"]
    assert rows == [{"directory": str(exp), "n": 2, "mean": 65.0, "spread": 5.0}]
    assert parse(where, "--format", "table", *multi)[1].splitlines()[2].split() == [str(exp), "2", "65.00", "±", "5.00"]
    assert parse(where, "--format", "markdown", *multi)[1].startswith("| Directory")
    assert r"65.00 $\pm$ 5.00 \\" in parse(where, "--format", "latex", *multi)[1]


def test_base_new_from_one_folder_or_two(runs, parse):
    runs.pair(1, 60.0, 90.0)
    code, out, err = parse(runs.root)
    assert (code, err) == (0, "")
    assert " ".join(out.splitlines()[2].split()) == "shapes CoOp rn50 1 60.00 ± – 90.00 ± – 72.00 72.00 ± –"
    base, new = runs.root / "train_base" / "shapes", runs.root / "test_new" / "shapes"
    assert parse("--base", base, "--new", new)[1] == out
    leaf = "shots_16/CoOp/rn50"
    assert parse("--base", base / leaf, "--new", new / leaf)[1] == out
    assert parse("--base", base / leaf / "seed1", "--new", new / leaf / "seed1")[1] == out


def test_base_new_as_latex(runs, parse):
    runs.pair(1, 60.0, 90.0, config="mini_vit8")
    lines = parse(runs.root, "--format", "latex")[1].splitlines()
    assert [line for line in lines if line.startswith("\\")][1:4] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert " ".join(lines[4].split()).startswith(r"shapes & CoOp & mini\_vit8 & 1 & 60.00 $\pm$ -- & 90.00 $\pm$ --")
    assert lines[-2].startswith("% HM is the harmonic mean")


def test_one_trainer_around_several_hosts_is_told_apart(runs, parse):
    for host, config in (("CoOp", "vit_b16_ep15_paper"), ("MaPLe", "ep16")):
        runs.pair(1, 60.0, 90.0, trainer="Spotlighter", host=host, config=config)
    names = [" ".join(line.split()[1:4]) for line in parse(runs.root)[1].splitlines()[2:4]]
    assert names == ["CoOp w/ Spotlighter", "MaPLe w/ Spotlighter"]


def test_base_new_names_what_it_leaves_out(runs, parse):
    runs.pair(1, 60.0, 90.0)
    runs.metrics(runs.folder("train_base", 2), 0.0, seed=2)
    code, out, err = parse(runs.root, "--format", "csv")
    assert code == 0
    assert out.splitlines()[1].startswith("shapes,CoOp,rn50,16,1,60.0,,90.0,,72.0")
    assert err.startswith(f"warning: left out {runs.folder('train_base', 2)}: its partner on new classes")


def test_base_new_warns_of_uneven_averages(runs, parse):
    for dataset, trainer in (("dtd", "CoOp"), ("eurosat", "CoOp"), ("dtd", "Abc"), ("ucf101", "Abc")):
        runs.pair(1, 60.0, 90.0, dataset=dataset, trainer=trainer)
    code, out, err = parse(runs.root)
    assert code == 0
    assert out.count("Average of 2") == 2
    assert "CoOp rn50 lacks ucf101; Abc rn50 lacks eurosat" in err


@pytest.mark.parametrize(
    ("make", "argv", "message"),
    [
        (None, ["nowhere"], "error: no folder at nowhere\n"),
        (None, ["--base", "{root}", "--new", "nowhere"], "error: no folder at nowhere\n"),
        ("exp", ["{root}/exp"], "error: {root}/exp: nothing found, no finished run in it\n"),
        ("exp", ["{root}/exp", "--multi-exp"], "error: {root}/exp: nothing found, no finished run in it\n"),
        (
            "exp/dtd/seed1",
            ["{root}/exp"],
            "error: {root}/exp: no run directly in it; runs lie deeper, e.g. in {root}/exp/dtd: name that folder\n",
        ),
        (
            "test_new/dtd/seed1",
            ["{root}"],
            "error: {root} holds test_new/ but no train_base/, so there is nothing to pair\n",
        ),
        (
            "exp",
            ["--base", "{root}", "--new", "{root}/exp"],
            "error: no run of {root} has a finished partner in {root}/exp\n",
        ),
    ],
)
def test_nothing_to_show(runs, parse, make, argv, message):
    if make:
        (runs.root / make).mkdir(parents=True)
    code, _, err = parse(*(arg.format(root=runs.root) for arg in argv))
    assert code == 1
    assert err.endswith(message.format(root=runs.root))


def test_two_runs_for_one_seed(runs, parse):
    for name in ("seed1", "seed_1"):
        runs.log(runs.root / "train_base" / "a" / name, 60.0)
        runs.log(runs.root / "test_new" / "a" / name, 60.0)
    code, out, err = parse(runs.root)
    assert (code, out) == (1, "")
    assert "expected one run a seed" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected either a directory or --base DIR --new DIR"),
        ([".", "--base", ".", "--new", "."], "expected either a directory or --base DIR --new DIR"),
        (["--base", "."], "--base and --new belong together"),
        (["--base", ".", "--new", ".", "--multi-exp"], "--multi-exp and --test-log are for the summary"),
        ([".", "--details"], "--details is for base / new tables"),
        ([".", "--format", "html"], "invalid choice: 'html'"),
    ],
)
def test_wrong_command_lines(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_test_res.main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        parse_test_res.main(["--help"])
    out = capsys.readouterr().out
    assert "python parse_test_res.py output/base2new\n" in out
    assert '"* accuracy: 77.10% +- 0.42%"' in out
