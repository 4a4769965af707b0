"""tools/results.py: the command line, from run folders to tables, files and figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ask(capsys):
    def run(*argv: object) -> tuple[int, str, str]:
        code = results.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def output(runs):
    """One method and its wrapper on DTD, one seed too few, and one unfinished run."""
    root = runs.root
    runs.root = root / "base2new"
    for seed in (1, 2):
        runs.pair(seed, 79.0 + seed, 41.0, dataset="dtd")
    runs.pair(1, 76.0, 58.0, dataset="dtd", trainer="Spotlighter", host="CoOp", config="vit_b16_ep15_paper")
    for path in runs.root.rglob("metrics.json"):
        path.write_text(path.read_text().replace("Mini-ViT/8", "ViT-B/16"))
    runs.root = root
    runs.of("fewshot/dtd/shots_1", 40.0)
    runs.of("fewshot/dtd/shots_2", 45.0, finished=False)
    return root


def test_epochs_chosen_on_test_images_are_told(output, ask):
    sentence = "Best epoch on the test images, not comparable with the others: CoOp."
    assert sentence not in " ".join(ask(output)[1].split())
    path = output / "base2new/train_base/dtd/shots_16/CoOp/rn50/seed1/metrics.json"
    record = json.loads(path.read_text())
    record["final"]["chosen_on"] = "test"
    path.write_text(json.dumps(record))
    for fmt in ("table", "markdown", "latex"):
        assert sentence in " ".join(ask(output, "--table", "base2new", "--format", fmt)[1].split())


def test_everything(output, ask):
    code, out, err = ask(output)
    assert code == 0
    titles = [line for line in out.splitlines() if "(Table" in line]
    assert titles == [
        "Base to new generalisation (Table I), 16 shots",
        "Few-shot classification on all classes, accuracy (Table II, Figure 7)",
        "Trained parameters, speed in test, HM (Table IV), 16 shots",
    ]
    flat = [" ".join(line.split()) for line in out.splitlines()]
    # 80 and 81 over 41 and 41; published 79.44, 41.18, 54.24 by CoOp's own documents
    assert "DTD CoOp 1 2 80.50 ± 0.50 41.00 ± 0.00 54.33 54.33 ± 0.11" in flat
    assert "published 79.44 41.18 54.24" in flat
    assert "ours - published +1.06 -0.18 +0.09" in flat
    assert "published 76.04 58.69 66.18" in flat
    assert "- CoOp w/ Spotlighter, DTD HM: printed; the harmonic mean of 76.04 and 58.69 is 66.25" in flat
    assert f"OUTPUT={output} bash scripts/spotlighter/base2new_train.sh dtd 2" in out
    unfinished = output / "fewshot/dtd/shots_2/CoOp/rn50/seed1"
    assert err == f"warning: left out {unfinished}: " + (
        "unfinished (after 1 of 20 epochs); the command that began it goes on with it\n"
    )


def test_without_published_figures(output, ask):
    out = ask(output, "--table", "base2new", "--no-published")[1]
    assert not [line for line in out.splitlines() if line.split()[:1] == ["published"] or "ours - " in line]
    assert "Published figures" not in out


def test_commands_alone_can_be_run_by_bash(output, ask):
    out = ask(output, "--commands", "--seeds", "1", "2")[1]
    assert subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, check=True).stderr == ""
    lines = out.splitlines()
    assert lines[:2] == [
        "# CoOp w/ Spotlighter, dtd, 16 shots, seed 2: no run",
        f"OUTPUT={output} bash scripts/spotlighter/base2new_train.sh dtd 2",
    ]
    i = lines.index(f"CFG=rn50 OUTPUT={output} bash scripts/coop/fewshot.sh dtd 2 1")
    assert lines[i - 1].startswith("# CoOp, dtd, 2 shots, seed 1: unfinished")


def test_commands_where_nothing_is_missing(runs, ask):
    runs.of("fewshot/dtd/shots_1", 40.0)
    assert ask(runs.root, "--commands")[1] == "# nothing is missing\n"


def test_json_of_one_table(output, ask):
    content = json.loads(ask(output, "--table", "fewshot", "--format", "json")[1])
    (table,) = content["tables"]
    assert [(cell["shots"], cell["value"]) for cell in table["cells"]] == [(1, 40.0), (2, None)]


def test_saved_files(output, ask, tmp_path):
    code, _, err = ask(output, "--table", "base2new", "--save", tmp_path / "to" / "here")
    assert code == 0
    assert f"wrote tables to {tmp_path}/to/here\n" in err
    found = {path.name: path.read_text() for path in (tmp_path / "to" / "here").iterdir()}
    assert set(found) == {*(f"base2new.{e}" for e in ("txt", "md", "csv", "tex", "json")), "base2new_tests.csv"}
    assert found["base2new.tex"].count(r"\toprule") == 1
    assert found["base2new_tests.csv"].splitlines()[1].startswith("base2new,CoOp w/ Spotlighter,CoOp,Base,1,-4.0,,")


def test_figures(output, ask, tmp_path):
    code, _, err = ask(output, "--figures", tmp_path / "figures")
    assert code == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = ("base_new", "base2new_minus_published", "base2new_minus_reference", "fewshot")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")}
    assert err.count("wrote ") == len(names)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "error: found no base2new/, fewshot/, xd/ or zeroshot/ in nowhere; name the folder that the scr"),
        (["{root}", "--table", "cross"], "error: found no run for the table cross in {root}; see --help for what each"),
        (["{root}", "--versus", "SPT"], "error: no method 'SPT' among the runs; there are: CoOp, CoOp w/ Spotlighter"),
    ],
)
def test_nothing_to_show(output, ask, argv, message):
    code, out, err = ask(*(arg.format(root=output) for arg in argv))
    assert (code, out) == (1, "")
    assert message.format(root=output) in err
    assert len(err.splitlines()[-1].split(". ")) == 1  # one sentence


def test_empty_protocols(runs, ask):
    (runs.root / "xd").mkdir()
    assert ask(runs.root)[2] == f"error: found no run in {runs.root}; see --help for what each table needs\n"


def test_damaged_published_figures(output, ask, monkeypatch, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n")
    monkeypatch.setattr(results, "read_published", lambda: results_of(tmp_path))
    code, _, err = ask(output)
    assert code == 1
    assert "x.csv should have the columns" in err


def results_of(folder):
    from tools.result_published import read_published

    return read_published(folder)


@pytest.mark.parametrize("argv", [[], [".", "--table", "table1"], [".", "--format", "html"], [".", "--seeds", "one"]])
def test_wrong_command_lines(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        results.main(argv)
    assert stopped.value.code == 2
    assert "usage: python -m tools.results" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        results.main(["--help"])
    out = capsys.readouterr().out
    assert "python -m tools.results output --table base2new --format latex > table1.tex" in out
    assert "ours - published" in out
    for name in ("base2new", "fewshot", "cross", "domains", "efficiency"):
        assert f"\n  {name}" in out


def test_tables_need_neither_torch_nor_matplotlib(output):
    code = (
        f"import sys, tools.results; tools.results.main([{str(output)!r}, '--seeds', '1']);"
        "print({'torch', 'dassl', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()"
