import json
from pathlib import Path

import pytest

from datasets.descriptions import Descriptions
from datasets.shapes.render import NAMES

EXAMPLE = Path(__file__).parents[2] / "configs" / "descriptions" / "shapes.json"


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "texts.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_names_are_compared_without_case_and_underscores(file):
    descriptions = Descriptions(file({"Red  Star": [" one ", "two"], "apply_eye_makeup": ["three"], "unused": ["x"]}))
    assert descriptions.of(["Apply_Eye_Makeup", "red_star"]) == [("three",), ("one", "two")]


def test_the_example_describes_the_embedded_benchmark():
    listed = Descriptions(EXAMPLE).of(NAMES)
    assert len(listed) == 144
    assert {len(texts) for texts in listed} == {4}
    assert len({text for texts in listed for text in texts}) == 4 * 144  # none serves two classes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"texts.json is no JSON file \("),
        ("[]", r"must hold one JSON object \{class name: \[text, …\]\}"),
        ('["a"]', "must hold one JSON object"),
        ("3", "must hold one JSON object"),
        ("{}", "must hold one JSON object"),
        ({"star": "one text"}, "class 'star' must have a list of at least one text, each not empty"),
        ({"star": []}, "class 'star' must have a list of at least one text"),
        ({"star": ["a", 3]}, "class 'star' must have a list of at least one text"),
        ({"star": ["a", "  "]}, "class 'star' must have a list of at least one text"),
        ('{"red star": ["a"], "Red_Star": ["b"]}', "describes class 'Red_Star' twice; keep one entry"),
        ('{"star": ["a"], "star": ["b"]}', "describes class 'star' twice"),
    ],
)
def test_bad_files_are_named(file, content, message):
    with pytest.raises(ValueError, match=message):
        Descriptions(file(content))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No class descriptions at .*nothing.json; name a JSON file"):
        Descriptions(tmp_path / "nothing.json")


def test_missing_classes_are_counted_and_a_near_name_is_shown(file):
    descriptions = Descriptions(file({"airplane": ["a"], "face": ["b"]}))
    with pytest.raises(ValueError, match=r"1 of 3 classes; 'airplanes' is not among them \(the file has 'airplane'\)"):
        descriptions.of(["face", "airplanes", "zebra"])
    with pytest.raises(ValueError, match=r"'zebra' is not among them; add what is missing"):
        descriptions.of(["zebra"])
