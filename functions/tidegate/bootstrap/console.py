"""Wires the console of a local stack."""

from __future__ import annotations

from functools import partial
from typing import Any

from tidegate.bootstrap.control import author, shadow_pairs
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.console.console import Console
from tidegate.console.sources import ConsoleSources
from tidegate.console.traffic_reads import HistoryReads
from tidegate.web.callers import Operators
from tidegate.web.console.app import create_console


def local_sources(stack: LocalStack) -> ConsoleSources:
    return ConsoleSources(
        status=stack.status,
        plane=stack.plane,
        traffic=HistoryReads(lambda: stack.gateway.traffic),
        pairs=partial(shadow_pairs, stack.settings),
        metrics=stack.metrics,
        rules=stack.rules,
        models=stack.models,
        writes=stack.settings.console_writes,
        flipped=lambda: stack.gateway.poll(),
    )


def build_console(sources: ConsoleSources, operator_token: str | None) -> Any:
    """Return the console's ASGI app; operators show their token."""
    name = f"{author()} (console)"
    return create_console(Console(sources), admit=Operators(operator_token).check, author_of=lambda _scope: name)
