"""Name → class tables, so that a yaml can say which trainer, data set or evaluator to build."""

from typing import Any

__all__ = ["Registry"]


class Registry:
    """A table of named classes or functions.

    An entry is added by decorating it, and is there only once its module has been imported:

        DATASET_REGISTRY = Registry("DATASET")

        @DATASET_REGISTRY.register()
        class MyData(DatasetBase): ...

        DATASET_REGISTRY.get("MyData")(cfg)
    """

    def __init__(self, name: str):
        self._name = name
        self._entries: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Add `obj` under its `__name__`; without `obj`, return a decorator that does so and returns its argument.

        Raises:
            KeyError: the name is taken and `force` is False.
        """
        if obj is None:

            def decorate(entry: Any) -> Any:
                self._add(entry, force)
                return entry

            return decorate
        self._add(obj, force)
        return None

    def _add(self, obj: Any, force: bool) -> None:
        name = obj.__name__
        if name in self._entries and not force:
            raise KeyError(f"{self._name} already has an entry {name!r}; choose another name or pass force=True.")
        self._entries[name] = obj

    def get(self, name: str) -> Any:
        """Return the entry called `name`.

        Raises:
            KeyError: there is none.
        """
        if name not in self._entries:
            raise KeyError(f"{self._name} has no entry {name!r}; known: {', '.join(self._entries) or 'none'}.")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def registered_names(self) -> list[str]:
        """Names in the order of registration."""
        return list(self._entries)
