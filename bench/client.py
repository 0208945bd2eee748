"""The SDK: what it adds to a decision of the engine, a decision that is kept, and its start with a bundle on disk."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.client import Client
from tidegate.client.resolver import Resolution, Resolver
from tidegate.rules import load_bundle

from bench.decide import ROUNDS, decide_all, timed
from bench.rule_sets import Context, bundle, contexts, rule_set

SIZES = (10, 1_000, 10_000)
DOWN = "http://127.0.0.1:9"
"""No server listens there: the kept bundle serves."""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    lines = [
        "## Deciding in the caller's process",
        "",
        "`Client.decide` beside the engine's own method, and beside a resolver's decision that is kept for the same context. The last column is "
        "from a new client to its engine: the bundle is read from disk, checked by its digest and indexed. Medians of "
        f"{ROUNDS} interleaved rounds, one core.",
        "",
        "| rules | engine, µs | client by the bundle, µs | client by a kept decision, µs | bundle, kB | start from disk, ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    batch = contexts(500)
    for size in SIZES:
        data = bundle(rule_set(size))
        with tempfile.TemporaryDirectory() as folder, _client(data, Path(folder)) as (client, start):
            asking = _with_kept(data, batch)
            peers: dict[str, Callable[[Context], Any]] = {
                "engine": partial(client._rules.usable().decide, "bench"),
                "client": partial(client.decide, "bench"),
                "kept": partial(asking.decide, "bench"),
            }
            figures = _interleaved(peers, batch)
            start_ms = statistics.median(timed(start) for _ in range(ROUNDS)) * 1e3
        lines.append(
            f"| {size:,} | {figures['engine']:.2f} | {figures['client']:.2f} | {figures['kept']:.2f} "
            f"| {len(data) / 1e3:,.0f} | {start_ms:.2f} |"
        )
    return "\n".join(lines)


@contextmanager
def _client(data: bytes, folder: Path) -> Iterator[tuple[Client, Callable[[], Client]]]:
    """Give a client with a bundle on disk, and what starts another one there."""

    def started() -> Client:
        client = Client(DOWN, cache_dir=folder)
        client._rules.load()
        return client

    file = Client(DOWN, cache_dir=folder)._rules._file
    assert file is not None
    file.write_bytes(data)
    client = started()
    client._rules.next_poll_s = float("inf")
    yield client, started


def _with_kept(data: bytes, batch: list[Context]) -> Client:
    """Return a client that has a resolver's decision for every context."""
    engine = load_bundle(data)
    client = Client(DOWN, decide="resolver")
    resolver: Resolver = client._resolver
    for context in batch:
        resolver.keep(
            "bench", context, Resolution(engine.decide("bench", context), {}), engine.depends_on("bench"), 1e9
        )
    return client


def _interleaved(peers: dict[str, Callable[[Context], Any]], batch: list[Context]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for decide in peers.values():
        decide_all(decide, batch)
    for _ in range(ROUNDS):
        for name, decide in peers.items():
            samples[name].append(timed(partial(decide_all, decide, batch)) / len(batch) * 1e6)
    return {name: statistics.median(values) for name, values in samples.items()}
