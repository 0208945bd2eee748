"""Checks the shape of a file against its pydantic model and reports every mistake in an author's words.

What is wrong is reported and left out, and the rest is still checked, so that one run shows all mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tidegate.language.shape_words import expected, keys_at, shape_words
from tidegate.language.source import UNREAD, Location, Source

Note = Callable[[Location, str, str], None]
"""Callback with the place of a setting, the reason why it has no effect, and the correction."""


class Report:
    """Takes the mistakes of one file: `report(location, what is wrong, what would be right)`.

    It knows which places could not be read or had the wrong shape, so that a mistake is reported once and not again as the
    hole that it leaves.

    Attributes:
        count: how many mistakes it took.
    """

    def __init__(self, source: Source, add: Callable[[Location, str, str], None]) -> None:
        self._add = add
        self._source = source
        self.count = 0
        self._broken: set[Location] = set()
        # The places around those: asked for at every rule, so that searching would take quadratic time.
        self._holed: set[Location] = set()
        for place in source.unread:
            self.leave_out(place)

    def __call__(self, at: Location, message: str, hint: str) -> None:
        self.count += 1
        self._add(at, message, hint)

    def name(self, at: Location) -> str:
        """Name a place: its key in quotes, or which item of which list it is."""
        if not at:
            return "the file"
        parent = _value_at(self._source.data, at[:-1])
        if isinstance(parent, list) and isinstance(at[-1], int):
            return f"item {at[-1] + 1} of {self.name(at[:-1])}"
        return repr(str(at[-1]))

    def leave_out(self, at: Location) -> None:
        """Exclude the value at a place from further checks."""
        self._broken.add(at)
        self._holed.update(at[:size] for size in range(len(at)))

    def is_left_out(self, at: Location) -> bool:
        """Return whether the value at a place was left out."""
        return at in self._broken

    def is_whole(self, at: Location) -> bool:
        """Return whether nothing directly in the value at a place was left out."""
        return at not in self._holed


ModelType = TypeVar("ModelType", bound=BaseModel)


def check_shape(
    model: type[ModelType], data: Any, report: Report, at: Location = (), stand_ins: Mapping[str, Any] | None = None
) -> ModelType | None:
    """Return the model of `data`, plain values at a place of a file, without what is wrong in it and is reported; None where
    what is left is not valid.

    `stand_ins` are values for required keys, used where a key is missing or wrong so that the rest is still checked.
    """
    data = _without_holes(model, data, at, report)
    for _ in range(8):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            places = _by_place(error, data)
        _report_places(model, data, places, at, report)
        removed: list[Location] = []
        # Later items of a list first, so that removing one does not move another.
        for place in sorted(
            places, key=lambda place: [(isinstance(step, int), str(step).zfill(9)) for step in place], reverse=True
        ):
            if any(place[: len(gone)] == gone for gone in removed):
                continue
            is_missing = places[place][0]["type"] == "missing"
            name = place[-1] if place else None
            if len(place) == 1 and stand_ins and name in stand_ins:
                data[name] = stand_ins[str(name)]
            elif is_missing and len(place) > 1:
                _remove(data, place[:-1])
                removed.append(place[:-1])
            elif is_missing or not place:
                return None
            else:
                _remove(data, place)
    return None


def _report_places(
    model: type[BaseModel], data: Any, places: Mapping[Location, list[Any]], at: Location, report: Report
) -> None:
    """Report each wrong place, but for those that are only the hole that another mistake has left."""
    misspelt: set[Location] = set()
    for place, details in places.items():
        if details[0]["type"] == "extra_forbidden":
            close = get_close_matches(str(place[-1]), keys_at(model, place[:-1]), n=1)
            misspelt.update((*place[:-1], name) for name in close)
    for place, details in places.items():
        here = (*at, *_as_written(data, place))
        match details[0]["type"]:
            case "missing":
                is_hole = place in misspelt or report.is_left_out(here)
            case "too_short":
                is_hole = not report.is_whole(here)
            case _:
                is_hole = False
        if not is_hole:
            report(here, *shape_words(model, place, _value_at(data, place), report.name(here), details))
        report.leave_out(here)


class _Items(list[Any]):
    """A list that knows which item of the file each of its items is, since those that are left out are missing."""

    def __init__(self, items: list[tuple[int, Any]]) -> None:
        super().__init__(value for _, value in items)
        self.written = [index for index, _ in items]


def _without_holes(model: type[BaseModel], data: Any, at: Location, report: Report, path: Location = ()) -> Any:
    """Return a copy of `data` without empty values, which are reported, and without unread ones, which have been."""
    if isinstance(data, dict):
        kept = {}
        for key, value in data.items():
            place = (*path, key)
            if value is None:
                hint = f"give it {expected(model, place)}, or delete the key"
                report((*at, *place), f"{report.name((*at, *place))} has no value", hint)
            if value is None or value is UNREAD:
                report.leave_out((*at, *place))
            else:
                kept[key] = _without_holes(model, value, at, report, place)
        return kept
    if isinstance(data, list):
        items = []
        for index, value in enumerate(data):
            place = (*path, index)
            if value is None:
                report((*at, *place), f"{report.name((*at, *place))} has no value", "give it a value, or delete it")
            if value is None or value is UNREAD:
                report.leave_out((*at, *place))
            else:
                items.append((index, _without_holes(model, value, at, report, place)))
        return _Items(items)
    return data


def _as_written(data: Any, place: Location) -> Location:
    """Return a place of the data as a place of the file."""
    found: Location = ()
    for step in place:
        written = data.written[step] if isinstance(data, _Items) and isinstance(step, int) else step
        found = (*found, written)
        data = _value_at(data, (step,))
    return found


def _value_at(data: Any, place: Location) -> Any:
    for step in place:
        if isinstance(data, list):
            data = data[step] if isinstance(step, int) and step < len(data) else None
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return data


def _by_place(error: ValidationError, data: Any) -> dict[Location, list[Any]]:
    places: dict[Location, list[Any]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        place: list[Any] = []
        here: Any = data
        for step in detail["loc"]:
            is_item = isinstance(here, list) and isinstance(step, int)
            if is_item or (isinstance(here, dict) and step in here):
                here = here[step]
                place.append(step)
        if detail["type"] == "missing":
            place.append(detail["loc"][-1])
        places.setdefault(tuple(place), []).append(detail)
    return places


def _remove(data: Any, place: Location) -> None:
    for step in place[:-1]:
        if isinstance(data, dict) and step not in data:
            return
        data = data[step]
    if isinstance(data, dict):
        data.pop(place[-1], None)
    elif isinstance(data, list) and isinstance(place[-1], int) and place[-1] < len(data):
        del data[place[-1]]
        if isinstance(data, _Items):
            del data.written[place[-1]]
