"""Checks layers.yaml: the names of layers, and the owners of their buckets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tidegate.language.documents import NAME, LayerSpec
from tidegate.language.program import Layer
from tidegate.language.shape import Note, Report, check_shape
from tidegate.language.shape_words import shown
from tidegate.language.source import UNREAD, Location
from tidegate.language.spare_conditions import repeated


def check_layers(data: Any, report: Report, note: Note) -> dict[str, Layer]:
    if not isinstance(data, dict):
        if data is not None:
            hint = "write a mapping of layers by name: {home: {key: member_id, …}}"
            report((), f"the file is {shown(data)}", hint)
        return {}
    layers: dict[str, Layer] = {}
    owner: dict[str, str] = {}
    for name, value in data.items():
        spec = None if value is None or value is UNREAD else check_shape(LayerSpec, value, report, (name,))
        if value is None:
            report((name,), f"layer {name!r} has no value", "give it a key and experiments")
        if re.fullmatch(NAME[1:-1], str(name)) is None:
            hint = "write letters, digits, '.', '_' and '-', a letter or digit first"
            report((name,), f"{shown(name)} is not a name for a layer", hint)
        if spec is None:
            continue
        key = (spec.key,) if isinstance(spec.key, str) else tuple(spec.key)
        experiments = {str(each): _pairs(ranges) for each, ranges in spec.experiments.items()}
        layer = layers[str(name)] = Layer(key, _pairs(spec.holdout or []), experiments)
        _check_ranges(str(name), layer, {str(each): each for each in spec.experiments}, report)
        for index in repeated(key):
            note((name, "key", index), f"the key names {key[index]!r} twice", "keep one")
        for experiment in experiments:
            if experiment in owner:
                hint = f"it is in layer {owner[experiment]!r}: an experiment belongs to one layer"
                report((name, "experiments", experiment), f"experiment {experiment!r} is in two layers", hint)
            owner.setdefault(experiment, str(name))
    return layers


def _pairs(ranges: list[Any]) -> tuple[tuple[int, int], ...]:
    pairs = ranges if ranges and isinstance(ranges[0], list) else [ranges] if ranges else []
    return tuple(sorted((first, last) for first, last in pairs))


def _check_ranges(name: str, layer: Layer, written: Mapping[str, str | int], report: Report) -> None:
    """Report ranges that are inverted or overlap; `written` has the experiments' ids as they are written in the file."""
    owned: list[tuple[str, Location, tuple[int, int]]] = [("the holdout", ("holdout",), pair) for pair in layer.holdout]
    owned += [
        (f"experiment {experiment!r}", ("experiments", written[experiment]), pair)
        for experiment, pairs in layer.experiments.items()
        for pair in pairs
    ]
    reach: tuple[str, int] | None = None
    for who, place, (first, last) in sorted(owned, key=lambda each: each[2]):
        at: Location = (name, *place)
        if first > last:
            report(at, f"the bucket range [{first}, {last}] of {who} is inverted", "write the smaller bucket first")
            continue
        if reach is not None and first <= reach[1]:
            shared = f"[{first}, {min(last, reach[1])}]"
            hint = "move one: experiments of a layer exclude each other and the holdout"
            report(at, f"{who} and {reach[0]} of layer {name!r} both own the buckets {shared}", hint)
        if reach is None or last > reach[1]:
            reach = (who, last)
