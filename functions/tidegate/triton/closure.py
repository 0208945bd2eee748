"""Closures where looking at a model takes a wait, as for a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable


async def closure(names: Iterable[str], called: Callable[[str], Awaitable[Iterable[str]]]) -> tuple[str, ...]:
    """The models and everything that they call, transitively; `called` gives what one of them calls itself, and is asked
    once for each."""
    found: dict[str, None] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name and name not in found:
            found[name] = None
            pending += await called(name)
    return tuple(found)
