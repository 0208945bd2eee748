"""The planner beside first-fit decreasing, and beside the optimum that a MILP solver proves for small fleets."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]
from scipy.sparse import lil_matrix  # type: ignore[import-untyped]
from tidegate.placement import PlacementItem, ShardCapacity, plan_placement

SHARDS, MODELS = 50, 2000
SMALL_SHARDS, SMALL_MODELS, SMALL_FLEETS = 4, 20, 12
TIGHT_FLEETS, TIGHT_MODELS, TIGHT_PEAK = 20, 16, 0.97
ROUNDS = 3
FILLED = 0.7
"""The demanded part of the fleet's traffic, and of its memory if no step were shared."""

MILP_TIME_LIMIT_S = 20.0

Placement = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The input of a placement: models and shards."""

    items: tuple[PlacementItem, ...]
    shards: tuple[ShardCapacity, ...]


def fleet(shards: int, models: int, seed: int, filled: float = FILLED) -> Fleet:
    """Ensembles of one to four steps that they share within families of eight or so, with a long tail of traffic."""
    draw = random.Random(seed)
    families = max(1, models // 32)
    steps = {f"step_{number}": draw.choice([20, 70, 70, 200]) for number in range(families * 4)}
    items = []
    for number in range(models):
        family = draw.randrange(families) * 4
        used = draw.sample(range(4), draw.randint(1, 4))
        parts = {name: steps[name] for name in (f"step_{family + position}" for position in used)}
        traffic = round(min(10.0, draw.paretovariate(1.3)), 1)
        items.append(PlacementItem(f"model_{number}", draw.randint(1, 300), traffic, 1, parts=parts))
    memory = sum(item.memory_mb + sum(item.parts.values()) for item in items)
    traffic = sum(item.traffic_per_s for item in items)
    capacity = (int(memory / shards / filled), round(traffic / shards / filled, 1))
    return Fleet(tuple(items), tuple(ShardCapacity(f"shard_{number}", *capacity) for number in range(shards)))


def changed(fleet: Fleet, seed: int) -> Fleet:
    """The fleet a week later: one shard in twenty (at least one) is gone, one model in fifty is new, as many are busier."""
    draw = random.Random(seed)
    few = max(1, len(fleet.items) // 50)
    busier = set(draw.sample(range(len(fleet.items)), few))
    items = [
        replace(item, traffic_per_s=item.traffic_per_s * 3) if position in busier else item
        for position, item in enumerate(fleet.items)
    ]
    items += [replace(draw.choice(fleet.items), model=f"new_{number}", memory_mb=100) for number in range(few)]
    return Fleet(tuple(items), fleet.shards[max(1, len(fleet.shards) // 20) :])


def first_fit_decreasing(fleet: Fleet) -> Placement:
    """Largest first, each on the first shard with the memory and the traffic; it knows nothing of what is there now."""
    loaded: dict[str, dict[str, int]] = {shard.name: {} for shard in fleet.shards}
    traffic = dict.fromkeys(loaded, 0.0)
    placed: dict[str, Sequence[str]] = {}
    for item in sorted(fleet.items, key=lambda item: -(item.memory_mb + sum(item.parts.values()))):
        parts = {**item.parts, item.model: item.memory_mb}
        for shard in fleet.shards:
            after = loaded[shard.name] | parts
            if sum(after.values()) > (shard.memory_mb or 0):
                continue
            if traffic[shard.name] + item.traffic_per_s > (shard.traffic_per_s or 0):
                continue
            loaded[shard.name] = after
            traffic[shard.name] += item.traffic_per_s
            placed[item.model] = (shard.name,)
            break
    return placed


def planned(fleet: Fleet, current: Placement | None = None) -> dict[str, tuple[str, ...]]:
    """The result of the planner."""
    return dict(plan_placement(fleet.items, fleet.shards, current).placement)


def contents(fleet: Fleet, placement: Placement) -> dict[str, dict[str, int]]:
    """The parts on every shard."""
    found: dict[str, dict[str, int]] = {shard.name: {} for shard in fleet.shards}
    for item in fleet.items:
        for shard in placement.get(item.model, ()):
            found.setdefault(shard, {}).update({**item.parts, item.model: item.memory_mb})
    return found


def peak(fleet: Fleet, placement: Placement) -> float:
    """The largest share of its memory or traffic that a shard uses."""
    traffic = dict.fromkeys((shard.name for shard in fleet.shards), 0.0)
    for item in fleet.items:
        if item.model in placement:
            traffic[placement[item.model][0]] += item.traffic_per_s
    held = contents(fleet, placement)
    return max(
        max(sum(held[shard.name].values()) / (shard.memory_mb or 1), traffic[shard.name] / (shard.traffic_per_s or 1))
        for shard in fleet.shards
    )


def load_mb(fleet: Fleet, before: Placement, after: Placement) -> int:
    """The memory to load so that one placement becomes another."""
    were, are = contents(fleet, before), contents(fleet, after)
    return sum(size for shard in fleet.shards for part, size in are[shard.name].items() if part not in were[shard.name])


def optimum(fleet: Fleet, current: Placement | None = None) -> float | None:
    """The least peak, or with `current` the least memory to load, that any placement reaches; None where time ran out."""
    shards, items = fleet.shards, fleet.items
    sizes = {part: size for item in items for part, size in {**item.parts, item.model: item.memory_mb}.items()}
    parts = sorted(sizes)
    x = {(i, s): n for n, (i, s) in enumerate((i, s) for i in range(len(items)) for s in range(len(shards)))}
    y = {(p, s): len(x) + n for n, (p, s) in enumerate((p, s) for p in parts for s in range(len(shards)))}
    z = len(x) + len(y)
    rows: list[tuple[dict[int, float], float, float]] = []
    for i, item in enumerate(items):
        rows.append(({x[i, s]: 1.0 for s in range(len(shards))}, 1, 1))
        for p in (*item.parts, item.model):
            rows += [({y[p, s]: 1.0, x[i, s]: -1.0}, 0, np.inf) for s in range(len(shards))]
    for s, shard in enumerate(shards):
        memory, traffic = float(shard.memory_mb or 0), float(shard.traffic_per_s or 0)
        rows.append(({y[p, s]: float(sizes[p]) for p in parts} | {z: -memory}, -np.inf, 0))
        rows.append(({x[i, s]: item.traffic_per_s for i, item in enumerate(items)} | {z: -traffic}, -np.inf, 0))
    cost = np.zeros(z + 1)
    if current is None:
        cost[z] = 1
    else:
        were = contents(fleet, current)
        for (p, s), column in y.items():
            cost[column] = 0 if p in were[shards[s].name] else sizes[p]
    matrix = lil_matrix((len(rows), z + 1))
    for number, (row, _, _) in enumerate(rows):
        for column, value in row.items():
            matrix[number, column] = value
    integral = np.array([1] * len(x) + [0] * (len(y) + 1))
    found = milp(
        cost,
        constraints=LinearConstraint(matrix.tocsr(), [row[1] for row in rows], [row[2] for row in rows]),
        integrality=integral,
        bounds=Bounds(0, 1),
        options={"time_limit": MILP_TIME_LIMIT_S, "mip_rel_gap": 0.005},
    )
    return float(found.fun) if found.status == 0 else None


def resized(of: Fleet, factor: float) -> Fleet:
    """The fleet with shards of another size."""
    shards = tuple(
        replace(
            each,
            memory_mb=int((each.memory_mb or 0) * factor) + 1,
            traffic_per_s=round((each.traffic_per_s or 0) * factor, 3) + 0.001,
        )
        for each in of.shards
    )
    return Fleet(of.items, shards)


def _timed(work: Callable[[], Placement]) -> tuple[float, Placement]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    return "\n".join([*_large(), *_small()])


def _large() -> list[str]:
    start = fleet(SHARDS, MODELS, 1)
    later = changed(start, 2)
    now = planned(start)
    ways: dict[str, tuple[Fleet, Callable[[], Placement]]] = {
        "placed from nothing": (start, lambda: planned(start)),
        "from nothing, first fit": (start, lambda: first_fit_decreasing(start)),
        "planned again, nothing changed": (start, lambda: planned(start, now)),
        "planned after a change": (later, lambda: planned(later, now)),
        "after a change, first fit": (later, lambda: first_fit_decreasing(later)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Placement] = {}
    for _ in range(ROUNDS):
        for name, (_, work) in ways.items():
            seconds, results[name] = _timed(work)
            times[name].append(seconds)
    lines = [
        "## Placing",
        "",
        f"{SHARDS} shards and {MODELS:,} ensembles that share steps. The change: one shard in twenty is gone, one model in",
        "fifty is new, as many expect three times the traffic. First fit is plain first-fit decreasing, in Python too; it",
        f"knows shared steps, and nothing of what is loaded now. Medians of {ROUNDS} interleaved rounds.",
        "",
        "| | s | peak of a shard, % | memory to load, GB | models not placed |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (of, _) in ways.items():
        placement = results[name]
        moved = "" if "from nothing" in name else f"{load_mb(of, now, placement) / 1000:.1f}"
        missing = len(of.items) - len(placement)
        lines.append(
            f"| {name} | {statistics.median(times[name]):.2f} | {100 * peak(of, placement):.0f} | {moved} | {missing} |"
        )
    return [*lines, ""]


def _small() -> list[str]:
    peaks, loads, better, missed = [], [], 0, 0
    mine_s, theirs_s = [], []
    for seed in range(SMALL_FLEETS):
        start = fleet(SMALL_SHARDS, SMALL_MODELS, seed, filled=0.6)
        seconds, now = _timed(partial(planned, start))
        mine_s.append(seconds)
        started = time.perf_counter()
        best = optimum(start)
        theirs_s.append(time.perf_counter() - started)
        if best is not None:
            peaks.append(peak(start, now) / best)
        later = changed(start, seed)
        least = optimum(later, now)
        after = planned(later, now)
        missed += (best is not None and len(now) < len(start.items)) or (
            least is not None and len(after) < len(later.items)
        )
        if least is not None and len(after) == len(later.items):
            loads.append((load_mb(later, now, after), least))
            better += load_mb(later, now, after) <= least * 1.005 + 1
    return [
        f"Beside the optimum, which HiGHS (scipy.optimize.milp) proves for {SMALL_FLEETS} fleets of {SMALL_SHARDS} shards",
        f"and {SMALL_MODELS} ensembles; those it did not solve within {MILP_TIME_LIMIT_S:g} s are left out.",
        "",
        "| | fleets | planner / optimum: median | worst |",
        "|---|---:|---:|---:|",
        f"| peak of a shard, from nothing | {len(peaks)} | {statistics.median(peaks):.2f} | {max(peaks):.2f} |",
        f"| memory loaded after a change | {len(loads)} | {statistics.median(a / b for a, b in loads):.2f} "
        f"| {max(a / b for a, b in loads):.2f} |",
        "",
        f"The planner missed a placement that the solver found {missed} times. After a change {better} of {len(loads)} plans are optimal. A placement from nothing takes the planner",
        f"{1000 * statistics.median(mine_s):.1f} ms and the solver {1000 * statistics.median(theirs_s):,.0f} ms (medians).",
        *_tight(),
        "",
    ]


def _tight() -> list[str]:
    fits, known = 0, 0
    for seed in range(TIGHT_FLEETS):
        wide = resized(fleet(SMALL_SHARDS, TIGHT_MODELS, seed), 10)
        best = optimum(wide)
        if best is not None:
            known += 1
            fits += len(planned(resized(wide, best / TIGHT_PEAK))) == TIGHT_MODELS
    return [
        f"Where even the best placement fills a shard to {100 * TIGHT_PEAK:g} %, the planner finds one for {fits} of {known}",
        f"fleets of {SMALL_SHARDS} shards and {TIGHT_MODELS} ensembles, and says of the others what does not fit.",
    ]


if __name__ == "__main__":
    print(run())
