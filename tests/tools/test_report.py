"""tools/report.py and tools/pages: what stands on the page, that it is whole HTML, and that no name becomes markup."""

import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from tools import report
from tools.pages import html, runs
from tools.pages.drawn import title_of
from tools.result_published import Published
from tools.run_layout import place_of

EVIL = "<script>alert('x')</script> & \"$q\" onerror=x"


class Page(HTMLParser):
    """Elements with their attributes and text; complains about what is not closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in html.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, (self.open[-1][0], tag)
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag):
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]


def check(text):
    """The page, if it keeps what it promises."""
    page = Page(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    identifiers = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for attributes, _ in page.all("img"):
        assert len(attributes["alt"]) > 20
        assert int(attributes["width"]) > 50
        assert int(attributes["height"]) > 20
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert not any(name.startswith("on") for name in attributes)
        for name in ("aria-labelledby",):
            assert attributes.get(name) is None or attributes[name] in identifiers
    assert {attributes["href"][1:] for attributes, _ in page.all("a")} <= set(identifiers)
    levels = [int(name[1]) for name, _, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes, _ in page.all("th"))
    for tag in ("header", "nav", "main", "title"):
        assert len(page.all(tag)) == 1
    assert page.all("a")[0][0]["class"] == "skip"
    assert "http" not in re.sub(r"<(pre|li|p)\b.*?</\1>", "", re.sub(r"http-equiv", "", text), flags=re.DOTALL)
    return page


def write(folder, tmp_path, *more):
    assert report.main([str(folder), "-o", str(tmp_path / "page"), *more]) == 0
    return (tmp_path / "page" / "index.html").read_text()


# --- HTML


def test_text_and_attributes_are_escaped():
    assert html.tag("p", EVIL, title=EVIL) == (
        '<p title="&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;$q&quot; onerror=x">'
        "&lt;script&gt;alert('x')&lt;/script&gt; &amp; \"$q\" onerror=x</p>"
    )
    assert html.tag("p", html.tag("b", "<"), ["a", None, 1, 2.5]) == "<p><b>&lt;</b>a12.5</p>"
    assert html.tag("details", open=True, hidden=None, class_="x") == '<details open class="x"></details>'
    assert html.tag("br") == "<br>"
    with pytest.raises(TypeError, match="a page takes text, numbers and lists of them, got a object"):
        html.tag("p", object())


def test_a_table_has_scopes_and_can_be_sorted():
    page = Page(html.table("About", ["Name", "Value"], [["a", ("1.50 ± –", "1.5")]], sortable=True, is_titled=True))
    assert page.all("table")[0][0] == {"class": "sortable"}
    assert page.all("caption") == [({"class": "unseen"}, "About")]
    assert page.all("th")[2] == ({"scope": "row"}, "a")
    assert page.all("td") == [({"class": "number", "data-key": "1.5"}, "1.50 ± –")]
    assert page.all("div")[0][0] == {"class": "scroll", "role": "region", "aria-label": "Table: About", "tabindex": "0"}


# --- runs


def test_groups_are_over_seeds(runs_):
    for seed, value in ((2, 80.0), (10, 70.0), (1, 60.0)):
        runs_.of("fewshot/dtd/shots_4", value, seed=seed)
    runs_.of("fewshot/dtd/shots_1", 50.0)
    runs_.of("fewshot/dtd/shots_4", 50.0, seed=3, finished=False)
    four, one = sorted(runs.grouped(runs.read_folder(runs_.root)), key=lambda group: -len(group.runs))
    assert [run.place.seed for run in four.runs] == [1, 2, 3, 10]
    assert four.result.mean == pytest.approx(70.0)
    assert four.result.spread == pytest.approx((200 / 3) ** 0.5)
    assert four.title == "CoOp (rn50) on dtd, all classes, 4 shots"
    assert one.result.spread is None


@pytest.fixture(name="runs_")
def _runs(runs):
    return runs


def test_differences_name_who_set_them():
    def run(**config):
        return runs.FoundRun(
            place_of("out/fewshot/shapes/shots_4/CoOp/mini_vit8_ep20/seed1").folder,
            place_of("out/fewshot/shapes/shots_4/CoOp/mini_vit8_ep20/seed1"),
            {"config": config},
            50.0,
        )

    default = {"OPTIM.LR": 0.1, "OPTIM.MAX_EPOCH": 10, "INPUT.SIZE": [224, 224], "SEED": -1, "TEST.SPLIT": "test"}
    default |= {"DATASET.NUM_SHOTS": -1, "DATASET.VAL_IS_TEST": False}
    config = {"OPTIM": {"LR": 0.5, "MAX_EPOCH": 20}, "INPUT": {"SIZE": [64, 64]}, "SEED": 3, "TEST": {"SPLIT": "test"}}
    config["DATASET"] = {"NUM_SHOTS": 4, "VAL_IS_TEST": True, "NAME": "Shapes", "ROOT": "data"}
    found = {d.key: (d.value, d.default, d.set_by) for d in runs.differences(run(**config), default)}
    assert found == {
        "OPTIM.LR": (0.5, 0.1, "command line"),
        "OPTIM.MAX_EPOCH": (20, 10, "config file"),
        "INPUT.SIZE": ([64, 64], [224, 224], "config file"),  # "(64, 64)" there
        "DATASET.NUM_SHOTS": (4, -1, "script"),
        "DATASET.VAL_IS_TEST": (True, False, "command line"),
    }


def test_commands_repeat_a_run(tmp_path):
    folder = tmp_path / "out/fewshot/shapes/shots_4/CoOp/mini_vit8_ep20/seed1"
    changed = [
        runs.Difference("OPTIM.LR", 0.5, 0.1, "command line"),
        runs.Difference("OPTIM.MAX_EPOCH", 20, 10, "config file"),
        runs.Difference("DATASET.NUM_SHOTS", 4, -1, "script"),
    ]
    by_script = runs.FoundRun(folder, place_of(folder), {"trainer": "CoOp"}, 50.0)
    line = f"OUTPUT={tmp_path}/out bash scripts/coop/fewshot.sh shapes 4 1 OPTIM.LR 0.5"
    assert runs.repeat_command(by_script, changed) == line
    config = {"SEED": 7, "DATASET": {"ROOT": "/my data", "NAME": "Toy"}}
    record = {"trainer": "CoOp", "mode": "eval", "config": config, "final": {"model_dir": "run"}}
    by_hand = runs.FoundRun(tmp_path / "test", place_of(tmp_path / "test"), record, 50.0)
    assert runs.repeat_command(by_hand, changed[:1]) == (
        f"python train.py --root '/my data' --seed 7 --trainer CoOp --output-dir {tmp_path}/test --eval-only "
        "--model-dir run DATASET.NAME Toy OPTIM.LR 0.5"
    )


# --- pages


def test_a_folder_of_runs(runs_, tmp_path):
    for seed in (1, 2):
        runs_.pair(seed, 80.0 + seed, 70.0, dataset="dtd")
        runs_.pair(seed, 82.0 + seed, 72.0, dataset="dtd", trainer="Spotlighter", host="CoOp")
    for path in runs_.root.rglob("metrics.json"):
        path.write_text(path.read_text().replace("Mini-ViT/8", "ViT-B/16"))
    runs_.root.joinpath("base2new").mkdir()
    for side in ("train_base", "test_new"):
        (runs_.root / side).rename(runs_.root / "base2new" / side)
    text = write(runs_.root / "base2new", tmp_path, "--look", "0")
    page = check(text)
    assert page.all("title")[0][1] == page.all("h1")[0][1] == "Report: base2new"
    assert [text for _, text in page.all("h2")] == [
        "What was run",
        "Results",
        "Learning curves",
        "A closer look",
        "How to repeat it",
    ]
    table = page.all("table")
    (paper,) = [text for _, text in table if text.startswith("Base to new generalisation (Table I), 16 shots")]
    assert "81.50 ± 0.50" in paper
    assert "CoOp: published" in paper
    assert "CoOp: ours - published" in paper
    (every,) = [text for _, text in table if text.startswith("Runs that differ in their seed only")]
    assert "83.50 ± 0.50" in every
    assert "(published)" in every
    alts = [attributes["alt"] for attributes, _ in page.all("img")]
    assert any("DTD, CoOp: Base 81.50, New 70.00, HM 75.31" in alt for alt in alts)
    assert "8 more finished runs were not looked at" in text
    assert "bash scripts/coop/base2new_train.sh dtd 1" in text


def test_unusable_runs_are_named_and_stop_nothing(runs_, tmp_path):
    runs_.of("fewshot/dtd/shots_4", 50.0)
    runs_.of("fewshot/dtd/shots_4", 50.0, seed=2, finished=False)
    damaged = runs_.of("fewshot/dtd/shots_4", 50.0, seed=3)
    (damaged / "metrics.json").write_text("{")
    (runs_.root / "fewshot/dtd/shots_4/CoOp/rn50/seed4").mkdir()
    page = check(write(runs_.root, tmp_path, "--look", "0"))
    (problems,) = [text for attributes, text in page.all("div") if attributes.get("class") == "problems"]
    assert "3 of 4 runs cannot be used" in problems
    assert "seed2: unfinished (after 1 of 20 epochs); the command that began it goes on with it." in problems
    assert "seed3: metrics.json cannot be read" in problems
    assert "seed4: it holds neither metrics.json nor log.txt." in problems


def test_only_unusable_runs_still_make_a_page(runs_, tmp_path):
    runs_.of("fewshot/dtd/shots_4", 50.0, finished=False)
    page = check(write(runs_.root, tmp_path))
    assert "No run was looked at in detail." in "".join(text for _, text in page.all("main"))


def test_runs_laid_out_otherwise(runs_, tmp_path):
    for name, value in (("a/seed1", 60.0), ("a/seed2", 70.0), ("b/run", 80.0)):
        runs_.metrics(runs_.root / "mine" / name, value, seed=int(name[-1]) if name[-1].isdigit() else 1)
    page = check(write(runs_.root, tmp_path, "--look", "0"))
    (every,) = [text for _, text in page.all("table") if text.startswith("Runs that differ in their seed only")]
    assert "65.00 ± 5.00" in every
    assert "80.00 ± –" in every
    assert "python train.py --root data" in "".join(text for _, text in page.all("pre"))


def test_several_output_folders_have_tables_each(runs_, tmp_path):
    for name in ("one", "two"):
        runs_.of(f"{name}/fewshot/dtd/shots_4", 50.0)
    titles = [text for _, text in check(write(runs_.root, tmp_path, "--look", "0")).all("h3")]
    assert [title for title in titles if "Few-shot" in title] == [
        title for title in titles if title.endswith((", one", ", two"))
    ]
    assert len([title for title in titles if title.endswith((", one", ", two"))]) == 2


def test_names_from_users_are_text(runs_, tmp_path):
    host = "<b>Host</b>"
    runs_.of(
        "fewshot/<i>data&/shots_4",
        50.0,
        trainer="Spotlighter",
        host=host,
        config="<u>cfg",
        versions={"<img src=x>": EVIL},
        device=EVIL,
        backbone=EVIL,
    )
    page = check(write(runs_.root, tmp_path, "--look", "0"))
    assert {name for name, _, _ in page.elements} & {"b", "i", "u"} == set()
    assert len(page.all("script")) == 1
    text = "".join(text for _, text in page.all("main"))
    assert EVIL in text
    assert "<b>Host</b> w/ Spotlighter" in text


def test_a_single_run_looked_at(tiny_runs, tmp_path):
    folder = tiny_runs / "output/base2new/train_base/toy/shots_6/Spotlighter/tiny/seed1"
    before = sorted(path for path in tiny_runs.rglob("*"))
    page = check(write(folder, tmp_path, "--set", "DEVICE", "cpu"))
    assert sorted(path for path in tiny_runs.rglob("*")) == before  # nothing is written beside runs and data
    titles = [text for _, text in page.all("h4")]
    assert titles == [
        "By class",
        "Features before and after tuning",
        "Activated tokens",
        "Nearest words of the learned context",
    ]
    (by_class,) = [text for _, text in page.all("table") if text.startswith("Results by class")]
    assert "green_square" in by_class
    (image, *_) = [a for a, _ in page.all("img") if "activation maps (sample-wise, semantic-wise, sum)" in a["alt"]]
    png = html.base64.b64decode(image["src"].partition(",")[2])
    assert Image.open(io.BytesIO(png)).info["Description"] == image["alt"]
    curves = [a["alt"] for a, _ in page.all("img") if a["alt"].startswith("Total loss of CoOp w/ Spotlighter (tiny)")]
    assert len(curves) == 1
    lead = page.all("header")[0][1]
    assert "One run, " in lead
    assert "accuracy on the base classes." in lead


def test_class_names_from_users_are_text_in_a_closer_look(tiny_runs, tmp_path, monkeypatch):
    names = [EVIL, "$\\frac{1}{0}$ <b>"]
    monkeypatch.setattr("tests.conftest.NAMES", (*names, "c", "d"))
    folder = shutil.copytree(tiny_runs / "output/base2new/train_base/toy/shots_6/CoOp/tiny/seed1", tmp_path / "seed1")
    record = json.loads((folder / "metrics.json").read_text()) | {"class_names": names}
    (folder / "metrics.json").write_text(json.dumps(record))
    page = check(write(folder, tmp_path, "--set", "DEVICE", "cpu"))
    assert page.all("b") == []
    heads = [text for attributes, text in page.all("th") if attributes["scope"] == "row"]
    assert set(names) <= set(heads)


def test_without_the_data_set_a_sentence_stands_there(tiny_runs, tmp_path):
    (tmp_path / "empty").mkdir()
    text = write(tiny_runs / "output", tmp_path, "--root", str(tmp_path / "empty"), "--set", "DEVICE", "cpu")
    page = check(text)
    assert text.count("The data set Toy is not on this machine: there is no folder") == 4
    assert "Base to new generalisation" in "".join(text for _, text in page.all("h3"))
    assert "tokens_1" not in text


def test_the_same_runs_give_the_same_page(runs_, tmp_path):
    runs_.of("fewshot/dtd/shots_4", 50.0)
    out = tmp_path / "elsewhere"
    first = write(runs_.root / "fewshot", out, "--look", "0")
    assert write(runs_.root / "fewshot", out, "--look", "0") == first
    assert [path.name for path in (out / "page").iterdir()] == ["index.html"]  # no temporary file is left


def test_what_is_looked_at_first(runs_):
    for trainer, host in (("ZeroshotCLIP", None), ("Spotlighter", "CoOp"), ("CoOp", None)):
        runs_.of("fewshot/dtd/shots_4", 50.0, trainer=trainer, host=host)
        runs_.of("fewshot/dtd/shots_4", 50.0, trainer=trainer, host=host, seed=2)
    groups = runs.grouped(runs.read_folder(runs_.root))
    chosen = [(group.method, run.place.seed) for group, run in report.to_look_at(groups, 2)]
    assert chosen == [("CoOp", 1), ("CoOp w/ Spotlighter", 1)]


def test_wrong_calls(tmp_path, capsys):
    assert report.main([str(tmp_path / "none")]) == 1
    assert "error: There is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert report.main([str(tmp_path / "empty")]) == 1
    assert "holds no run; name a folder that train.py or a script wrote below." in capsys.readouterr().err
    assert report.main([str(tmp_path / "empty"), "--look", "-1"]) == 1
    assert "--look must be 0 or more and --images 1 or more, got -1 and 2000." in capsys.readouterr().err


def test_a_page_that_cannot_be_written_says_so(runs_, tmp_path, capsys):
    runs_.of("fewshot/dtd/shots_4", 50.0)
    (tmp_path / "file").write_text("")
    assert report.main([str(runs_.root / "fewshot"), "-o", str(tmp_path / "file"), "--look", "0"]) == 1
    assert "error: Cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("base_new", "Base against new accuracy, on lines of equal harmonic mean"),
        ("base2new_minus_published", "HM, base to new: difference to published figures"),
        ("cross_imagenet_minus_reference", "Accuracy, cross_imagenet: difference to each method's reference"),
        ("fewshot_shots4", "Accuracy over images a class"),
    ],
)
def test_titles_of_figures(name, title):
    assert title_of(name) == title


def test_published_figures_are_found_for_a_group(runs_):
    figure = Published("II", "fewshot", "CoOp", "", "dtd", "accuracy", "4", 55.5, "%", "", "a paper", "")
    runs_.of("fewshot/dtd/shots_4", 50.0)
    (group,) = runs.grouped(runs.read_folder(runs_.root))
    from tools.pages import sections
    from tools.result_published import PublishedFigures

    assert sections._printed(PublishedFigures([figure]), group) == 55.5
