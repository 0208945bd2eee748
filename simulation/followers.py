"""What the polls of many gateways cost, and how long they decide by rules that are not live any more.

The followers are the real ones, on a simulated clock. A simulated gateway does for each request what `HttpFunction` and `web` do: it
polls if a poll is due, waits if the rules are late, and decides.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from tidegate.aws.cached_pointer import PointerCache
from tidegate.gateway.follower import EngineFollower, FollowerConfig
from tidegate.ports import BundleSource, LiveEntry, Pointer
from tidegate.rules import compile_directory
from tidegate.testing import MemoryBundleStore

from simulation.writing import mermaid_bars
from tests.support import virtual_time

ENVIRONMENTS = 60
SECONDS = 300.0
FLIP_S = 60.0
"""Time between two publishes."""

STORE_S, CACHE_S, REQUEST_S = 0.02, 0.002, 0.03
"""How long S3, a cache and the model take."""

SHOWN = 50_000
MONTH_S = 730 * 3600
S3_GET_PER_MILLION = 0.40
S3_PREFIX_PER_S = 5_500
RULES = Path("tests/web/rules")


@dataclass(frozen=True, slots=True)
class Pattern:
    """When requests come to one environment: `per_s` on average in bursts of `on_s`, with pauses of `off_s` between them; it is
    replaced by a new one after `lives_s`."""

    name: str
    per_s: float
    on_s: float = SECONDS
    off_s: float = 0.0
    lives_s: float = 2 * SECONDS

    def arrivals(self, draw: random.Random) -> Iterator[float]:
        """Yield the times of requests, from now on."""
        now = draw.uniform(0, self.on_s + self.off_s) - self.on_s
        while now < SECONDS:
            ends = now + self.on_s
            while (now := now + draw.expovariate(self.per_s)) < ends:
                if 0 < now < SECONDS:
                    yield now
            now = ends + self.off_s


PATTERNS = (
    Pattern("busy: 5 requests/s", 5.0),
    Pattern("sparse: one request in 4 s", 0.25),
    Pattern("bursts: 20 s of 5/s, then 100 s of none", 5.0, 20.0, 100.0),
    Pattern("cold starts: each lives for 30 s, 5/s", 5.0, lives_s=30.0),
)


@dataclass(frozen=True, slots=True)
class Way:
    """How gateways learn what is live. `config` is None for a follower that reads the pointer for each request."""

    name: str
    config: FollowerConfig
    kept_s: float = 0.0
    agents: int = 1


WAYS = (
    Way("S3, every 2 s", FollowerConfig()),
    Way("S3, every 10 s", FollowerConfig(poll_interval_s=10.0)),
    Way("an agent's cache, every 2 s", FollowerConfig(cached_s=2.0), kept_s=1.0, agents=4),
)


@dataclass(slots=True)
class Counted:
    """The store as gateways see it: it counts, and takes its time."""

    store: MemoryBundleStore
    pointers: int = 0
    bundles: int = 0

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        self.pointers += 1
        await asyncio.sleep(STORE_S)
        return await self.store.pointer(known)

    async def bundle(self, revision: str) -> bytes:
        self.bundles += 1
        await asyncio.sleep(STORE_S)
        return await self.store.bundle(revision)


class Cached:
    """A `BundleSource` behind caches like those of agents (`aws/cached_pointer.py`), without sockets."""

    def __init__(self, source: Counted, kept_s: float, agents: int, draw: random.Random) -> None:
        clock = asyncio.get_running_loop().time
        self._source = source
        self._agents = [PointerCache(source, kept_s, clock) for _ in range(agents)]
        self._draw = draw
        self.asked = 0

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        self.asked += 1
        await asyncio.sleep(CACHE_S)
        pointer, age_s = await self._draw.choice(self._agents).read()
        # HTTP has whole seconds.
        age_s = float(math.ceil(age_s))
        if pointer is None or (known is not None and pointer.live.sequence < known.live.sequence):
            pointer = known
        return None if pointer is None else replace(pointer, age_s=age_s)

    async def bundle(self, revision: str) -> bytes:
        return await self._source.bundle(revision)


@dataclass(slots=True)
class Counts:
    """The result of one way under one pattern."""

    requests: int = 0
    pointers: int = 0
    bundles: int = 0
    cache: int = 0
    stale_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    @property
    def longest_s(self) -> float:
        """The longest time after a flip at which a request was still decided by the rules before."""
        return max(self.stale_s, default=0.0)


@functools.cache
def _bundles() -> tuple[bytes, ...]:
    """Two bundles of different revisions."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "rules"
        shutil.copytree(RULES, copy)
        file = copy / "objectives" / "adding.yaml"
        file.write_text(file.read_text().replace("timeout_ms: 5000", "timeout_ms: 4000"))
        return compile_directory(RULES), compile_directory(copy)


def simulate(way: Way, pattern: Pattern, environments: int = ENVIRONMENTS, seed: int = 1) -> Counts:
    """Run environments for `SECONDS`, with a publish every `FLIP_S`."""
    return virtual_time.run(_simulate(way, pattern, environments, seed), SECONDS * 2, 1 << 62)


async def _simulate(way: Way, pattern: Pattern, environments: int, seed: int) -> Counts:
    loop = asyncio.get_running_loop()
    draw = random.Random(seed)
    store = MemoryBundleStore()
    counted = Counted(store)
    counts = Counts()
    cached = Cached(counted, way.kept_s, way.agents, draw) if way.kept_s else None
    source: BundleSource = counted if cached is None else cached
    flipped_at = 0.0

    async def flips() -> None:
        nonlocal flipped_at
        number, pointer = 0, None
        while True:
            number += 1
            revision = await store.put_bundle(_bundles()[number % 2])
            pointer = await store.flip(LiveEntry(revision, number, "simulation", loop.time()), pointer)
            flipped_at = loop.time()
            await asyncio.sleep(FLIP_S)

    def fresh(number: int) -> EngineFollower:
        return EngineFollower(source, f"gateway-{number}", config=way.config, clock=loop.time, draw=draw.random)

    async def environment(number: int, arrivals: Iterator[float]) -> None:
        follower, born_at = fresh(number), draw.uniform(-pattern.lives_s, 0)
        for at in arrivals:
            await asyncio.sleep(max(0.0, at - loop.time()))
            if loop.time() > born_at + pattern.lives_s:
                follower, born_at = fresh(number), loop.time()
            if follower.revision is None:
                await follower.poll()
            follower.poll_if_due()
            began = loop.time()
            if (waiting := follower.catching_up()) is not None:
                await waiting
            counts.waits_s.append(loop.time() - began)
            counts.requests += 1
            pointer = await store.pointer()
            if pointer is not None and follower.revision != pointer.live.revision:
                counts.stale_s.append(loop.time() - flipped_at)
            await asyncio.sleep(REQUEST_S)

    flipping = asyncio.create_task(flips())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(
        *(environment(number, pattern.arrivals(random.Random(seed * 1000 + number))) for number in range(environments))
    )
    flipping.cancel()
    counts.pointers, counts.bundles = counted.pointers, counted.bundles
    counts.cache = 0 if cached is None else cached.asked
    return counts


def run() -> str:
    """Return the section of docs/scale.md."""
    rows, bars = [], []
    for pattern in PATTERNS:
        for way in WAYS:
            counts = simulate(way, pattern)
            many = SHOWN / ENVIRONMENTS / SECONDS
            # However many ask the agents, these read as often.
            pointers = counts.pointers / SECONDS if way.kept_s else counts.pointers * many
            reads = pointers + counts.bundles * many
            waits = sorted(counts.waits_s)
            if pattern is PATTERNS[0]:
                bars.append((way.name, reads))
            rows.append(
                f"| {pattern.name} | {way.name} | {pointers:,.0f} | {counts.bundles * many:,.0f} | {counts.cache * many:,.0f} | "
                f"{reads * MONTH_S / 1e6 * S3_GET_PER_MILLION:,.0f} | {median(waits) * 1000:.0f}, "
                f"{waits[-1 - len(waits) // 100] * 1000:.0f} | {counts.longest_s:.1f} |"
            )
    head = (
        f"{ENVIRONMENTS} environments for {SECONDS:.0f} s, a publish every {FLIP_S:.0f} s; S3 answers in {STORE_S * 1000:.0f} ms. "
        f"Figures are scaled to {SHOWN:,} environments, except the reads of the {WAYS[-1].agents} agents.\n\n"
        "| requests of an environment | the pointer is read from | pointer from S3, reads/s | bundles from S3, reads/s | cache, "
        "reads/s | S3, $ a month | a request waits, ms: p50, p99 | latest decision by old rules, s after a flip |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(rows) + "\n\n" + mermaid_bars(f"S3 reads/s of {SHOWN:,} busy environments", "reads/s", bars)
