"""Reading a YAML tree with checks: every error says where, what was expected and what came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_NEEDED: Any = object()  # default of keys that must be there


class CatalogueError(ValueError):
    """A catalogue is not as it has to be."""


class Node:
    """A mapping of the tree. Getters take a key and check its value; `end` refuses keys that nobody asked for."""

    def __init__(self, tree: Any, where: str) -> None:
        self.tree, self.where = tree, where
        self.asked: set[str] = set()
        if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
            raise self.error(f"must be a mapping with names as keys, got {tree!r:.80}")

    def error(self, what: str) -> CatalogueError:
        return CatalogueError(f"{self.where}: {what}.")

    def names(self) -> list[str]:
        return list(self.tree)

    def child(self, key: str) -> Node:
        return Node(self._get(key, _NEEDED), f"{self.where}: {key}")

    def children(self, key: str, needed: bool = False) -> list[Node]:
        """A list of mappings."""
        values = self._get(key, _NEEDED if needed else [])
        if not isinstance(values, list) or (needed and not values):
            raise self.error(f"{key} must be a list, got {values!r:.80}")
        return [Node(value, f"{self.where}: {key}[{number}]") for number, value in enumerate(values)]

    def text(self, key: str, default: Any = _NEEDED) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(f"{key} must be text, got {value!r:.80} (numbers need quotes)")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty if the key is not there."""
        values = self._get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(f"{key} must be a list of texts, got {values!r:.80} (numbers need quotes)")
        return tuple(values)

    def name(self, key: str) -> str:
        """The name of one file or folder."""
        value = self.text(key)
        if not value.strip() or value.startswith(".") or re.search(r"[/\\:\0]", value):
            raise self.error(f"{key} must be the name of one file or folder, got {value!r}")
        return value

    def path(self, key: str, default: Any = _NEEDED) -> Any:
        """A relative path that stays inside, "/" between names; `default` if the key is not there."""
        value = self._get(key, default)
        return value if value is default else self._inside(key, value)

    def paths(self, key: str) -> tuple[str, ...]:
        return tuple(self._inside(key, value) for value in self.texts(key))

    def count(self, key: str, default: int | None) -> int | None:
        value = self._get(key, default)
        if value is not default and (type(value) is not int or value < 1):
            raise self.error(f"{key} must be a whole number of bytes, got {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, got {value!r}")
        return value

    def digest(self, key: str, length: int) -> str | None:
        """Hexadecimal digits; None if the key is not there."""
        value = self._get(key, None)
        if value is not None and not (isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", value)):
            raise self.error(f"{key} must be {length} hexadecimal digits in small letters, got {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: Any) -> Any:
        value = self._get(key, default)
        if value is not default and value not in choices:
            raise self.error(f"{key} must be one of {', '.join(choices)}, got {value!r}")
        return value

    def end(self) -> None:
        """All keys have been asked for; what is left is a mistake."""
        unknown = [key for key in self.tree if key not in self.asked]
        if unknown:
            raise self.error(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(self.asked))}")

    def _get(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        if key not in self.tree and default is _NEEDED:
            raise self.error(f"{key} is missing")
        return self.tree.get(key, default)

    def _inside(self, key: str, value: Any) -> str:
        parts = value.split("/") if isinstance(value, str) else [""]
        if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\0]", value):
            raise self.error(f"{key} must be a relative path without . and .., got {value!r}")
        return value
