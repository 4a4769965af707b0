"""docs/published/*.csv: harmonic means and averages recomputed, and figures typed by hand."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "published"
COLUMNS = "table,protocol,method,variant,dataset,metric,shots,value,unit,backbone,source,note"
ELEVEN = {
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101"),
}
FILES = sorted(FOLDER.glob("*.csv"))
SAYS_SO = ("the harmonic mean of", "fits new 67.88")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def identity(row):
    keys = ("table", "protocol", "method", "variant", "dataset", "shots", "backbone")
    return tuple(row[key] for key in keys)


def test_the_files_that_the_readme_names():
    names = {path.stem for path in FILES}
    assert {f"spotlighter_table_{i:02d}" for i in range(1, 13)} <= names
    assert names - {f"spotlighter_table_{i:02d}" for i in range(1, 13)} == {
        *("baselines_base2new", "baselines_cross", "baselines_domains", "baselines_efficiency", "promptkd_teacher"),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_line_is_complete_and_stands_once(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] == COLUMNS
    rows = rows_of(path)
    keys = [(*identity(row), row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert row["value"]
        assert row["source"]
        assert row["dataset"]
        assert row["unit"] in ("%", "points", "count", "images/s", "GFLOP", "text")
        assert None not in row
        if row["unit"] == "%":
            assert 0 < float(row["value"]) < 100
            assert len(row["value"].split(".")[1]) == 2  # as printed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_harmonic_means_fit_or_the_note_says_so(path):
    figures = defaultdict(dict)
    for row in rows_of(path):
        if row["metric"] in ("base", "new", "hm"):
            figures[identity(row)][row["metric"]] = row
    for key, found in figures.items():
        if len(found) < 3:
            continue  # Table IV prints HM alone
        base, new, printed = (float(found[metric]["value"]) for metric in ("base", "new", "hm"))
        # half a unit of the last digit in each of the three
        low = 2 / (1 / (base - 0.005) + 1 / (new - 0.005)) - 0.0051
        high = 2 / (1 / (base + 0.005) + 1 / (new + 0.005)) + 0.0051
        noted = any(words in found["hm"]["note"] for words in SAYS_SO)
        assert (low <= printed <= high) != noted, (key, base, new, printed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_averages_fit_or_the_note_says_so(path):
    values, averages = defaultdict(dict), {}
    for row in (row for row in rows_of(path) if row["unit"] != "text"):
        key = (row["protocol"], row["method"], row["variant"], row["shots"], row["backbone"], row["metric"])
        if row["dataset"] == "average":
            averages[key] = row
        else:
            values[key][row["dataset"]] = float(row["value"])
    for key, row in averages.items():
        wanted = ELEVEN - {"imagenet"} if key[0] == "cross" else ELEVEN
        if row["metric"] == "hm" or not wanted <= set(values[key]):
            continue  # HM is that of the averages, tested above; or only the average is known
        mean = sum(values[key][name] for name in wanted) / len(wanted)
        noted = row["note"].startswith("mean of the rows with")
        assert (abs(mean - float(row["value"])) <= 0.0101) != noted, (key, mean, row["value"])


# table file, method, data set, shots, metric -> value; typed from the tables
SPOTS = [
    ("spotlighter_table_01", "CLIP", "average", "", "hm", "71.70"),
    ("spotlighter_table_01", "CoOp", "imagenet", "16", "new", "68.78"),
    ("spotlighter_table_01", "CoOp w/ Spotlighter", "average", "16", "base", "81.74"),
    ("spotlighter_table_01", "CoOp w/ Spotlighter", "average", "16", "new", "75.80"),
    ("spotlighter_table_01", "CoOp w/ Spotlighter", "eurosat", "16", "hm", "83.85"),
    ("spotlighter_table_01", "PromptKD", "fgvc_aircraft", "16", "new", "39.68"),
    ("spotlighter_table_01", "PromptKD w/ Spotlighter", "dtd", "16", "hm", "77.47"),
    ("spotlighter_table_01", "PromptKD w/ TextRefiner", "imagenet", "16", "hm", "74.38"),
    ("spotlighter_table_01", "CLIPFit", "ucf101", "16", "base", "85.23"),
    ("spotlighter_table_02", "PromptSRC", "average", "4", "accuracy", "78.35"),
    ("spotlighter_table_02", "PromptKD w/ Spotlighter", "average", "16", "accuracy", "85.65"),
    ("spotlighter_table_02", "CLIP", "average", "1", "accuracy", "45.12"),
    ("spotlighter_table_03", "MaPLe w/ Spotlighter", "imagenet_a", "16", "accuracy", "69.83"),
    ("spotlighter_table_03", "MaPLe", "imagenetv2", "16", "accuracy", "64.05"),
    ("spotlighter_table_04", "CoOp", "imagenet", "16", "images_per_second", "9768.21"),
    ("spotlighter_table_04", "CoOp w/ Spotlighter", "imagenet", "16", "parameters_added", "21"),
    ("spotlighter_table_04", "LLaMP", "imagenet", "16", "parameters", "5200000"),
    ("spotlighter_table_07", "CLIPFit w/ Spotlighter", "average", "16", "new", "78.62"),
    ("spotlighter_table_07", "MaPLe w/ Spotlighter", "average", "16", "hm", "80.26"),
    ("spotlighter_table_09", "", "ucf101", "", "val_images", "1808"),
    ("spotlighter_table_09", "", "imagenet_sketch", "", "test_images", "50899"),
    ("baselines_base2new", "CoOp", "imagenet", "16", "new", "67.88"),
    ("baselines_base2new", "CoCoOp", "fgvc_aircraft", "16", "new", "23.71"),
    ("baselines_base2new", "PromptKD", "average", "all", "hm", "83.73"),
    ("baselines_base2new", "PromptKD", "stanford_cars", "all", "hm", "83.13"),
    ("baselines_base2new", "PromptSRC", "food101", "16", "hm", "91.10"),
    ("baselines_cross", "MaPLe", "average", "16", "accuracy", "66.30"),
    ("baselines_cross", "PromptKD", "eurosat", "all", "accuracy", "63.74"),
    ("baselines_domains", "MaPLe", "imagenetv2", "16", "accuracy", "64.07"),
    ("baselines_domains", "PromptKD", "imagenet_r", "all", "accuracy", "87.01"),
    ("baselines_efficiency", "PromptKD", "sun397", "", "images_per_second", "1710"),
    ("promptkd_teacher", "PromptSRC", "fgvc_aircraft", "16", "hm", "48.09"),
    ("promptkd_teacher", "PromptSRC", "average", "16", "accuracy", "71.89"),
]


@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: " ".join(spot))
def test_figures_typed_by_hand(spot):
    file, *wanted, value = spot
    keys = ("method", "dataset", "shots", "metric")
    found = [row["value"] for row in rows_of(FOLDER / f"{file}.csv") if [row[key] for key in keys] == wanted]
    assert found == [value]


def test_numbers_of_lines():
    counts = {path.stem: len(rows_of(path)) for path in FILES}
    assert counts["spotlighter_table_01"] == 10 * 12 * 3  # methods x (11 data sets and the average) x base, new, HM
    assert counts["spotlighter_table_02"] == 7 * 5
    assert counts["spotlighter_table_03"] == 7 * 5
    assert counts["baselines_base2new"] == 6 * 12 * 3 + 4 * 3
    assert counts["baselines_cross"] == 5 * 11


def test_variants_of_methods():
    found = {
        (row["method"], row["variant"], row["value"])
        for row in rows_of(FOLDER / "baselines_base2new.csv")
        if row["variant"] and row["metric"] == "hm"
    }
    assert found == {
        ("VPT", "deep", "76.68"),
        ("IVLP", "language only, deep", "77.56"),
        ("IVLP", "2+2", "77.90"),
        ("IVLP", "4+4", "77.51"),
    }


def test_templates_of_table_ix_are_text():
    prompts = {r["dataset"]: r for r in rows_of(FOLDER / "spotlighter_table_09.csv") if r["metric"] == "prompt"}
    assert len(prompts) == 15
    assert prompts["stanford_cars"]["value"] == "a photo of a [CLASS], a type of flowers."
    assert "mixed up" in prompts["oxford_flowers"]["note"]
