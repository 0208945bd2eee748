"""The JSON of the records of a bundle: canonical bytes out, and values of the expected type in.

A `Kind` writes values of a type as JSON and reads them again; a `Record` is the kind of a class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar

from tidegate.errors import ContextError

T = TypeVar("T")


class UnfitError(ValueError):
    """A value that the compiler would not write."""


UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError, ContextError)
"""Errors of decoding a line whose checksum is right, but which the compiler did not write."""


def encode(value: Any) -> bytes:
    """Return one canonical line, without its newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def json_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if the line is anything else."""
    try:
        value = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def as_it_is(value: Any) -> Any:
    return value


class Kind(NamedTuple):
    """`write` returns the JSON of a value, and `read` takes it back; it raises `UnfitError` for JSON of another type."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = as_it_is


class Record(Generic[T]):
    """The kind of a named tuple or dataclass: a JSON object that lacks the members that have their default.

    Args:
        made: the class.
        renamed: the field of each member that has another name than its field.
        always: members that are written although they have their default.
        inlined: a field whose record has its members beside those of this one, and that record.
        kinds: the kind of each member. A field without one is given to `read` by its caller.
    """

    def __init__(
        self,
        made: type[T],
        renamed: Mapping[str, str] | None = None,
        always: tuple[str, ...] = (),
        inlined: tuple[str, Record[Any]] | None = None,
        **kinds: AnyKind,
    ) -> None:
        self._made, self._inlined = made, inlined
        defaults = _defaults(made)
        self._given = frozenset(_field_names(made))
        self._members = []
        for member, kind in kinds.items():
            field = (renamed or {}).get(member, member)
            is_required = field not in defaults or member in always
            self._members.append((member, field, kind.read, kind.write, is_required, defaults.get(field)))

    def read(self, value: Any, **given: Any) -> T:
        """Return the record of a JSON object; `given` are fields that the object does not have; those that this record lacks are
        of the inlined one.

        Raises:
            UnfitError: a member is missing or of another kind; the message has its path.
        """
        if not isinstance(value, dict):
            raise UnfitError("not an object")
        if self._inlined is not None:
            inner, inlined = self._inlined
            own = {field: given.pop(field) for field in given.keys() & self._given}
            given = {**own, inner: inlined.read(value, **given)}
        for member, field, read, _, is_required, _ in self._members:
            if member in value:
                try:
                    given[field] = read(value[member])
                except UnfitError as error:
                    raise UnfitError(f"{member}: {error}") from None
            elif is_required:
                raise UnfitError(f"{member} is missing")
        return self._made(**given)

    def write(self, record: T) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if self._inlined is not None:
            inner, inlined = self._inlined
            value = inlined.write(getattr(record, inner))
        for member, field, _, write, is_required, default in self._members:
            has = getattr(record, field)
            if is_required or has != default:
                value[member] = write(has)
        return value


AnyKind = Kind | Record[Any]


def _field_names(made: Any) -> Iterable[str]:
    return (each.name for each in fields(made)) if is_dataclass(made) else made._fields


def _defaults(made: Any) -> Mapping[str, Any]:
    if is_dataclass(made):
        return {each.name: each.default for each in fields(made) if each.default is not MISSING}
    defaults: Mapping[str, Any] = made._field_defaults
    return defaults


def instance(kind: type | UnionType, words: str) -> Kind:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise UnfitError(f"not {words}")
        return value

    return Kind(read)


def one_of(*values: str) -> Kind:
    def read(value: Any) -> Any:
        if value not in values:
            raise UnfitError(f"none of {', '.join(values)}")
        return value

    return Kind(read)


def or_none(kind: Kind) -> Kind:
    read = kind.read
    return Kind(lambda value: None if value is None else read(value))


def array(kind: AnyKind) -> Kind:
    """A list, read as a tuple."""
    each = kind.read

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise UnfitError("not a list")
        return tuple(map(each, value))

    write = kind.write
    return Kind(read, as_it_is if write is as_it_is else lambda items: [write(item) for item in items])


def pair(first: Kind, second: Kind) -> Kind:
    """A list of two, each written as it is."""

    def read(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list) or len(value) != 2:
            raise UnfitError("not a list of two")
        return first.read(value[0]), second.read(value[1])

    return Kind(read)


def table(kind: AnyKind) -> Kind:
    """An object whose members all are of a kind."""
    each, write = kind.read, kind.write
    return Kind(
        lambda value: _members(value, lambda _, item: each(item)),
        lambda items: {key: write(item) for key, item in items.items()},
    )


def named(record: Record[Any]) -> Kind:
    """An object whose members are records, each under its `name`."""
    return Kind(
        lambda value: _members(value, lambda name, item: record.read(item, name=name)),
        lambda records: {name: record.write(each) for name, each in records.items()},
    )


def _members(value: Any, read: Callable[[str, Any], Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnfitError("not an object")
    found = {}
    for key, item in value.items():
        try:
            found[key] = read(key, item)
        except UnfitError as error:
            raise UnfitError(f"{key}: {error}") from None
    return found


def _integer(value: Any) -> int:
    # A boolean is none, although Python counts with it.
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnfitError("not an integer")
    return value


def _positive(value: Any) -> int:
    if _integer(value) < 1:
        raise UnfitError("below 1")
    return _integer(value)


ANYTHING = Kind(as_it_is)
TEXT = instance(str, "text")
BOOLEAN = instance(bool, "true or false")
INTEGER = Kind(_integer)
POSITIVE = Kind(_positive)
NUMBER = Kind(lambda value: value if isinstance(value, float) else _integer(value))
SCALAR = instance(str | int | float, "a scalar")
TEXTS = array(TEXT)
SCALARS = table(SCALAR)
