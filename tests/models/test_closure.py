"""Walks over who calls whom: everything once, each after what it calls, and cycles named from their first member."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from tidegate.models.closure import closure, cycle_in, read_closure, way_back

CALLS = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": [], "x": ["y"], "y": ["z", "x"], "z": [], "self": ["self"]}


def test_each_comes_once_and_after_what_it_calls() -> None:
    assert closure(["a"], CALLS.__getitem__) == ("d", "b", "c", "a")
    assert closure(["d", "a"], CALLS.__getitem__) == ("d", "b", "c", "a")
    assert set(closure(["x"], CALLS.__getitem__)) == {"x", "y", "z"}


def test_nobody_is_asked_twice() -> None:
    asked: list[str] = []

    def called(name: str) -> list[str]:
        asked.append(name)
        return CALLS[name]

    closure(["a", "b", "y"], called)
    assert sorted(asked) == ["a", "b", "c", "d", "x", "y", "z"]


def test_a_chain_may_be_longer_than_the_stack_of_python() -> None:
    assert closure([0], lambda number: [number + 1] if number < 5_000 else [])[-1] == 0


@pytest.mark.parametrize(
    ("start", "cycle"),
    [("a", ()), ("x", ("x", "y", "x")), ("y", ("y", "x", "y")), ("z", ()), ("self", ("self", "self"))],
)
def test_a_cycle_is_the_way_back(start: str, cycle: tuple[str, ...]) -> None:
    assert cycle_in([start], CALLS.__getitem__) == cycle


def test_a_way_back_begins_with_the_call_that_is_named() -> None:
    assert way_back("y", "x", CALLS.__getitem__) == ("y", "x", "y")
    assert way_back("y", "z", CALLS.__getitem__) == ()


def test_levels_are_asked_together_and_each_node_once() -> None:
    levels: list[set[str]] = []

    async def called(names: Collection[str]) -> list[str]:
        levels.append(set(names))
        return [each for name in names for each in CALLS[name]]

    assert set(asyncio.run(read_closure(["a", "x"], called))) == {"a", "b", "c", "d", "x", "y", "z"}
    assert levels == [{"a", "x"}, {"b", "c", "y"}, {"d", "z"}]
