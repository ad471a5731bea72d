"""One way to add a method or a regulariser: a file that registers a class."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from sar_train.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by the names under which users ask for them."""

    def __init__(self, kind: str, package: str) -> None:
        """Start empty; ``kind`` is the word for messages, ``package`` is imported whole at the first look-up."""
        self._kind = kind
        self._package = package
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers under a name; raise ValueError if the name is taken."""

        def add(entry: type[T]) -> type[T]:
            if name in self._entries:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    @property
    def entries(self) -> Mapping[str, type[T]]:
        """Return all registered classes by name."""
        for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        return MappingProxyType(dict(sorted(self._entries.items())))

    def get(self, name: str) -> type[T]:
        """Return the class of that name.

        Raises:
            ConfigError: no such name; the nearest known one is offered.
        """
        entries = self.entries
        if name in entries:
            return entries[name]
        near = difflib.get_close_matches(name, entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown {self._kind} {name!r}: expected one of {', '.join(entries)}{hint}")
