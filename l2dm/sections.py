"""Tables that people write, as frozen pydantic models, and in our words what is wrong with one.

A constraint, a default and a meaning stand beside each field. Whole numbers are floats where a
float is meant; nothing else is converted: `True` is no int, "3" no number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import chain
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from l2dm.errors import BadInput, BadSpec

S = TypeVar("S", bound="Section")
KEPT: dict[str, Any] = {"kept": True}
"""Marks a field (json_schema_extra) whose value a line keeps from its first task on."""
Location = tuple[int | str, ...]
_REFUSAL = "refusal"  # the type of an error whose message is a sentence of ours already
_LISTS = ("tuple_type", "list_type")
_TABLES = ("model_type", "dict_type", "mapping_type")


class Section(BaseModel):
    """One table. Making one checks it and raises `ERROR` with every problem at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    NOUN: ClassVar[str] = "spec"  # what messages call the whole
    TABLE: ClassVar[str] = "an object"  # and a table in it
    ERROR: ClassVar[type[BadInput]] = BadSpec
    AT: ClassVar[str] = ""  # where in the whole this one stands, with a dot behind
    RENAMED: ClassVar[Mapping[str, str]] = {}  # keys of former releases, and what to write instead

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self.ERROR(explain_validation(error, type(self), values)) from error

    # pydantic's own mark: tables inside a table are not made by calling `__init__`, so that their
    # problems are listed with those of the whole.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def inner(cls, key: str) -> "type[Section] | None":
        """The table under a key that is no field."""
        return None

    @classmethod
    def keys(cls, data: Mapping[str, Any]) -> list[str]:
        """Every key that there is, dotted, the likeliest first. data: what was written."""
        return list(_keys(cls, data, cls.AT))


class Described(NamedTuple):
    """A key that people may set. expected: its type and range in words."""

    key: str
    default: Any
    expected: str
    meaning: str


def described(kind: type[Section]) -> Iterator[Described]:
    """Every key of a table and of the tables in it, dotted."""
    for name, info in kind.model_fields.items():
        if inner := _table(info.annotation):
            yield from (one._replace(key=f"{name}.{one.key}") for one in described(inner))
        else:
            default = None if info.is_required() else info.get_default(call_default_factory=True)
            yield Described(name, default, _expected(info), info.description or "")
        if entry := _entry(info.annotation):
            yield from (one._replace(key=f"{name}[].{one.key}") for one in described(entry))


def replaced(section: S, **changes: Any) -> S:
    """The same table with other values, checked."""
    return type(section)(**dict(iter(section)) | changes)


def refusal(problem: str) -> PydanticCustomError:
    """What a validator raises to say a whole sentence, "expected ..., found ..."."""
    return PydanticCustomError(_REFUSAL, "{problem}", {"problem": problem})


def one_of(choices: Sequence[object]) -> str:
    """A choice in words: `one of 'fp32', 'bf16'`."""
    return f"one of {', '.join(map(repr, choices))}"


def explain_validation(
    error: ValidationError, kind: type[Section], data: Mapping[str, Any]
) -> list[str]:
    """One sentence a problem. data: what was written."""
    sentences = []
    for one in error.errors(include_url=False):
        where = kind.AT + _dotted(one["loc"])
        if one["type"] == "extra_forbidden":
            sentences.append(
                f"{kind.NOUN} has no key {where!r}; {_instead(kind, data, one['loc'])}"
            )
        else:
            sentences.append(f"{kind.NOUN} {where}: {_problem(one, kind)}")
    return sentences


def nearest(where: str, keys: Sequence[str]) -> str:
    """The known key most like this one; of equally like ones, one of its section or the first."""
    section, _, key = where.rpartition(".")

    def likeness(known: str) -> tuple[float, bool]:
        home, _, name = known.rpartition(".")
        return SequenceMatcher(None, key, name).ratio(), home == section

    return max(keys, key=likeness)


def _instead(kind: type[Section], data: Mapping[str, Any], location: Location) -> str:
    """What to write in place of a key that there is not."""
    tables = [_table(_field(kind, location[:-1])) or kind]
    if len(location) == 1:  # a key that was written without its table
        tables += filter(None, map(_table, kind.model_fields.values()))
    for table in tables:
        if now := table.RENAMED.get(str(location[-1])):
            return f"it has another name now: {now}"
    return (
        f"nearest known key: {nearest(kind.AT + _dotted(location), _known(kind, data, location))}"
    )


def _problem(one: Any, kind: type[Section]) -> str:
    if one["type"] == _REFUSAL:
        return str(one["msg"])
    if one["type"] == "missing":
        return "expected a value, found none"
    return f"expected {_wanted(one['type'], kind, one['loc'])}, found {one['input']!r}"


def _wanted(problem: str, kind: type[Section], location: Location) -> str:
    """What should have been there: a type if that was wrong, else a value in range."""
    if problem in _TABLES:
        return kind.TABLE
    if problem in _LISTS:
        return "a list"
    if problem == "finite_number":
        return "a finite number"
    field = _field(kind, location)
    hint = _plain(field.annotation if isinstance(field, FieldInfo) else field)
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if problem.endswith("_type") or not isinstance(field, FieldInfo):
        return _name(hint)
    return _range(field)


def _expected(field: FieldInfo) -> str:
    hint = _plain(field.annotation)
    if words := _words(field):
        return words
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    is_number = hint in (int, float)
    return f"{_name(hint)}, {_range(field)}" if is_number else _name(hint)


def _words(field: FieldInfo) -> str:
    """What an annotation that has a text `expected` says of itself; "" if there is none."""
    hint = field.annotation  # `Annotated[...] | None` keeps what is annotated inside
    union = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    metadata = (*field.metadata, *chain(*(get_args(one)[1:] for one in union)))
    found = (getattr(one, "expected", "") for one in metadata)
    return next((words for words in found if isinstance(words, str) and words), "")


def _range(field: FieldInfo) -> str:
    bounds = {
        name: getattr(one, name) for one in field.metadata for name in _BOUNDS if hasattr(one, name)
    }
    match bounds:
        case {"gt": least, "lt": most}:
            return f"a number between {_shown(least)} and {_shown(most)}"
        case {"ge": least, "le": most}:
            return f"a number from {_shown(least)} to {_shown(most)}"
    return " and ".join(_BOUNDS[name](bound) for name, bound in bounds.items()) or "a finite number"


def _shown(bound: float) -> str:
    """Whole numbers digit by digit, long ones in groups."""
    if isinstance(bound, int):
        return str(bound) if bound < _LONG else f"{bound:,}"
    return f"{bound:g}"


_LONG = 10_000
_BOUNDS: Mapping[str, Callable[[float], str]] = {
    "ge": lambda bound: f"at least {_shown(bound)}" if bound else "a number that is not negative",
    "gt": lambda bound: f"a number over {_shown(bound)}",
    "le": lambda bound: f"at most {_shown(bound)}",
    "lt": lambda bound: f"under {_shown(bound)}",
}


def _field(kind: type[Section], location: Location) -> "FieldInfo | Any":
    """The field that an error is about, or the type of an entry in it."""
    found: Any = kind
    for step in location:
        table = _table(found.annotation if isinstance(found, FieldInfo) else found)
        if table is not None:
            found = table.model_fields.get(str(step)) or table.inner(str(step))
        else:
            hint = _plain(found.annotation if isinstance(found, FieldInfo) else found)
            found = get_args(hint)[0 if isinstance(step, int) else -1]
    return found


def _known(kind: type[Section], data: Mapping[str, Any], location: Location) -> list[str]:
    """All keys; beside them those of the entry that the error is in: its name is nobody's default.

    Entries are tables under names that people chose, or in a list.
    """
    for length in range(len(location) - 1, 0, -1):
        table = _table(_field(kind, location[:length]))
        if table is not None:
            at = f"{kind.AT}{_dotted(location[:length])}."
            return [*kind.keys(data), *_keys(table, {}, at)]
    return kind.keys(data)


def _keys(kind: type[Section], data: Mapping[str, Any], at: str) -> Iterator[str]:
    for name, info in kind.model_fields.items():
        yield f"{at}{name}"
        if inner := _table(info.annotation):
            yield from _keys(inner, data, f"{at}{name}.")


def _table(hint: Any) -> type[Section] | None:
    hint = hint.annotation if isinstance(hint, FieldInfo) else _plain(hint)
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def _entry(hint: Any) -> type[Section] | None:
    """The table that a list holds any number of."""
    return _table(get_args(hint)[0]) if get_origin(hint) is tuple else None


def _plain(hint: Any) -> Any:
    """`X | None` as X, and without what is annotated."""
    if get_origin(hint) in (Union, UnionType):
        return _plain(next(one for one in get_args(hint) if one is not NoneType))
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _name(hint: Any) -> str:
    plain = _plain(hint)
    kinds = {tuple: "list", Mapping: "table"}
    return kinds.get(get_origin(plain)) or str(getattr(plain, "__name__", hint))


def _dotted(location: Location) -> str:
    """`a.b[0].c`."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(parts).removeprefix(".")
