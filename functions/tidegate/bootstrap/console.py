"""Wires the console of a local stack."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.bootstrap.control import author, shadow_tallies_of
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.console.console import Console
from tidegate.console.sources import ConsoleSources
from tidegate.console.traffic_reads import HistoryReads
from tidegate.settings import Settings
from tidegate.web.callers import Operators
from tidegate.web.console.app import create_console

PAIRS_S = 24 * 3600.0


def local_sources(stack: LocalStack) -> ConsoleSources:
    return ConsoleSources(
        status=stack.status,
        plane=stack.plane,
        traffic=HistoryReads(lambda: stack.gateway.traffic),
        pairs=lambda: _pairs(stack.settings),
        metrics=stack.metrics,
        rules=stack.rules,
        models=stack.models,
        writes=stack.settings.console_writes,
    )


async def _pairs(settings: Settings) -> Sequence[Mapping[str, Any]]:
    """Return the pairs of shadows of the last day. Imported here, since only a stack with shadows needs their sketches."""
    from tidegate.shadows.report import pair_json

    found, _ = await shadow_tallies_of(settings).read(time.time() - PAIRS_S)
    return [pair_json(tally) for tally in found.pairs.values()]


def build_console(sources: ConsoleSources, operator_token: str | None) -> Any:
    """Return the console's ASGI app; operators show their token."""
    name = f"{author()} (console)"
    return create_console(Console(sources), admit=Operators(operator_token).check, author_of=lambda _scope: name)
