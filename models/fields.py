"""Reads a JSON object from outside field by field: whatever is wrong with it is one line that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn, TypeVar

from models.api import ModelError

_T = TypeVar("_T")


def read_json(content: bytes) -> object:
    """What JSON of outside stands for. Raises ValueError: not JSON, a field twice, NaN, nested beyond reading."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice")
    return found


class Fields:
    """A JSON object of a file; ``path`` is where it stands in it, "" at the top. Every complaint names both."""

    def __init__(self, value: object, where: str, path: str) -> None:
        self._where, self._path = where, path
        if not isinstance(value, dict):
            raise ModelError(f"{where}: {path or 'the top level'} is {found(value)}, expected an object")
        self._left: dict[str, object] = dict(value)

    def wrong(self, field: str, value: object, expected: str) -> ModelError:
        """The error to raise when ``value`` is not what ``field`` may hold."""
        return ModelError(f"{self._where}: {self._name(field)} is {found(value)}, expected {expected}")

    def _name(self, field: str) -> str:
        # A name from outside goes to a screen: short and without control characters.
        shown = "".join(letter if letter.isprintable() else "?" for letter in field[:60])
        return f"{self._path}.{shown}" if self._path else shown

    def names(self) -> list[str]:
        """The fields that have not been read, in the file's order."""
        return list(self._left)

    def rest(self) -> dict[str, object]:
        """What has not been read, unchecked."""
        return self._left

    def close(self) -> None:
        """Nothing may be left: a misspelt field is not passed over."""
        if self._left:
            raise ModelError(f"{self._where}: {self._name(next(iter(self._left)))!r} is not a field of a manifest")

    def take(self, field: str) -> object:
        """The value of a field, unchecked. Reading takes it out."""
        if field not in self._left:
            raise ModelError(f"{self._where}: {self._name(field)} is missing; export the bundle again")
        return self._left.pop(field)

    def part(self, field: str) -> Fields:
        return Fields(self.take(field), self._where, self._name(field))

    def parts(self, field: str, least: int, most: int) -> list[Fields]:
        return self._list(field, least, most, lambda value, name: Fields(value, self._where, name))

    def _list(self, field: str, least: int, most: int, make: Callable[[object, str], _T]) -> list[_T]:
        value = self.take(field)
        if not isinstance(value, list) or not least <= len(value) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise self.wrong(field, value, f"a list of {wanted}")
        return [make(one, f"{self._name(field)}[{index}]") for index, one in enumerate(value)]

    def number(self, field: str, low: float, high: float) -> float:
        return self._number(self.take(field), self._name(field), low, high)

    def numbers(self, field: str, count: int | None, low: float, high: float) -> tuple[float, ...]:
        least, most = (0, 16) if count is None else (count, count)
        return tuple(self._list(field, least, most, lambda value, name: self._number(value, name, low, high)))

    def _number(self, value: object, name: str, low: float, high: float) -> float:
        # Compared before it is converted: an integer of a thousand digits has no float.
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ModelError(f"{self._where}: {name} is {found(value)}, expected a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, field: str, low: int, high: int) -> int:
        return self._integer(self.take(field), self._name(field), low, high)

    def integers(self, field: str, least: int, most: int, low: int, high: int) -> tuple[int, ...]:
        return tuple(self._list(field, least, most, lambda value, name: self._integer(value, name, low, high)))

    def _integer(self, value: object, name: str, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ModelError(f"{self._where}: {name} is {found(value)}, expected a whole number from {low} to {high}")
        return value

    def boolean(self, field: str) -> bool:
        value = self.take(field)
        if not isinstance(value, bool):
            raise self.wrong(field, value, "true or false")
        return value

    def text(self, field: str) -> str:
        value = self.take(field)
        if not isinstance(value, str):
            raise self.wrong(field, value, "text")
        return value

    def line(self, field: str, longest: int) -> str:
        return self._line(self.take(field), self._name(field), longest)

    def lines(self, field: str, least: int, most: int) -> tuple[str, ...]:
        return tuple(self._list(field, least, most, lambda value, name: self._line(value, name, 60)))

    def _line(self, value: object, name: str, longest: int) -> str:
        # Shown on screens and in terminals: no control characters.
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            raise ModelError(
                f"{self._where}: {name} is {found(value)}, expected one printable line of 1 to {longest} characters"
            )
        return value


def found(value: object) -> str:
    """A value as an error shows it: short, on one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**15:
        return "a huge number"
    if isinstance(value, list) and len(value) > 4:
        return f"a list of {len(value)}"
    return ascii(value) if len(ascii(value)) <= 60 else ascii(value)[:57] + "..."
