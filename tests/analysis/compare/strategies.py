"""Two revisions of small rules directories: the second is the first with a few edits, or another one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.rules.oracle import Directory, Yaml, as_list
from tests.rules.strategies import POOLS, Choices, directories, rule, when_of

OBJECTIVE = "title_ranking"
Revisions = tuple[Directory, Directory]


@st.composite
def revisions(draw: st.DrawFn, attributes: int = 3) -> Revisions:
    """Two revisions of one objective with at most so many attributes beside its keys."""
    choose = Choices(draw)
    old = small(draw(directories()), attributes)
    if choose.once_in(6):
        return old, small(draw(directories()), attributes)
    new = copy.deepcopy(old)
    for _ in range(choose.whole(1, 3)):
        new = edited(choose, new)
    return old, new


def small(directory: Directory, attributes: int) -> Directory:
    """The directory with one objective and few attributes and rules."""
    document = copy.deepcopy(directory.objectives[OBJECTIVE])
    kept = list(document["context"])[: 2 + attributes]
    for name in set(document["context"]) - set(kept):
        del document["context"][name]
    document["rules"] = document["rules"][-5:]
    for each in document["rules"]:
        each["when"] = restricted(each.get("when", {}), kept)
    keys = [name for name in as_list(document.get("sticky_key", [])) if name in kept]
    document.pop("sticky_key", None)
    if keys:
        document["sticky_key"] = keys
    return Directory({OBJECTIVE: document}, directory.fleet, directory.layers)


def restricted(when: Yaml, kept: list[str]) -> Yaml:
    """The conditions on the attributes that are kept."""
    left = {name: wanted for name, wanted in when.items() if name in kept}
    alternatives = [each for item in when.get("any_of", []) if (each := restricted(item, kept))]
    return left | ({"any_of": alternatives} if alternatives else {})


def edited(choose: Choices, directory: Directory) -> Directory:
    """The directory with one edit; some edits change nothing."""
    document = directory.objectives[OBJECTIVE]
    if choose.once_in(2):
        edit_rule(choose, directory, document)
    else:
        edit_around(choose, directory, document)
    unique = {each["id"]: each for each in document["rules"]}
    document["rules"] = list(unique.values())
    return directory


def edit_rule(choose: Choices, directory: Directory, document: Yaml) -> None:
    rules: list[Yaml] = document["rules"]
    place = choose.whole(0, len(rules) - 1)
    match choose.whole(0, 5):
        case 0:
            other = choose.whole(0, len(rules) - 1)
            rules[place], rules[other] = rules[other], rules[place]
        case 1 if len(rules) > 1:
            del rules[place]
        case 2:
            rules[place]["id"] = f"{rules[place]['id']}-renamed"
        case 3:
            rules[place]["when"] = when_of(choose, document["context"], 1)
        case 4:
            targets = list(directory.fleet["models"])
            rules.insert(place, rule(choose, "inserted", document, targets, directory.layers, []))
        case _:
            rules[place]["parameters"] = {"top_k": choose.whole(1, 3)}


def edit_around(choose: Choices, directory: Directory, document: Yaml) -> None:
    match choose.whole(0, 4):
        case 0:
            change_attribute(choose, document)
        case 1:
            for action in weighted(document["rules"]):
                for name in action:
                    action[name] = choose.whole(1, 9)
        case 2:
            models = list(directory.fleet["models"])
            for alias in directory.fleet["aliases"]:
                directory.fleet["aliases"][alias] = choose.pick(models)
        case 3:
            change_layers(choose, directory)
        case _:
            keys = [name for name in ("member_id", "account") if name in document["context"]]
            document["sticky_key"] = choose.some(keys, 1, 2)


def weighted(rules: list[Yaml]) -> Iterator[dict[Any, int]]:
    """The weights of every split."""
    for each in rules:
        if "split" in each:
            yield each["split"]


def change_attribute(choose: Choices, document: Yaml) -> None:
    """Change what absence means, or widen a closed domain."""
    name = choose.pick(list(document["context"]))
    spec = document["context"][name]
    pool = spec.get("values", POOLS[spec["type"]])
    kind = choose.pick(["required", "default", "neither", "domain"])
    if kind != "domain":
        spec.pop("required", None)
        spec.pop("default", None)
    if kind == "required":
        spec["required"] = True
    elif kind == "default":
        spec["default"] = choose.values("set", pool, 0, 2) if spec["type"] == "set" else choose.pick(pool)
    elif kind == "domain" and "values" in spec:
        spec["values"] = choose.values(spec["type"], [*spec["values"], *POOLS[spec["type"]]], len(spec["values"]), 8)
        spec.pop("values") if choose.once_in(3) else spec["values"].extend(
            value for value in pool if value not in spec["values"]
        )


def change_layers(choose: Choices, directory: Directory) -> None:
    """Swap two experiments' buckets, or change a layer's key."""
    for layer in directory.layers.values():
        names = list(layer["experiments"])
        if len(names) > 1 and choose.once_in(2):
            one, other = choose.some(names, 2, 2)
            experiments = layer["experiments"]
            experiments[one], experiments[other] = experiments[other], experiments[one]
        elif choose.once_in(2):
            layer["key"] = choose.pick(["member_id", ["account", "member_id"]])
