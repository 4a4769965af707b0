"""Class descriptions in the form that the field shares: a JSON object from a class name to a list of texts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class Descriptions:
    """Texts by class; names are compared without regard to case, and with underscores as spaces.

    Args:
        path: JSON file {class name: [text, …]}; it may hold more classes than are asked for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, has another form, or holds a class twice.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"No class descriptions at {self.path}; name a JSON file {{class name: [text, …]}}."
            )
        try:
            # pairs, since a dict would keep only the last of two entries with one name
            pairs = json.loads(self.path.read_text(encoding="utf-8"), object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is no JSON file ({error}); restore it.") from error
        if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
            raise ValueError(f"{self.path} must hold one JSON object {{class name: [text, …]}}.")
        self._texts: dict[str, tuple[str, ...]] = {}
        for name, texts in pairs:
            if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ValueError(f"{self.path}: class {name!r} must have a list of at least one text, each not empty.")
            if plain(name) in self._texts:
                raise ValueError(f"{self.path} describes class {name!r} twice; keep one entry.")
            self._texts[plain(name)] = tuple(text.strip() for text in texts)

    def of(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The texts of each class.

        Raises:
            ValueError: a class has none.
        """
        missing = [name for name in names if plain(name) not in self._texts]
        if missing:
            near = get_close_matches(plain(missing[0]), self._texts, n=1)
            hint = f" (the file has '{near[0]}')" if near else ""
            raise ValueError(
                f"{self.path} describes {len(names) - len(missing)} of {len(names)} classes; '{missing[0]}' is not "
                f"among them{hint}; add what is missing."
            )
        return [self._texts[plain(name)] for name in names]


def plain(name: str) -> str:
    """A class name as it is compared."""
    return " ".join(name.replace("_", " ").split()).casefold()
