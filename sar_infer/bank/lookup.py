"""Finding a class by what people write: any spelling of its name, or another name of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from sar_infer.bank.info import ClassInfo
from sar_infer.errors import BankError, ClassNameError
from sar_infer.text.names import name_key

_MOST_COMPARED = 20_000
"""Names that near spellings are looked for in; a comparison takes some microseconds."""


class Lookup:
    """Rows by name and alias, without regard to case and space.

    Args:
        names: Of the bank's classes. Two may differ in case or space alone; then the exact spelling decides.
        info: Sparse.

    Raises:
        BankError: an alias stands for another class already.
    """

    def __init__(self, names: Sequence[str], info: Mapping[str, ClassInfo]) -> None:
        self._names = names
        self._rows: dict[str, int] = {}
        self._alike: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            key = name_key(name)
            if key in self._rows:
                self._alike.setdefault(key, [self._rows[key]]).append(row)
            self._rows[key] = row
        self._aliases: dict[str, int] = {}
        for name, item in info.items():
            owner = self.name(name) if item.aliases else None
            if owner is not None:
                for alias in item.aliases:
                    self._add_alias(alias, owner)

    def name(self, text: str) -> int | None:
        """The row of the class with this name; among names that differ in case or space alone, the last."""
        key = name_key(text)
        alike = (row for row in self._alike.get(key, ()) if self._names[row] == text)
        return next(alike, self._rows.get(key))

    def is_ambiguous(self, text: str) -> bool:
        """Whether several names are this one but for case and space."""
        return name_key(text) in self._alike

    def alias(self, text: str) -> int | None:
        """The row of the class that has this among its other names."""
        return self._aliases.get(name_key(text))

    def get(self, text: str) -> int | None:
        """The row of the class with this name or alias."""
        row = self.name(text)
        return self.alias(text) if row is None else row

    def find(self, text: str) -> int:
        """As ``get``.

        Raises:
            ClassNameError: there is none, with near spellings; or several that differ in case or space alone.
        """
        row = self.get(text)
        if row is None:
            near = self.near(text)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ClassNameError(f"no class {text!r:.80} in the bank{hint}")
        alike = [self._names[other] for other in self._alike.get(name_key(text), ())]
        if alike and text not in alike:
            raise ClassNameError(
                f"class name {text!r:.80} stands for {' and '.join(map(repr, alike))}; spell it exactly"
            )
        return row

    def near(self, text: str, most: int = 3) -> list[str]:
        """Names and aliases with a similar spelling, the nearest first; of a large bank, those that begin alike."""
        key = name_key(text)
        known = {**self._aliases, **self._rows}
        keys = [other for other in known if abs(len(other) - len(key)) <= max(3, len(key) // 3)]
        if len(keys) > _MOST_COMPARED:
            keys = [other for other in keys if other[:2] == key[:2]][:_MOST_COMPARED]
        found = difflib.get_close_matches(key, keys, n=most, cutoff=0.6)
        return list(dict.fromkeys(self._names[known[other]] for other in found))

    def _add_alias(self, alias: str, row: int) -> None:
        key = name_key(alias)
        owner = self._rows.get(key, self._aliases.get(key))
        if owner == row:
            raise BankError(
                f"alias {alias!r} already stands for class {self._names[row]!r} itself; case and space do not count"
            )
        if owner is not None:
            name, other = self._names[row], self._names[owner]
            raise BankError(f"alias {alias!r} of class {name!r} already stands for class {other!r}")
        self._aliases[key] = row
