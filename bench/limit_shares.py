"""How far limits that environments of a function share are from the limit: requests admitted per request allowed.

    python -m bench.limit_shares

Simulates a function in virtual time, with the quotas of the gateway. A request goes to an idle environment, or to a new one;
a refused one takes `REFUSAL_S`. Which idle environment Lambda picks is not documented, so there are two rules: any, and the one
that was busy last. Prints the table of docs/callers.md.
"""

from __future__ import annotations

import heapq
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidegate.errors import LimitedError
from tidegate.gateway.quotas import Lease, Quotas
from tidegate.rules import Engine, compile_directory, load_bundle

NS = 1_000_000_000
SERVICE_S = 0.05
REFUSAL_S = 0.002
RATE_PER_S = 200
CONCURRENCY = 10
FOR_S = 60.0

Pick = Callable[[list[int], random.Random], int]
PICKS: dict[str, Pick] = {
    "any": lambda idle, rng: idle.pop(rng.randrange(len(idle))),
    "last": lambda idle, _rng: idle.pop(),
}


def engine_with(**limits: float) -> Engine:
    """Rules with the callers `limited` and `other`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "objectives").mkdir()
        (root / "objectives/o.yaml").write_text("objective: o\nrules: [{id: all, serve: m}]\n")
        (root / "fleet.yaml").write_text("shards: {a: {}}\nmodels: {m: {shards: [a]}}\n")
        callers = {"limited": {"objectives": "*", **limits}, "other": {"objectives": "*"}}
        (root / "callers.yaml").write_text(json.dumps({"callers": callers}))
        return load_bundle(compile_directory(root))


def simulated(
    engine: Engine, shares: int, limited_per_s: float, other_per_s: float, pick: Pick
) -> tuple[float, float, int]:
    """Return the limited caller's admitted requests per second, its mean requests under way, and the environments used."""
    rng, now_ns = random.Random(7), 0

    def clock_ns() -> int:
        return now_ns

    environments: list[Quotas] = []
    idle: list[int] = []
    busy: list[tuple[int, int, Lease]] = []
    admitted = served_ns = 0
    callers = engine.callers or {}
    per_s = limited_per_s + other_per_s
    while now_ns < FOR_S * NS:
        now_ns += int(rng.expovariate(per_s) * NS)
        arrival_ns = now_ns
        while busy and busy[0][0] <= arrival_ns:
            now_ns, environment, lease = heapq.heappop(busy)
            lease.release()
            idle.append(environment)
        now_ns = arrival_ns
        if not idle:
            idle.append(len(environments))
            environments.append(Quotas(shares, clock_ns))
        environment = pick(idle, rng)
        is_limited = rng.random() < limited_per_s / per_s
        lease, took_s = Lease(), rng.expovariate(1 / SERVICE_S)
        try:
            caller = callers["limited" if is_limited else "other"]
            environments[environment].acquire(engine, caller, engine.objectives["o"], lease)
            if is_limited:
                admitted += 1
                served_ns += int(took_s * NS)
        except LimitedError:
            took_s = REFUSAL_S
        heapq.heappush(busy, (now_ns + int(took_s * NS), environment, lease))
    return admitted / FOR_S, served_ns / NS / FOR_S, len(environments)


def main() -> None:
    print("| limit | of the caller | of others | shares | environments | picked: any | picked: last |")
    print("|---|---|---|---|---|---|---|")
    for limits, allowed, column in (
        ({"rate_per_s": RATE_PER_S}, RATE_PER_S, 0),
        ({"concurrency": CONCURRENCY}, CONCURRENCY, 1),
    ):
        engine = engine_with(**limits)
        name = next(iter(limits))
        for limited_per_s, other_per_s in ((0.8 * RATE_PER_S, 400.0), (2 * RATE_PER_S, 400.0), (2 * RATE_PER_S, 0.0)):
            for shares in (10, 20, 40, 80):
                results = [simulated(engine, shares, limited_per_s, other_per_s, pick) for pick in PICKS.values()]
                wanted = min(allowed, (limited_per_s, limited_per_s * SERVICE_S)[column])
                cells = " | ".join(f"{result[column] / wanted:.0%}" for result in results)
                used = f"{results[0][2]}"
                print(f"| {name} {allowed} | {limited_per_s:g}/s | {other_per_s:g}/s | {shares} | {used} | {cells} |")


if __name__ == "__main__":
    main()
