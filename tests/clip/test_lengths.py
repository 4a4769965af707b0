"""How long texts are, against the tokenizer's own rows."""

import pytest

from clip.backbone import LabelSpace
from clip.clip import tokenize
from clip.lengths import noted, watch_texts
from clip.prompts import prompt_rows, template_rows

NAMES = ("cat", "red_squirrel", "forget-me-not (flower)")
LONG = " ".join(["cat"] * 90)


def rows(text):
    return int(tokenize([text], 200).ne(0).sum())


@pytest.mark.parametrize(
    ("ask", "sentence", "text"),
    [
        (lambda space: prompt_rows(space, None, 3, "end", 77), "[3 rows] {}.", "X X X {}."),
        (lambda space: prompt_rows(space, "a_photo of a", 2, "front", 77), "a photo of a {}.", "a photo of a {}."),
        (
            lambda space: template_rows(space, "a {}, a type of pet.", 77),
            "a {}, a type of pet.",
            "a {}, a type of pet.",
        ),
    ],
)
def test_texts_are_noted_with_their_lengths(ask, sentence, text):
    with watch_texts() as found:
        ask(LabelSpace(NAMES))
        ask(LabelSpace((*NAMES[:1], LONG)))
    (kind,) = found.values()
    assert (kind.sentence, kind.limit, list(found)) == (sentence, 77, [sentence])
    names = [name.replace("_", " ") for name in (*NAMES, LONG)]
    assert kind.tokens == {name: rows(text.format(name)) for name in names}
    assert kind.overhead == rows(text.format("dog")) - 1
    assert kind.budget == 77 - kind.overhead
    assert kind.too_long == [LONG]
    assert kind.longest(2) == [(LONG, 90), ("forget-me-not (flower)", rows(text.format(names[2])) - kind.overhead)]


def test_a_name_that_does_not_fit_is_replaced_while_somebody_looks():
    plain = template_rows(LabelSpace(("cat", "X")), "a {}.", 77)
    with watch_texts():
        assert template_rows(LabelSpace(("cat", LONG)), "a {}.", 77).ids.equal(plain.ids)
        moved = prompt_rows(LabelSpace(("cat", LONG)), None, 4, "middle", 77)
    assert moved.slots.equal(prompt_rows(LabelSpace(("cat", "X")), None, 4, "middle", 77).slots)
    with pytest.raises(RuntimeError, match="does not fit the context of 77"):
        template_rows(LabelSpace(("cat", LONG)), "a {}.", 77)


def test_nothing_is_counted_while_nobody_looks():
    names = ("cat", LONG)
    assert noted(names, "{}", lambda name: name, 77) is names


def test_a_sentence_that_is_too_long_itself_is_an_error():
    with watch_texts() as found, pytest.raises(RuntimeError, match="does not fit"):
        template_rows(LabelSpace(("cat",)), f"{LONG} {{}}.", 77)
    assert next(iter(found.values())).budget < 0
