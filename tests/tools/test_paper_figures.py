"""tools/paper_figures.py: what is drawn, read back from matplotlib's own objects."""

import pytest

from tools.paper_figures import (
    COLOURS,
    MARKERS,
    Bar,
    differences,
    draw_all,
    draw_bars,
    draw_base_new,
    draw_fewshot,
)
from tools.paper_tables import Cell, Column, Line, PaperTable, over_seeds
from tools.result_published import Published
from tools.result_stats import harmonic_mean


def figure(value):
    return Published("II", "fewshot", "CoOp", "", "average", "accuracy", "1", value, "%", "", "a paper", "")


@pytest.fixture
def fewshot():
    columns = (Column("zero-shot", "zero-shot", shots=0), Column("1", "1 shot", shots=1), Column("4", "", shots=4))
    zero = {"zero-shot": over_seeds({1: 30.0})}
    coop = {"1": over_seeds({1: 40.0, 2: 42.0}), "4": over_seeds({1: 50.0})}
    average = {"1": over_seeds({1: 41.0}, figure(39.0)), "4": Cell(published=figure(48.0))}
    lines = [
        Line("dtd", "DTD", "ZeroshotCLIP", None, zero),
        Line("dtd", "DTD", "CoOp", None, coop),
        Line("average", "Average of 2", "CoOp", None, average),
    ]
    return PaperTable("fewshot", "Few-shot", "Data set", columns, tuple(lines))


@pytest.fixture
def base2new():
    def line(dataset, method, base, new, published=None):
        cells = {"base": over_seeds({1: base}, published and figure(published[0])), "new": over_seeds({1: new})}
        cells["new"] = over_seeds({1: new}, published and figure(published[1]))
        hm = published and figure(harmonic_mean(*published))
        cells["hm"] = Cell(harmonic_mean(base, new), None, {1: harmonic_mean(base, new)}, hm)
        return Line(dataset, dataset.upper(), method, 16, cells)

    lines = (
        line("dtd", "CoOp", 60.0, 90.0, (55.0, 66.0)),
        line("dtd", "CoOp w/ Spotlighter", 80.0, 80.0),
        line("eurosat", "CoOp", 50.0, 50.0),
        Line("eurosat", "EUROSAT", "CoOp w/ Spotlighter", 16, {key: Cell() for key in ("base", "new", "hm")}),
    )
    columns = (Column("base", "Base"), Column("new", "New"), Column("hm", "HM", metric="hm"))
    return PaperTable("base2new", "Base to new", "Data set", columns, lines)


def curves(axes):
    """Label-free lines of a panel: (style, y values)."""
    return [(line.get_linestyle(), list(line.get_ydata())) for line in axes.get_lines() if len(line.get_ydata())]


def test_fewshot_curves_with_published_ones_dashed(fewshot):
    drawn = draw_fewshot(fewshot, fewshot.lines, fewshot.methods)
    dtd, average = drawn.axes
    assert (dtd.get_title(), average.get_title()) == ("DTD", "Average of 2")
    assert ("-", [41.0, 50.0]) in curves(dtd)
    assert ("None", [30.0]) in curves(dtd)  # zero-shot: a star without a line
    assert ("--", [39.0, 48.0]) in curves(average)
    assert ("-", [41.0]) in curves(average)
    assert [text.get_text() for text in dtd.get_xticklabels()] == ["0", "1", "4"]
    assert list(dtd.get_xticks()) == [-1, 0, 2]  # logarithm of the number of images
    assert (dtd.get_xlabel(), dtd.get_ylabel()) == ("images a class", "accuracy in %")
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ZeroshotCLIP", "CoOp", "dashed: published"]


def test_base_against_new_on_lines_of_equal_hm(base2new):
    drawn = draw_base_new(base2new.lines, base2new.methods)
    dtd, eurosat = drawn.axes
    points = [tuple(map(list, line.get_data())) for line in dtd.get_lines()]
    assert ([60.0], [90.0]) in points
    assert ([55.0], [66.0]) in points
    assert ([60.0, 55.0], [90.0, 66.0]) in points  # joins ours with what is published
    assert (dtd.get_xlabel(), dtd.get_ylabel()) == ("base accuracy in %", "new accuracy in %")
    assert all(text.get_text().startswith("HM ") for axes in (dtd, eurosat) for text in axes.texts)
    low, high = eurosat.get_xlim()
    assert high - low >= 3  # a single point has some air around it
    assert low <= 50.0 <= high


def test_bars_of_differences(base2new):
    published = differences(base2new, base2new.lines)
    assert [(bar.group, bar.method) for bar in published] == [("DTD", "CoOp")]
    assert published[0].value == pytest.approx(72.0 - 60.0)  # HM of 60 and 90, of 55 and 66
    reference = differences(base2new, base2new.lines, to_reference=True)
    assert reference == [("DTD", "CoOp w/ Spotlighter - CoOp", pytest.approx(80.0 - 72.0))]
    other = differences(base2new, base2new.lines, True, "CoOp w/ Spotlighter")
    assert other == [("DTD", "CoOp - CoOp w/ Spotlighter", pytest.approx(-8.0))]
    drawn = draw_bars(reference, "HM: method minus reference", base2new.methods)
    (axes,) = drawn.axes
    assert [patch.get_width() for patch in axes.patches] == [pytest.approx(8.0)]
    assert axes.patches[0].get_facecolor()[:3] == pytest.approx([0xD5 / 255, 0x5E / 255, 0.0])  # of the second method
    assert [text.get_text() for text in axes.texts] == ["+8.00"]
    assert axes.get_xlabel() == "difference in percentage points"
    left, right = axes.get_xlim()
    assert left < 0 < right


def test_bars_of_targets():
    columns = (Column("dtd", "DTD", dataset="dtd"), Column("average", "Average of 2", dataset="average"))
    cells = {"dtd": over_seeds({1: 50.0}, figure(51.0)), "average": over_seeds({1: 40.0}, figure(38.0))}
    table = PaperTable("cross", "", "Source", columns, (Line("imagenet", "ImageNet", "CoOp", 16, cells),))
    assert differences(table, table.lines) == [("DTD", "CoOp", -1.0), ("Average of 2", "CoOp", 2.0)]


def test_nothing_to_draw(base2new, fewshot, tmp_path):
    gaps = [
        Line(line.dataset, line.group, line.method, 16, dict.fromkeys(line.cells, Cell())) for line in base2new.lines
    ]
    assert draw_base_new(gaps, base2new.methods) is None
    assert draw_fewshot(fewshot, [Line("dtd", "DTD", "CoOp", None, {"1": Cell()})], ["CoOp"]) is None
    assert draw_bars([], "", []) is None
    table = PaperTable("efficiency", "", "Data set", (), ())
    assert draw_all([table], tmp_path) == []


def test_files(base2new, fewshot, tmp_path):
    paths = draw_all([base2new, fewshot], tmp_path)
    stems = ["base_new", "base2new_minus_published", "base2new_minus_reference", "fewshot"]
    assert paths == [tmp_path / f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")]
    assert (tmp_path / "fewshot.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "base_new.svg").read_text()
    draw_all([base2new, fewshot], tmp_path)
    assert (tmp_path / "base_new.svg").read_text() == first  # the same file for the same results


def test_shots_have_files_of_their_own(base2new, tmp_path):
    four = [Line(line.dataset, line.group, line.method, 4, line.cells) for line in base2new.lines]
    table = PaperTable("base2new", "", "Data set", base2new.columns, (*base2new.lines, *four))
    names = {path.name for path in draw_all([table], tmp_path)}
    assert {"base_new_shots4.png", "base_new_shots16.png"} <= names


def test_many_methods_look_different(base2new):
    names = [f"M{i}" for i in range(20)]
    line = base2new.lines[2]
    lines = [Line("dtd", "DTD", name, 16, line.cells) for name in names]
    (legend,) = draw_base_new(lines, names).legends
    looks = {(handle.get_color(), handle.get_marker()) for handle in legend.legend_handles}
    assert len(looks) == 20
    assert len(COLOURS) == 8
    assert len(MARKERS) == 7
    bars = draw_bars([Bar("DTD", name, 1.0) for name in names[:9]], "", names)
    hatches = [patch.get_hatch() for patch in bars.axes[0].patches]
    assert (hatches[0], hatches[8]) == ("", "////")


def test_a_method_has_the_same_colour_in_every_figure(base2new, fewshot, tmp_path, monkeypatch):
    from tools import paper_figures

    seen = {}
    monkeypatch.setattr(paper_figures, "_write", lambda figure, stem: seen.setdefault(stem.name, figure) and [])
    draw_all([base2new, fewshot], tmp_path)
    colours = [
        {
            text.get_text(): handle.get_color()
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }
        for legend in (seen["base_new"].legends[0], seen["fewshot"].legends[0])
    ]
    assert colours[0]["CoOp"] == colours[1]["CoOp"] == COLOURS[1]  # after ZeroshotCLIP, which only one of them has
