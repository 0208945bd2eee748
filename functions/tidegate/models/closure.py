"""Walks over graphs of calls: ensembles and their steps, models and what their code calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def closure(starts: Iterable[Node], called: Callable[[Node], Iterable[Node]]) -> tuple[Node, ...]:
    """Return the starts and everything that they call, directly and through others, each after what it calls.

    `called` is called once for each, depth first. A node that calls itself comes after the rest of its cycle.
    """
    finished: dict[Node, None] = {}
    entered: set[Node] = set()
    pending = [(start, False) for start in reversed(tuple(starts))]
    while pending:
        node, is_left = pending.pop()
        if is_left:
            finished[node] = None
        elif node not in entered:
            entered.add(node)
            pending.append((node, True))
            pending += [(each, False) for each in reversed(tuple(called(node)))]
    return tuple(finished)


def way_back(node: Node, through: Node, called: Callable[[Node], Iterable[Node]]) -> tuple[Node, ...]:
    """Return a path from a node back to itself that begins with `through`; empty if there is none."""
    ways: list[tuple[Node, ...]] = [(node, through)]
    seen = {through}
    while ways:
        way = ways.pop()
        if way[-1] == node:
            return way
        for each in called(way[-1]):
            if each not in seen:
                seen.add(each)
                ways.append((*way, each))
    return ()


def cycle_in(nodes: Iterable[Node], called: Callable[[Node], Iterable[Node]]) -> tuple[Node, ...]:
    """Return the path of the first node that calls itself, directly or through others, back to it; empty if none does."""
    ways = (way_back(node, each, called) for node in nodes for each in called(node))
    return next(filter(None, ways), ())


async def read_closure(
    starts: Iterable[Node], called: Callable[[Collection[Node]], Awaitable[Iterable[Node]]]
) -> tuple[Node, ...]:
    """Return the starts and everything that they call. `called` gets whole levels of the graph, each node once."""
    found: dict[Node, None] = {}
    level = dict.fromkeys(starts)
    while level:
        found |= level
        level = dict.fromkeys(each for each in await called(tuple(level)) if each not in found)
    return tuple(found)
