"""Merging yaml files and `KEY VALUE` pairs, with errors that name the key and the nearest one.

Both helpers do what yacs' own `cfg.merge_from_file` and `cfg.merge_from_list` do, to the type of the exceptions; only
the sentences differ.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from yacs.config import CfgNode

from dassl.utils.tools import get_most_similar_str_to_a_from_b

__all__ = ["merge_file", "merge_opts"]


def merge_file(cfg: CfgNode, path: str | os.PathLike) -> None:
    """Merge a yaml file into `cfg`.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: it sets a key that does not exist.
        ValueError: it is not a yaml mapping of keys to plain values, or a value has another type than the default.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise FileNotFoundError(f"No config file at {where}; check the name and the folder you run from.")
    with open(where, encoding="utf-8") as f:
        try:
            tree = yaml.safe_load(f)
        except Exception as error:  # besides YAMLError whatever its makers of numbers and dates raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{where} is not valid yaml: {reason}") from error
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise ValueError(f"{where} must hold a mapping of config keys, got a {type(tree).__name__}.")
    _refuse_odd_trees(tree, where)
    for key, value in _leaves(tree):
        if not _exists(cfg, key):
            raise _MissingKey(_unknown(cfg, key, where))
        if value != {}:
            _refuse_group(cfg, key, where)
    try:
        cfg.merge_from_other_cfg(CfgNode(tree))
    except (ValueError, AssertionError) as error:  # the latter: a type that no config value can have
        raise ValueError(_mismatch(where, error)) from error


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Merge `[KEY, VALUE, KEY, VALUE, …]` into `cfg`.

    Raises:
        AssertionError: a key does not exist, or the last one lacks a value.
        ValueError: a value has another type than the default.
    """
    opts = list(opts)
    if len(opts) % 2:
        raise AssertionError(f"expected KEY VALUE pairs, got {len(opts)} items: {_one_line(' '.join(map(str, opts)))}.")
    for key in opts[0::2]:
        if not _exists(cfg, key):
            raise AssertionError(_unknown(cfg, key, "the command line"))
        _refuse_group(cfg, key, "the command line")
    try:
        cfg.merge_from_list(opts)
    except (ValueError, AssertionError, TypeError, RecursionError, MemoryError) as error:  # Python's reader of values
        raise ValueError(_mismatch("the command line", error)) from error


MOST_NODES = 100_000  # values in one file


class _MissingKey(KeyError):
    """A KeyError whose text is the sentence itself, not its repr."""

    def __str__(self) -> str:
        return str(self.args[0])


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _exists(cfg: CfgNode, key: str) -> bool:
    node: Any = cfg
    for name in str(key).split("."):
        if not isinstance(node, CfgNode):
            return False
        if name not in node:
            return node.is_new_allowed()
        node = node[name]
    return True


def _refuse_group(cfg: CfgNode, key: str, where: str) -> None:
    """A value in the place of a group would take all its keys away.

    Raises:
        ValueError: the key names a group.
    """
    node: Any = cfg
    for name in str(key).split("."):
        node = node.get(name) if isinstance(node, CfgNode) else None
    if isinstance(node, CfgNode):
        raise ValueError(f"{where} sets {key}, which is a group of keys; set the keys in it.")


def _one_line(text: Any) -> str:
    """A text as a part of a sentence."""
    return " ".join(str(text).split())


def _refuse_odd_trees(tree: dict, where: str) -> None:
    """Names that are text without dots, and as many values as a person would write: aliases can multiply them.

    Raises:
        ValueError: so it is not.
    """
    left, nodes = MOST_NODES, [tree]
    while nodes:
        node = nodes.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"{where} holds more than {MOST_NODES:,} values, or itself; write it without aliases.")
        if isinstance(node, dict):
            odd = [name for name in node if not isinstance(name, str) or "." in name]
            if odd:
                raise ValueError(f"{where} has the key {odd[0]!r:.40}; write words, each group of keys below its name.")
        if isinstance(node, (dict, list, tuple)):
            nodes += node.values() if isinstance(node, dict) else node


def _unknown(cfg: CfgNode, key: str, where: str) -> str:
    nearest = get_most_similar_str_to_a_from_b(str(key), [name for name, _ in _leaves(cfg)])
    return f"{where} sets {_one_line(key)}, which is no config key; do you mean {nearest}?"


def _mismatch(where: str, error: Exception) -> str:
    """yacs' complaint about a type, in a sentence that says what to write."""
    types, values = r"\(<class '(\S+)'> vs. <class '(\S+)'>\)", r"\((.*) vs. (.*)\)"
    pattern = rf"Type mismatch {types} with values {values} for config key: (\S+)"
    found = re.fullmatch(pattern, str(error), re.DOTALL)
    if not found:
        return f"{where}: {_one_line(error)[:300] or 'a value is nested too deeply'}"
    expected, got, default, value, key = map(_one_line, found.groups())
    advice = f"; write {value}.0" if (expected, got) == ("float", "int") else ""
    return f"{where} sets {key} to {value}, a type mismatch: expected {expected} as in {default!s}, got {got}{advice}."
