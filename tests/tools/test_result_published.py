"""tools/result_published.py: reading the CSV files, and which figure is put beside a run."""

import pytest

from tools.result_published import Published, PublishedFigures, read_published
from tools.run_names import REAL

HEAD = "table,protocol,method,variant,dataset,metric,shots,value,unit,backbone,source,note"


def figure(value=70.0, **changes):
    about = {
        **{"table": "I", "protocol": "base2new", "method": "CoOp", "variant": "", "dataset": "dtd", "metric": "base"},
        **{"shots": "16", "unit": "%", "backbone": "ViT-B/16", "source": "a paper", "note": ""},
    }
    return Published(**about | changes, value=value)


def find(figures, *where, **options):
    found = PublishedFigures(figures).find(*where, **options)
    return None if found is None else found.value


def test_files_are_read_with_the_baselines_first(tmp_path):
    line = "I,base2new,CoOp,,dtd,base,16,{},%,ViT-B/16,a paper,a note"
    (tmp_path / "spotlighter_table_01.csv").write_text(f"{HEAD}\n{line.format('1.00')}\n")
    (tmp_path / "zzz.csv").write_text(f"{HEAD}\n{line.format('2.00')}\nIX,datasets,,,dtd,prompt,,a {{}},text,,a,\n")
    found = read_published(tmp_path)
    assert [item.value for item in found] == [2.0, 1.0]
    assert (found[0].note, found[0].shots, found[0].source) == ("a note", "16", "a paper")
    assert find(found, "base2new", "CoOp", "dtd", "base", 16) == 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEAD}\nI,base2new,CoOp,,dtd,base,16,7O.1,%,,,\n", r"x\.csv, line 2: '7O\.1' is no number"),
        (f"{HEAD}\nI,base2new,CoOp\n", r"x\.csv, line 2: None is no number"),
        ("table,value\nI,1\n", r"x\.csv should have the columns table,protocol,.*, got \['table', 'value'\]"),
        ("", r"x\.csv should have the columns .*, got None"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_published(tmp_path)


def test_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no published figures in .*: it holds no CSV file; or give --no-publ"):
        read_published(tmp_path)


def test_what_must_agree():
    figures = [figure()]
    assert find(figures, "base2new", "CoOp", "dtd", "base", 16) == 70.0
    assert find(figures, "fewshot", "CoOp", "dtd", "base", 16) is None
    assert find(figures, "base2new", "MaPLe", "dtd", "base", 16) is None
    assert find(figures, "base2new", "CoOp", "eurosat", "base", 16) is None
    assert find(figures, "base2new", "CoOp", "dtd", "new", 16) is None
    assert find(figures, "base2new", "CoOp", "dtd", "base", 4) is None
    assert find([figure(variant="deep")], "base2new", "CoOp", "dtd", "base", 16) is None


@pytest.mark.parametrize(
    ("printed", "shots", "fits"),
    [
        *[("16", 16, True), ("16", None, True), ("16", -1, False)],
        *[("all", -1, True), ("all", 0, True), ("all", 16, False), ("", 16, True), ("", -1, True)],
    ],
)
def test_shots(printed, shots, fits):
    assert (find([figure(shots=printed)], "base2new", "CoOp", "dtd", "base", shots) is not None) == fits


@pytest.mark.parametrize(
    ("backbone", "fits"),
    [
        ("ViT-B/16", True),
        (None, True),  # a log tells none
        ("/weights/ViT-B-16.pt", True),
        ("ViT-B-16.safetensors", True),
        ("ViT-L/14", False),
        ("RN50", False),
        ("Mini-ViT/8", False),
    ],
)
def test_backbones(backbone, fits):
    found = find([figure()], "base2new", "CoOp", "dtd", "base", 16, backbone=backbone)
    assert (found is not None) == fits


def test_names_of_methods():
    figures = [figure(1.0, method="CLIP"), figure(2.0, method="CLIP w/ Spotlighter"), figure(3.0, method="CLIPFit")]
    for method, value in (("ZeroshotCLIP", 1.0), ("ZeroshotCLIP w/ Spotlighter", 2.0), ("ClipFit", 3.0)):
        assert find(figures, "base2new", method, "dtd", "base", 16) == value
    assert find(figures, "base2new", "ZeroshotCLIP2", "dtd", "base", 16) is None


def eleven(metric="base", start=60.0, **changes):
    return [figure(start + i, dataset=name, metric=metric, **changes) for i, name in enumerate(REAL)]


def average(figures, datasets, metric="base", protocol="base2new"):
    return PublishedFigures(figures).average(protocol, "CoOp", datasets, metric, 16, None)


def test_the_printed_average_stands_for_all_eleven():
    figures = [*eleven(), figure(12.34, dataset="average")]
    assert average(figures, list(REAL)).value == 12.34
    assert average([figure(12.34, dataset="average")], list(REAL)).value == 12.34  # only the average is published


def test_the_average_of_some_is_computed_and_says_so():
    figures = [*eleven(), figure(12.34, dataset="average")]
    found = average(figures, ["imagenet", "ucf101"])
    assert (found.value, found.dataset) == (65.0, "average")  # of 60 and 70
    assert found.note == "not printed: the mean of the printed figures of the same 2 data sets"
    assert average(figures, ["imagenet", "shapes"]) is None
    assert average([], ["imagenet"]) is None


def test_hm_of_a_computed_average_is_that_of_the_averages():
    figures = [*eleven(), *eleven("new", 80.0), *eleven("hm", 1.0)]
    found = average(figures, ["imagenet", "ucf101"], "hm")
    assert found.value == pytest.approx(2 * 65.0 * 85.0 / 150.0)
    assert found.metric == "hm"
    assert average(eleven(), ["imagenet"], "hm") is None


def test_cross_dataset_averages_leave_the_source_out():
    about = {"protocol": "cross", "metric": "accuracy"}
    figures = [figure(12.34, dataset="average", **about)]
    assert average(figures, [name for name in REAL if name != "imagenet"], "accuracy", "cross").value == 12.34
    assert average(figures, list(REAL), "accuracy", "cross") is None


def test_the_repositorys_own_files():
    figures = PublishedFigures(read_published())
    find_in = figures.find
    assert find_in("base2new", "CoOp", "imagenet", "new", 16).value == 67.88  # its own table, not the slip of Table I
    assert find_in("base2new", "PromptKD", "imagenet", "hm", 16).value == 74.15
    assert find_in("base2new", "PromptKD", "imagenet", "hm", -1).value == 77.62
    assert find_in("base2new", "CoOp w/ Spotlighter", "dtd", "hm", 16).value == 66.18
    assert find_in("domains", "MaPLe w/ Spotlighter", "imagenet_r", "accuracy", 16).value == 83.56
    assert find_in("fewshot", "CoOp", "average", "accuracy", 2).value == 70.13
    assert find_in("base2new", "PromptSRC", "imagenet", "base", 16, "ViT-L/14").value == 83.24
    assert find_in("base2new", "CoOp", "shapes", "hm", 16) is None
