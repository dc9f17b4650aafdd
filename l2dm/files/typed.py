"""Nested mappings into frozen dataclasses, for files and options that people write.

Every unknown key (with the nearest known one), wrong type and missing value is told at once, and
so is what a dataclass itself refuses when it is made.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import SequenceMatcher
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from l2dm.errors import BadInput

T = TypeVar("T")
_WRONG = object()  # stands for a value that was refused: its default is used to look further


def build(kind: type[T], data: Mapping[str, Any], noun: str, error: type[BadInput]) -> T:
    """A dataclass from nested mappings; what is left out keeps its default.

    Fields may be str, int, float, bool, Literal, another dataclass, `X | None`, `tuple[X, ...]` and
    `Mapping[str, X]`. noun: what messages call the whole, e.g. "spec". Raises `error` with every
    problem.
    """
    reader = _Reader(noun, error, _keys(kind, ""))
    made = reader.table(kind, data, "")
    if reader.problems:
        raise error(reader.problems)
    assert isinstance(made, kind)
    return made


class _Reader:
    """Reads one tree of mappings and gathers what is wrong with it."""

    def __init__(self, noun: str, error: type[BadInput], known: list[str]) -> None:
        self.problems: list[str] = []
        self._noun, self._error, self._known = noun, error, known

    def table(self, kind: type[Any], data: Any, at: str) -> Any:
        """One dataclass; `at` is its key with a dot behind, empty for the whole."""
        if not isinstance(data, Mapping):
            return self._refuse(at.removesuffix("."), f"expected an object, found {data!r}")
        hints, known = get_type_hints(kind), {one.name: one for one in fields(kind)}
        values = {}
        for key, value in data.items():
            if key in known:
                values[key] = self.value(hints[key], value, f"{at}{key}")
            else:
                near = _nearest(f"{at}{key}", self._known)
                self.problems.append(
                    f"{self._noun} has no key {f'{at}{key}'!r}; nearest known key: {near}"
                )
        missing = [one.name for one in known.values() if _required(one) and one.name not in values]
        for name in missing:
            self._refuse(f"{at}{name}", "expected a value, found none")
        good = {key: value for key, value in values.items() if value is not _WRONG}
        if any(_required(one) and one.name not in good for one in known.values()):
            return _WRONG
        try:
            return kind(**good)  # the values that can be read, so that their ranges are checked too
        except self._error as error:
            self.problems.extend(error.problems)
            return _WRONG

    def value(self, hint: Any, value: Any, where: str) -> Any:
        """One value of any kind that `build` knows, or _WRONG."""
        if get_origin(hint) is UnionType:
            if value is None:
                return None
            (hint,) = (one for one in get_args(hint) if one is not NoneType)
        if is_dataclass(hint) and isinstance(hint, type):
            return self.table(hint, value, f"{where}.")
        if get_origin(hint) is tuple:
            return self._list(get_args(hint)[0], value, where)
        if get_origin(hint) is Mapping:
            return self._mapping(get_args(hint)[1], value, where)
        checked, problem = _checked(hint, value)
        return self._refuse(where, problem) if problem else checked

    def _list(self, hint: Any, value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            return self._refuse(where, f"expected a list, found {value!r}")
        names = [f"{where}[{number}]" for number in range(len(value))]
        self._know(hint, names)
        found = [self.value(hint, one, name) for one, name in zip(value, names, strict=True)]
        return _WRONG if any(one is _WRONG for one in found) else tuple(found)

    def _mapping(self, hint: Any, value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            return self._refuse(where, f"expected an object, found {value!r}")
        self._know(hint, [f"{where}.{key}" for key in value])
        found = {key: self.value(hint, one, f"{where}.{key}") for key, one in value.items()}
        return {key: one for key, one in found.items() if one is not _WRONG}

    def _know(self, hint: Any, places: list[str]) -> None:
        """Names that people chose, and list places, hold keys as well."""
        if is_dataclass(hint) and isinstance(hint, type):
            for place in places:
                self._known = self._known + _keys(hint, f"{place}.")

    def _refuse(self, where: str, problem: str) -> Any:
        self.problems.append(f"{self._noun} {where}: {problem}")
        return _WRONG


def _nearest(where: str, keys: list[str]) -> str:
    """The known key most like this one; of equally like ones, one of the same section."""
    section, _, key = where.rpartition(".")

    def likeness(known: str) -> tuple[float, bool]:
        home, _, name = known.rpartition(".")
        return SequenceMatcher(None, key, name).ratio(), home == section

    return max(keys, key=likeness)


def _keys(kind: type[Any], at: str) -> list[str]:
    hints = get_type_hints(kind)
    found: list[str] = []
    for name in (f.name for f in fields(kind)):
        found.append(f"{at}{name}")
        for nested in (hints[name], *get_args(hints[name])):
            if isinstance(nested, type) and is_dataclass(nested) and not _repeated(hints[name]):
                found += _keys(nested, f"{at}{name}.")
    return found


def _repeated(hint: Any) -> bool:
    return get_origin(hint) in (tuple, Mapping)


def _required(one: "Field[Any]") -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _checked(hint: Any, value: Any) -> tuple[Any, str]:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return value, "" if value in choices else f"expected one of {choices}, found {value!r}"
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value), ""
    if type(value) is not hint:
        return value, f"expected {hint.__name__}, found {value!r}"
    return value, ""
