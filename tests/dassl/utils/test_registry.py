import pytest

from dassl.utils import Registry, check_availability, get_most_similar_str_to_a_from_b


def test_decorator_returns_the_object_and_call_returns_none():
    registry = Registry("PLANT")

    @registry.register()
    class Oak:
        pass

    def moss():
        pass

    assert Oak.__name__ == "Oak"
    assert registry.register(moss) is None
    assert registry.get("Oak") is Oak
    assert registry.get("moss") is moss
    assert registry.registered_names() == ["Oak", "moss"]
    assert "Oak" in registry
    assert "Elm" not in registry


def test_taken_name_needs_force():
    registry = Registry("PLANT")
    first = type("Oak", (), {})
    second = type("Oak", (), {})
    registry.register(first)
    with pytest.raises(KeyError, match="PLANT already has an entry 'Oak'"):
        registry.register(second)
    assert registry.get("Oak") is first
    registry.register(second, force=True)
    assert registry.get("Oak") is second


def test_unknown_name_lists_the_known_ones():
    registry = Registry("PLANT")
    with pytest.raises(KeyError, match="PLANT has no entry 'Oak'; known: none"):
        registry.get("Oak")
    registry.register(type("Elm", (), {}))
    with pytest.raises(KeyError, match="known: Elm"):
        registry.get("Oak")


@pytest.mark.parametrize(
    ("asked", "known", "nearest"),
    [
        ("CoOpp", ["CoOp", "MaPLe"], "CoOp"),
        ("ab", ["ax", "ay"], "ay"),  # the last of equals
        ("zzz", ["ab", "cd"], "cd"),  # nothing in common is equal too
        ("x", [], None),
    ],
)
def test_most_similar(asked, known, nearest):
    assert get_most_similar_str_to_a_from_b(asked, known) == nearest


def test_check_availability():
    check_availability("CoOp", ["CoOp", "MaPLe"])
    with pytest.raises(ValueError, match=r"'CoOpp' does not exist; expected one of \[CoOp, MaPLe\] .*'CoOp'"):
        check_availability("CoOpp", ["CoOp", "MaPLe"])
