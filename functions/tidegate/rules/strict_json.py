"""What JSON from outside is read with: each name of an object once, since readers differ on which of two counts, and no
number that is not finite. Give `unique_names` and `refuse_constant` to `json` as `object_pairs_hook` and `parse_constant`."""

from __future__ import annotations

from typing import Any, NoReturn


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
    """An object of its members, in order.

    Raises:
        DuplicateNameError: a name is duplicated.
    """
    found = dict(members)
    if len(found) != len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                raise DuplicateNameError(name)
            seen.add(name)
    return found


def refuse_constant(name: str) -> NoReturn:
    """Take no constant.

    Raises:
        NotFiniteError: always.
    """
    raise NotFiniteError(name)
