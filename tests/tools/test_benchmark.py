"""The command line and what it writes; speeds are only looked at for being there."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from clip.model import CLIPSpec
from tools import benchmark
from tools.benchmarks import report, subjects
from tools.benchmarks.targets import NotMeasured
from tools.benchmarks.trace import first_wait, where

CONFIGS = Path(__file__).parents[2] / "configs/trainers"
DOCS = Path(__file__).parents[2] / "docs"
COOP, PAPER, FAST = "CoOp/vit_b16_ep15_ctxv1", "Spotlighter/vit_b16_ep15_paper", "Spotlighter/vit_b16_ep15_fast"


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(subjects.SPECS, "ViT-B/16", CLIPSpec(32, 32, 12, 64, 8, 77, 49408, 64, 1, 2))
        yield


def run(capsys, *argv, configs=()):
    paths = [str(CONFIGS / f"{name}.yaml") for name in configs]
    sizes = ["--repeats", "2", "--batch", "3", "--train-batch", "2", "--classes", "7"]
    code = benchmark.main([*paths, *sizes, *map(str, argv)])
    return code, capsys.readouterr()


def cells(text):
    return [re.split(r"\s{2,}", line) for line in text.splitlines()]


def test_methods_side_by_side(capsys):
    code, printed = run(capsys, "--flops", configs=("ZeroshotCLIP/vit_b16", COOP, PAPER, FAST))
    assert code == 0
    assert printed.out.splitlines()[0].endswith(": ViT-B/16, batch 3")
    assert "7 classes, fp32, batch 3 in inference; images/s:" in printed.out
    names = ["bare encoder", "plain path", "ZeroshotCLIP", "CoOp"]
    names += [f"CoOp w/ Spotlighter ({Path(name).name})" for name in (PAPER, FAST)]
    rows = [row for row in cells(printed.out) if row[0] in names]
    assert [row[0] for row in rows[:6]] == names
    coop, paper, fast = rows[3:6]
    assert coop[1:4] == ["1", "256", "2"]  # four words, 64 wide
    assert paper[1] == "7"
    assert all(float(value.replace(",", "")) > 0 for value in coop[4:6])
    assert rows[0][-3] == "1.00 (1.00–1.00)"
    assert float(coop[-1]) < float(paper[-1])  # GFLOP in inference: a head adds,
    assert float(fast[-1]) < float(paper[-1])  # and pruning saves
    assert float(rows[1][-2]) > float(coop[-2])  # in training: 77 rows of text


def test_table_four_tells_published_from_measured(capsys):
    code, printed = run(capsys, "--no-training", configs=(COOP, PAPER))
    assert code == 0
    table = printed.out.partition("Table IV of the paper:")[2]
    title = cells(table)[2]
    assert title[1:5] == [
        "Parameters, published",
        "Images/s, published",
        "Tensors, measured here",
        "Scalars, measured here",
    ]
    assert title[5].startswith("Images/s, measured here (")
    rows = {row[0]: row[1:] for row in cells(table)[4:]}
    assert rows["CoOp"][:4] == ["2,048", "9,768.21", "1", "256"]
    assert rows["CoOp"][4].endswith(" (fp32, 7 classes)")
    assert rows["CoOp w/ Spotlighter"][:3] == ["+21", "+886.61", "7 (+6)"]
    assert rows["LLaMP"] == ["5,200,000", "1,473.46", "–", "–", "–"]


def unmeasured(*_):
    raise NotMeasured("no room here")


@pytest.fixture(scope="module")
def results(tiny, tmp_path_factory):
    """A run's JSON file, what it holds, and what was printed."""
    path, out = tmp_path_factory.mktemp("results") / "found.json", io.StringIO()
    argv = [str(CONFIGS / f"{COOP}.yaml"), "--targets", "eval-bare", "cache-eval", "--prec", "fp32"]
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.benchmarks.rows.with_cache", unmeasured)
        code = benchmark.main([*argv, "--repeats", "2", "--batch", "3", "--classes", "7", "--json", str(path)])
    assert code == 0
    return path, json.loads(path.read_text()), out.getvalue()


def test_json_holds_all_figures_and_where_they_come_from(results):
    _, found, _ = results
    assert set(found) == {"schema", "environment", "setting", "methods", "table4", "targets"}
    assert set(found["environment"]) == {
        *("date", "torch", "python", "device", "device_name", "threads", "float32_matmul_precision"),
    }
    assert found["setting"] == {
        **{"backbone": "ViT-B/16", "batch": 3, "repeats": 2, "compile": False, "graph": False, "options": []},
    }
    (table,) = found["methods"]
    assert (table["precision"], table["n_classes"], table["batch"]) == ("fp32", 7, 3)
    assert [row["name"] for row in table["rows"]] == ["bare encoder", "plain path", "CoOp"]
    assert set(table["rows"][2]) == {
        *("name", "tensors", "scalars", "train_batch", "training_images_per_second", "inference_images_per_second"),
        *("inference_to_bare", "inference_to_plain", "training_gflop", "inference_gflop", "reason"),
    }
    assert set(table["rows"][2]["inference_to_bare"]) == {"median", "low", "high"}
    bare, cache = found["targets"]
    assert bare["verdict"] in ("reached", "missed")
    assert bare["low"] <= bare["value"] <= bare["high"]
    assert cache["verdict"] == "not measured"


def test_targets_appear_with_limit_and_verdict(results):
    _, _, printed = results
    assert re.search(
        r"^eval-bare: .* \[100 classes, fp32\] [\d.]+ \([\d.]+–[\d.]+\), target ≥ 1.03: (reached|missed)$",
        printed,
        re.M,
    )
    assert "target ≥ 20: not measured: no room here" in printed
    assert "The targets are set for ViT-B/16 at batch 32; these figures are of ViT-B/16 at batch 3." in printed


@pytest.mark.parametrize(("low", "unsure"), [(0.9, True), (1.1, False), (None, False)])
def test_a_limit_within_the_spread_is_told(results, low, unsure):
    target = results[1]["targets"][0] | {"low": low, "value": 1.2, "high": 1.4, "verdict": "reached", "notes": ["seen"]}
    line = report.target_line(target)
    assert line.endswith("the limit lies within the spread; seen" if unsure else ": reached\n    seen")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_is_drawn_from_a_file(results, capsys, tmp_path, suffix):
    path = tmp_path / f"figure.{suffix}"
    assert benchmark.main(["--from-json", str(results[0]), "--figure", str(path)]) == 0
    assert "eval-bare" in capsys.readouterr().out
    if suffix == "svg":
        assert "<svg" in path.read_text()
        return
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert min(image.size) > 200
    assert len(colours) > 20  # bars and letters, not an empty page


def test_markdown_goes_between_the_marks_of_its_device(results, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- benchmark cuda -->\na GPU\n<!-- /benchmark cuda -->\n"
        "<!-- benchmark cpu -->old<!-- /benchmark cpu -->\nafter\n"
    )
    argv = ["--from-json", str(results[0]), "--markdown", str(page)]
    assert benchmark.main(argv) == 0
    first = page.read_text()
    assert first.startswith(
        "before\n<!-- benchmark cuda -->\na GPU\n<!-- /benchmark cuda -->\n<!-- benchmark cpu -->\n\n"
    )
    assert first.endswith("\n\n<!-- /benchmark cpu -->\nafter\n")
    assert "old" not in first
    assert "| eval-bare: images/s, zero-shot ÷ bare encoder, all tokens |" in first
    assert benchmark.main(argv) == 0
    assert page.read_text() == first
    page.write_text("no marks")
    assert benchmark.main(argv) == 1
    assert "has no place for these figures: write <!-- benchmark cpu -->" in capsys.readouterr().err
    assert benchmark.main([*argv[:3], str(tmp_path / "new.md")]) == 0
    places = [{"environment": {"device": "cuda"}, "setting": {"graph": graphed}} for graphed in (False, True)]
    assert list(map(report.place_of, places)) == ["cuda", "cuda graph"]
    assert (tmp_path / "new.md").read_text().strip() in first


def test_a_trace_of_both_steps_is_written(capsys, tmp_path):
    code, printed = run(capsys, "--profile", tmp_path / "trace.json")
    assert code == 0
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"training step", "inference", "aten::linear"} <= names
    assert "aten::" in printed.out
    assert printed.out.splitlines()[-1].startswith("CoOp w/ Spotlighter, fp32: ")


def test_a_wait_is_named_by_its_line():
    try:
        report.read_json(Path("nowhere.json"))
    except FileNotFoundError as error:
        found = where(error)
    ours, _, elsewhere = found.partition(", then ")
    assert re.match(r"tools/benchmarks/report\.py:\d+ in read_json: found = json\.loads\(", ours)
    assert re.search(r"pathlib.* in open: .*\(.*No such file or directory: 'nowhere.json'\)$", elsewhere)


def test_the_step_that_is_watched_runs_with_waiting_forbidden(monkeypatch):
    modes = []
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", modes.append)

    def waits():
        raise RuntimeError("called a synchronizing CUDA operation\nmore")

    assert first_wait(int) == "no synchronisation in a training step"
    assert modes == ["error", "default"]
    found = first_wait(waits)
    assert re.match(
        r"tests/tools/test_benchmark\.py:\d+ in waits: raise .* \(called a synchronizing CUDA operation\)$", found
    )
    assert modes == ["error", "default"] * 2


def test_figures_in_the_docs_are_those_of_the_files():
    page = (DOCS / "speed.md").read_text(encoding="utf-8")
    files = sorted((DOCS / "speed").glob("*.json"))
    assert files
    for path in files:
        found = report.read_json(path)
        place = report.place_of(found)
        assert f"<!-- benchmark {place} -->\n\n{report.markdown(found)}\n\n<!-- /benchmark {place} -->" in page


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--prec", "fp8"), "PREC must be one of fp32, amp, bf16, fp16, got 'fp8'."),
        (("--batch", "0"), "--batch must be at least 1, got 0."),
        (("--train-batch", "0"), "--train-batch must be at least 1, got 0."),
        (("--repeats", "0"), "--repeats must be at least 1, got 0."),
        (("--classes", "0"), "--classes must be at least 1, got 0."),
        (("--targets", "speed"), "There is no target 'speed'; there are eval-bare, "),
        (("--sync-check",), "--sync-check needs CUDA, and this run computes on cpu; add --device cuda."),
        (("--sync-check", "--json", "x"), "--sync-check and --profile measure nothing; run them without --targets, "),
        (("--backbone", "nowhere"), "Model 'nowhere' is no file and no known name;"),
        (("--opts", "TRAINER.SPOTLIGHTER.TOP_K", "99"), "TOP_K must be less than the 16 patches"),
    ],
)
def test_bad_values_are_named(capsys, argv, message):
    code, printed = run(capsys, *argv)
    assert code == 1
    assert printed.err.splitlines()[-1].startswith(f"Error: {message}")


def test_cuda_without_a_gpu_is_named(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, printed = run(capsys, "--device", "cuda")
    assert code == 1
    assert (
        printed.err
        == "Error: --device cuda needs a CUDA GPU, and torch finds none here; leave it out to measure the CPU.\n"
    )


def test_what_cannot_be_made_is_an_error(capsys):
    code, printed = run(capsys, configs=("PromptKD/vit_b16_ep20",))
    assert code == 1
    assert printed.err.splitlines()[-1].startswith("Error: PromptKD needs a trained teacher")


def test_files_that_hold_no_figures_are_named(capsys, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    assert benchmark.main(["--from-json", str(tmp_path / "x.json")]) == 1
    assert (
        capsys.readouterr().err
        == f"Error: {tmp_path}/x.json holds no figures of this benchmark; write them with --json.\n"
    )


def test_a_run_that_is_cut_off_has_kept_what_it_measured(monkeypatch, tmp_path):
    def cut(bench, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.benchmarks.targets.judge", cut)
    path = tmp_path / "kept.json"
    argv = [str(CONFIGS / f"{COOP}.yaml"), "--targets", "eval-bare", "--prec", "fp32", "--json", str(path)]
    with pytest.raises(KeyboardInterrupt):
        benchmark.main([*argv, "--repeats", "1", "--batch", "2", "--classes", "3"])
    assert [len(table["rows"]) for table in report.read_json(path)["methods"]] == [3]


def test_nothing_to_draw_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.benchmarks.rows.with_cache", unmeasured)
    code, printed = run(capsys, "--targets", "cache-eval", "--prec", "fp32", "--figure", tmp_path / "x.png")
    assert code == 1
    assert printed.err == f"Error: Nothing was measured that {tmp_path}/x.png could show.\n"
