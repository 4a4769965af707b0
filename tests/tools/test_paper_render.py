"""tools/paper_render.py: what a reader sees of a table in each format."""

import csv
import io
import json
from dataclasses import replace

import pytest

from tools.paper_render import commands, comparison_records, render
from tools.paper_tables import Cell, Column, Comparison, Line, PaperTable, over_seeds
from tools.result_gaps import Gap
from tools.result_published import Published
from tools.result_stats import PairedTest

HM = 2 * 60.123 * 90.0 / 150.123


def figure(value, metric="base", note="", source="a paper & its table"):
    return Published("I", "base2new", "CoOp", "", "dtd", metric, "16", value, "%", "ViT-B/16", source, note)


@pytest.fixture
def table():
    """Two methods on one data set, one of them with a missing seed, and an average."""
    columns = (Column("base", "Base", metric="base"), Column("hm", "HM", metric="hm"))
    columns += (Column("hm_seeds", "HM per seed", metric="hm_seeds"),)
    coop = {
        "base": over_seeds({1: 60.0, 2: 60.246}, figure(60.123, note="odd_100%")),
        "hm": Cell(HM, None, {1: 72.0, 2: 72.176}, figure(75.0, "hm")),
        "hm_seeds": over_seeds({1: 72.0, 2: 72.176}),
    }
    ours = {"base": over_seeds({1: 61.0}), "hm": Cell(70.0, None, {1: 70.0}), "hm_seeds": over_seeds({1: 70.0})}
    gap = {key: Cell() for key in coop}
    lines = (
        Line("dtd", "DTD", "CoOp", 16, coop, "ep20"),
        Line("dtd", "DTD", "CoOp w/ Spotlighter", 16, ours, "ep15"),
        Line("average", "Average of 2", "CoOp", 16, gap),
    )
    tests = (
        Comparison("CoOp w/ Spotlighter", "CoOp", "Base", PairedTest(6, -1.5, 0.0004, 0.03125, 0.25)),
        Comparison("CoOp w/ Spotlighter", "CoOp", "HM", PairedTest(1, 0.25, None, None)),
    )
    made = ("CFG=ep15 bash a.sh dtd 2", "CFG=ep15 bash b.sh dtd 2")
    gaps = (Gap("CoOp w/ Spotlighter", "dtd", 16, 2, "no run", made),)
    return PaperTable("base2new", "Base to new", "Data set", columns, lines, tests, gaps, ("A note.",))


def words(line):
    return " ".join(line.split())


def test_terminal(table):
    text = render([table], "table")
    lines = [words(line) for line in text.splitlines()]
    assert lines[0] == "Base to new, 16 shots"
    assert lines[2] == "Data set Method Seeds Base HM HM per seed"
    assert lines[4:10] == [
        "DTD CoOp 1 2 60.12 ± 0.12 72.09 72.09 ± 0.09",
        "published 60.12 75.00",
        "ours - published +0.00 -2.91",  # 60.123 - 60.123; 72.0886 - 75
        "DTD CoOp w/ Spotlighter 1 61.00 ± – 70.00 70.00 ± –",
        "",
        "Average of 2 CoOp – – – –",
    ]
    assert "HM is the harmonic mean of the mean base and the mean new value" in text
    assert "± is the population standard deviation over seeds" in text.replace("\n", " ")
    assert "An average has no spread where the data sets have different seeds. A note." in text.replace("\n", " ")
    assert "CoOp w/ Spotlighter CoOp Base 6 -1.50 ± 0.25 <0.001 0.031" in lines
    assert not [line for line in lines if line.startswith("CoOp w/ Spotlighter CoOp HM")]  # one pair tells nothing
    assert "Wilcoxon's p cannot be below 2/2^n" in text.replace("\n", " ")
    assert "- CoOp: a paper & its table" in lines
    assert "- CoOp, DTD Base: odd_100%" in lines
    assert lines[-3:] == [
        "# CoOp w/ Spotlighter, dtd, 16 shots, seed 2: no run",
        "CFG=ep15 bash a.sh dtd 2",
        "CFG=ep15 bash b.sh dtd 2",
    ]
    assert max(map(len, text.splitlines()[:20])) < 120


def test_markdown(table):
    blocks = render([table, table], "markdown").split("\n\n")
    assert blocks[0] == "## Base to new, 16 shots"
    assert blocks[1].splitlines()[3].split("|")[2].strip() == "published"
    assert blocks.index("### Paired tests") < blocks.index("### Published figures")
    assert "```bash\n# CoOp w/ Spotlighter, dtd, 16 shots, seed 2: no run\nCFG=ep15 bash a.sh dtd 2\n" in blocks[-1]
    assert blocks.count("## Base to new, 16 shots") == 2
    assert len([block for block in blocks if "Wilcoxon's p cannot be" in block]) == 1  # explained once
    assert "" not in blocks


def test_latex(table):
    text = render([table], "latex")
    lines = text.splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs}"
    assert lines[1:3] == [r"\begin{table}", r"\centering\small"]
    assert lines[3].startswith(r"\caption{Base to new, 16 shots. HM is")
    assert lines[4] == r"\begin{tabular}{lllrrr}"
    body = lines[4 : lines.index(r"\end{tabular}") + 1]
    assert [line for line in body if line.startswith("\\")] == [
        *(r"\begin{tabular}{lllrrr}", r"\toprule", r"\midrule", r"\midrule", r"\bottomrule", r"\end{tabular}"),
    ]
    assert words(body[4]) == r"DTD & CoOp & 1 2 & 60.12 $\pm$ 0.12 & 72.09 & 72.09 $\pm$ 0.09 \\"
    assert words(body[6]) == r"& ours $-$ published & & +0.00 & $-$2.91 & \\"
    assert words(body[-3]) == r"Average of 2 & CoOp & -- & -- & -- & -- \\"
    assert lines[lines.index(r"\end{tabular}") + 1] == r"\end{table}"
    rest = lines[lines.index(r"\end{table}") + 1 :]
    assert all(line.startswith("% ") for line in rest)
    assert any("odd_100%" in line for line in rest)  # in a comment nothing needs escaping
    assert not set("±–·√") & set("".join(lines[: lines.index(r"\end{table}")]))


def test_latex_escapes(table):
    column = Column("base", "Base & 100% of a_b")
    line = Line("x", "a_b & c", "CoOp (vit_b16)", None, {"base": Cell(1.0, 0.5, {1: 1.0, 2: 2.0})})
    text = render([PaperTable("cross", "100% of a_b & c", "Source", (column,), (line,))], "latex")
    assert r"\caption{100\% of a\_b \& c. $\pm$ is" in text
    assert r"Base \& 100\% of a\_b" in text
    assert words(text.splitlines()[8]) == r"a\_b \& c & CoOp (vit\_b16) & 1 2 & 1.00 $\pm$ 0.50 \\"


def test_long_latex_tables_break_over_pages(table):
    lines = table.lines * 20
    text = render([PaperTable("cross", "Long", "Source", table.columns, lines)], "latex").splitlines()
    assert text[0] == r"% needs \usepackage{booktabs,longtable}"
    assert text[1:3] == [r"{\small", r"\begin{longtable}{lllrrr}"]
    assert text[3].startswith(r"\caption{Long, 16 shots.")
    assert text[3].endswith(r" \\")
    assert text[text.index(r"\midrule") + 1] == r"\endhead"
    end = text.index(r"\end{longtable}")
    assert text[end + 1] == "}"
    assert all(line.startswith("% ") for line in text[end + 2 :])


def test_csv_has_a_line_a_cell_at_full_precision(table):
    records = list(csv.DictReader(io.StringIO(render([table, table], "csv"))))
    assert len(records) == 2 * 9
    base, hm = records[0], records[1]
    assert (base["table"], base["dataset"], base["method"], base["config"], base["shots"]) == (
        *("base2new", "dtd", "CoOp", "ep20", "16"),
    )
    assert (base["metric"], base["seeds"]) == ("base", "1 2")
    assert (float(base["value"]), float(base["std"])) == (pytest.approx(60.123), pytest.approx(0.123))
    assert (float(hm["value"]), hm["std"], hm["published"], hm["published_note"]) == (HM, "", "75.0", "")
    assert float(hm["difference"]) == HM - 75.0
    assert base["published_note"] == "odd_100%"
    ours = records[3]
    assert (ours["seeds"], ours["commands"]) == ("1", "CFG=ep15 bash a.sh dtd 2; CFG=ep15 bash b.sh dtd 2")
    assert (records[6]["dataset"], records[6]["value"], records[6]["commands"]) == ("average", "", "")


def test_json(table):
    content = json.loads(render([table], "json"))
    assert content["hm"].startswith("HM is the harmonic mean of the mean base and the mean new value")
    assert content["difference"] == "ours minus published"
    (found,) = content["tables"]
    assert (found["table"], found["title"], found["notes"]) == ("base2new", "Base to new", ["A note."])
    assert found["cells"][1]["value"] == HM
    assert found["cells"][1]["per_seed"] == {"1": 72.0, "2": 72.176}
    assert found["cells"][1]["published_source"] == "a paper & its table"
    assert found["tests"][0]["t_test_p"] == 0.0004
    assert found["tests"][1]["wilcoxon_p"] is None
    assert found["gaps"] == [
        {
            **{"method": "CoOp w/ Spotlighter", "dataset": "dtd", "shots": 16, "seed": 2, "reason": "no run"},
            **{"commands": ["CFG=ep15 bash a.sh dtd 2", "CFG=ep15 bash b.sh dtd 2"], "obstacle": None},
        }
    ]


def test_units_and_seeds_that_a_cell_lacks():
    columns = (
        Column("scalars", "Scalars", "count", "parameters"),
        Column("images_per_second", "Images/s", "images/s"),
        Column("scalars_added", "Scalars added", "count"),
        Column("base", "Base"),
    )
    cells = {
        "scalars": Cell(1234567.0, 0.0, {1: 1234567.0, 2: 1234567.0}, figure(1000000.0)),
        "images_per_second": over_seeds({1: 1000.0, 2: 3000.0}),
        "scalars_added": Cell(20.0),
        "base": over_seeds({2: 50.0}, figure(50.0)),
    }
    table = PaperTable("base2new", "Units", "Data set", columns, (Line("imagenet", "ImageNet", "CoOp", 16, cells),))
    lines = [words(line) for line in render([table], "table").splitlines()]
    assert lines[4] == "ImageNet CoOp 1 2 1,234,567 2,000.0 ± 1,000.0 +20 50.00 ± – (n=1)"
    assert lines[5] == "published 1,000,000 50.00"
    assert lines[6] == "ours - published +234,567 +0.00"


def transfer(name="cross", methods=("CoOp", "CoOp w/ Spotlighter"), published=None, datasets=("dtd", "sun397")):
    """A table of one source with a column a data set; every method has seeds 1 and 2, but 2 alone on the last one."""
    columns = tuple(Column(d, d.upper(), dataset=d) for d in ("imagenet", *datasets))
    lines = []
    for i, method in enumerate(methods):
        cells = {column.key: over_seeds({1: 50.0 + i, 2: 52.0 + i}, published) for column in columns[:-1]}
        cells[columns[-1].key] = over_seeds({2: 30.0})
        lines.append(Line("imagenet", "IMAGENET", method, 16, cells))
    return PaperTable(name, "Transfer", "Source", columns, tuple(lines))


def test_other_data_sets_are_rows_in_a_terminal():
    lines = [words(line) for line in render([transfer(published=figure(50.5))], "table").splitlines()]
    assert lines[2:13] == [
        *("Data set CoOp CoOp", "seeds 1 2 w/ Spotlighter", "seeds 1 2"),
        lines[5],
        *("IMAGENET (source) 51.00 ± 1.00 52.00 ± 1.00", "published 50.50 50.50"),
        *("ours - published +0.50 +1.50", "DTD 51.00 ± 1.00 52.00 ± 1.00", "published 50.50 50.50"),
        *("ours - published +0.50 +1.50", "SUN397 30.00 ± – (n=1) 30.00 ± – (n=1)"),
    ]
    lines = [words(line) for line in render([transfer()], "table").splitlines()]
    assert lines[6:9] == [
        *("IMAGENET (source) 51.00 ± 1.00 52.00 ± 1.00", "DTD 51.00 ± 1.00 52.00 ± 1.00"),
        "SUN397 30.00 ± – (n=1) 30.00 ± – (n=1)",
    ]
    printed = render([transfer()], "markdown")
    assert "| IMAGENET | CoOp | 1 2 | 51.00 ± 1.00 | 51.00 ± 1.00 | 30.00 ± – (n=1) |" in words(printed)
    records = list(csv.DictReader(io.StringIO(render([transfer()], "csv"))))
    assert [(r["dataset"], r["trained_on"]) for r in records[:2]] == [("imagenet", "imagenet"), ("dtd", "imagenet")]


def test_a_terminal_is_wide_enough_for_four_methods_and_others_follow_below():
    methods = ("ZeroshotCLIP", "CoOp", "CLIPFit w/ Spotlighter", "PromptSRC w/ Spotlighter")
    table = transfer(methods=methods, published=figure(50.5), datasets=("fgvc_aircraft", "dtd", "ucf101"))
    text = render([table], "table")
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("FGVC_AIRCRAFT") == 1
    text = render([transfer(methods=[f"Method{i} w/ Spotlighter" for i in range(10)])], "table")
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("IMAGENET (source)") == 2
    assert [text.count(f"Method{i}") for i in range(10)] == [1] * 10


def test_few_shot_rows_are_images_a_class_of_each_data_set():
    columns = (Column("zero-shot", "zero-shot", shots=0), Column("1", "1 shot", shots=1))
    lines = [
        Line(dataset, dataset.upper(), method, None, {key: over_seeds({1: 40.0})})
        for dataset in ("dtd", "eurosat")
        for method, key in (("ZeroshotCLIP", "zero-shot"), ("CoOp", "1"))
    ]
    text = render([PaperTable("fewshot", "Few", "Data set", columns, tuple(lines))], "table")
    assert [words(line) for line in text.splitlines()[2:10]] == [
        *("Data set Images a class ZeroshotCLIP CoOp", "seed 1 seed 1"),
        words(text.splitlines()[4]),
        *("DTD zero-shot 40.00 ± –", "1 shot 40.00 ± –", "", "EUROSAT zero-shot 40.00 ± –", "1 shot 40.00 ± –"),
    ]


def test_shots_are_a_column_where_they_differ(table):
    lines = (Line("dtd", "DTD", "CoOp", 4, {"base": Cell(1.0)}), Line("dtd", "DTD", "CoOp", None, {"base": Cell()}))
    text = render([PaperTable("base2new", "T", "Data set", table.columns[:1], lines)], "table").splitlines()
    assert [words(text[i]) for i in (2, 4, 6)] == [
        *("Data set Method Shots Seeds Base", "DTD CoOp 4 – 1.00 ± –", "DTD CoOp – – –"),
    ]


def test_many_places_of_one_note_are_counted(table):
    note = figure(1.0, note="the same")
    lines = [Line(name, name, "CoOp", 16, {"base": Cell(1.0, published=note)}) for name in "abcd"]
    text = render([PaperTable("base2new", "T", "Data set", table.columns[:1], tuple(lines))], "table")
    assert "- CoOp, 4 figures: the same" in text


def test_every_command_once(table):
    assert len(commands(table.gaps * 2)) == 3
    obstacle = Gap("SPT", "dtd", 1, 2, "no run", (), "no scripts run the trainer SPT")
    assert commands([obstacle, *table.gaps, obstacle])[:2] == [
        "# SPT, dtd, 1 shot, seed 2: no run; no scripts run the trainer SPT",
        "# CoOp w/ Spotlighter, dtd, 16 shots, seed 2: no run",
    ]


def test_a_terminal_shows_the_first_missing_runs(table):
    gaps = tuple(Gap("CoOp", "dtd", 16, seed, "no run", (f"bash a.sh {seed}",)) for seed in range(20))
    many = replace(table, gaps=gaps)
    assert render([many], "table").endswith("\nbash a.sh 5\n# ... and 14 more: --commands prints all of them")
    assert render([many], "markdown").endswith("\nbash a.sh 19\n```")


def test_tests_as_records(table):
    assert [record["pairs"] for record in comparison_records(table)] == [6, 1]


def test_unknown_format(table):
    with pytest.raises(ValueError, match="format must be one of table, markdown, csv, latex, json, got 'html'"):
        render([table], "html")
