"""Strict reading of JSON from outside: duplicate names, of which readers pick different ones, and numbers that are not finite
are refused. Give `unique_names` and `refuse_constant` to `json` as `object_pairs_hook` and `parse_constant`."""

from __future__ import annotations

import json
from json.scanner import make_scanner
from typing import Any, Final, NoReturn


class DuplicateNameError(ValueError):
    """A name is duplicated in one object. `name` is that, and not in the message: it may be personal data."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__("a name is duplicated in one object")


class NotFiniteError(ValueError):
    """A constant that Python reads and JSON does not have; `name` is it."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__("NaN and Infinity are not JSON: numbers are finite")


def unique_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of its members, in order. Raises `DuplicateNameError`."""
    found = dict(members)
    if len(found) != len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                raise DuplicateNameError(name)
            seen.add(name)
    return found


def refuse_constant(name: str) -> NoReturn:
    raise NotFiniteError(name)


# Made once: each costs as much as reading a small document.
_FINITE: Final = json.JSONDecoder(object_pairs_hook=unique_names, parse_constant=refuse_constant)
_ANY: Final = json.JSONDecoder(object_pairs_hook=unique_names)
# Typeshed names another class for what it reads of a decoder.
_SCAN_FINITE: Final = make_scanner(_FINITE)  # type: ignore[arg-type]
_SCAN_ANY: Final = make_scanner(_ANY)  # type: ignore[arg-type]


class UnreadableError(ValueError):
    """JSON that is not read: what is wrong with it, and where; never a value of it."""


def parse(data: str | bytes, *, finite: bool = True) -> Any:
    """Parse JSON from outside, in UTF-8; `finite` refuses NaN and Infinity, which JSON does not have and Triton reads.

    Raises:
        UnreadableError: it is not JSON, a name is duplicated in one object, or a number is not finite.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        if text.startswith("{"):
            # What `decode` does around its scanner costs more than reading a small object.
            try:
                value, end = (_SCAN_FINITE if finite else _SCAN_ANY)(text, 0)
            except StopIteration:
                end = -1
            if end == len(text):
                return value
        return (_FINITE if finite else _ANY).decode(text)
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8; send BYTES that are no UTF-8 text as binary data"
    except RecursionError:
        why = "it is nested too deeply"
    except (DuplicateNameError, NotFiniteError) as error:
        why = str(error)
    except ValueError:
        why = "a number in it is too long"
    raise UnreadableError(why) from None


def member(value: Any, name: str, *kinds: type) -> Any:
    """Return a member of an object. Raises `ValueError`: it is missing, or of none of these types."""
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"{name} is missing")
    if type(value[name]) not in kinds:
        raise ValueError(f"{name} is a {type(value[name]).__name__}")
    return value[name]
