"""Report of the differences between the answers of a pair of targets, as figures and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tidegate.analysis.figures import percent
from tidegate.analysis.pictures.svg import printable
from tidegate.rules.bundle import short_revision
from tidegate.shadows.pair_tally import Counts, OutputTally, PairTally
from tidegate.shadows.sketch import Distribution

HEADS = ("output", "equal", "error p50", "p99", "max", "relative p50", "p99", "max", "")
"""The heads of the rows of `output_rows`."""

COUNT_HEADS = ("shadow", "sampled", "sent", "compared", "dropped", "left out", "missing", "why")
"""The heads of the rows of `count_rows`."""


def different_share(tally: PairTally) -> float | None:
    """Return the share of the shadows that failed, or whose answer is not identical, of those sent whose primary did not fail and
    whose answer was not left uncompared; None if there is none."""
    answered = tally.sent - tally.not_compared - sum(tally.primary_failed.values())
    different = sum(tally.shadow_failed.values()) + tally.compared - tally.identical
    return different / answered if answered else None


def pair_json(tally: PairTally) -> Mapping[str, Any]:
    """Return a pair as JSON values: see docs/json.md."""
    ranking = None
    if tally.overlap.count or tally.unranked:
        ranking = {
            "overlap": _distribution(tally.overlap),
            "tau": _distribution(tally.tau),
            "unranked": tally.unranked,
        }
    return {
        **tally.pair._asdict(),
        "revision": tally.revision,
        "first_at": _time(tally.first_at),
        "last_at": _time(tally.last_at),
        "sampled": tally.sampled,
        "left_out": tally.left_out,
        "dropped": tally.dropped,
        "sent": tally.sent,
        "missing": tally.missing,
        "not_compared": tally.not_compared,
        "primary_failed": tally.primary_failed,
        "both_failed": tally.both_failed,
        "shadow_failed": tally.shadow_failed,
        "compared": tally.compared,
        "identical": tally.identical,
        "different_share": different_share(tally),
        "latency": {
            "primary_ms": _distribution(tally.primary_ms),
            "shadow_ms": _distribution(tally.shadow_ms),
            "ratio": _distribution(tally.ratio),
        },
        "ranking": ranking,
        "outputs": {name: _output_json(output) for name, output in worst_first(tally)},
        "outputs_left_out": tally.outputs_left_out,
    }


def heading(tally: PairTally) -> str:
    return f"{tally.pair.objective}, rule {tally.pair.rule}: {targets(tally)}"


def targets(tally: PairTally) -> str:
    pair = tally.pair
    primary, shadow = _target(pair.primary, pair.primary_model), _target(pair.shadow, pair.shadow_model)
    return f"{shadow} as a shadow of {primary}"


def count_rows(tallies: Sequence[PairTally]) -> Iterator[tuple[str, ...]]:
    """Yield a row of texts for each pair: how many requests its shadow sampled, and what became of them."""
    for tally in tallies:
        pair = tally.pair
        dropped, left_out = sum(tally.dropped.values()), sum(tally.left_out.values())
        counts = (tally.sampled, tally.sent, tally.compared, dropped, left_out, tally.missing)
        reasons = "; ".join(_counts(each) for each in (tally.dropped, tally.left_out) if each)
        name = f"{pair.objective}, rule {pair.rule}: {pair.shadow} of {pair.primary}"
        yield name, *(f"{each:,}" for each in counts), reasons


def sentences(tally: PairTally) -> Iterator[str]:
    """Yield what a researcher has to know of a pair, apart from its outputs."""
    parts = [f"sent {tally.sent:,}"]
    for what, reasons in (("dropped", tally.dropped), ("left out", tally.left_out)):
        if reasons:
            parts.append(f"{what} {sum(reasons.values()):,} ({_counts(reasons)})")
    if tally.missing:
        parts.append(f"missing {tally.missing:,}")
    yield f"sampled: {tally.sampled:,}, of which {', '.join(parts)}"
    times = f"from {_time(tally.first_at)} to {_time(tally.last_at)}"
    yield f"{times}, the last by revision {short_revision(tally.revision)}"
    facts = f"compared: {tally.compared:,}"
    if tally.compared:
        facts += f", of which {tally.identical:,} are identical ({percent(tally.identical / tally.compared)})"
    yield facts
    if tally.not_compared:
        yield f"answers for which there was no time or memory to compare them: {tally.not_compared:,}"
    for who, failed in (("shadow alone", tally.shadow_failed), ("primary", tally.primary_failed)):
        if count := sum(failed.values()):
            yield f"failures of the {who}: {count:,} ({percent(count / tally.sent)}): {_counts(failed)}"
    if tally.both_failed:
        yield f"of these, the shadow failed, too: {tally.both_failed:,}"
    if tally.ratio.count:
        p50, p95, p99 = (number(tally.ratio.quantile(share)) for share in (0.5, 0.95, 0.99))
        both = " against ".join(f"{number(each.quantile(0.5))} ms" for each in (tally.shadow_ms, tally.primary_ms))
        yield f"latency: {p50} times the primary's at p50 ({both}), {p95} at p95, {p99} at p99"
    for name, grid in (("overlap of the rankings", tally.overlap), ("Kendall's tau of their common items", tally.tau)):
        if grid.count:
            values = ((share, grid.quantile(share)) for share in (0.5, 0.05, 0.01))
            yield f"{name}: {', '.join(f'{number(value)} at p{100 * share:g}' for share, value in values)}"
    if tally.unranked:
        yield f"answers without two rankings to compare: {tally.unranked:,}"
    if tally.outputs_left_out:
        yield f"outputs left out, as there are too many: {tally.outputs_left_out:,}"


def worst_first(tally: PairTally) -> Sequence[tuple[str, OutputTally]]:
    """Return the outputs of a pair by name: first those that most answers do not both have as the same tensor, then those
    with the fewest equal elements."""

    def badness(item: tuple[str, OutputTally]) -> tuple[float, float, str]:
        name, output = item
        equal = output.equal / output.elements if output.elements else 1.0
        return output.compared / output.answers if output.answers else 1.0, equal, name

    return sorted(tally.outputs.items(), key=badness)


def output_rows(tally: PairTally) -> Iterator[tuple[str, ...]]:
    """Yield a row of texts for each output, the worst first; `HEADS` are their heads."""
    for name, output in worst_first(tally):
        errors = [
            number(sketch.quantile(share)) for sketch in (output.absolute, output.relative) for share in (0.5, 0.99, 1)
        ]
        equal = percent(output.equal / output.elements) if output.elements else ""
        yield printable(name), equal, *errors, "; ".join(_remarks(output))


def number(value: float | None) -> str:
    """Return a number in about the two digits that a quantile has."""
    if value is None or math.isinf(value):
        return "" if value is None else "∞"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.2g}"


def _remarks(output: OutputTally) -> Iterator[str]:
    if output.only_primary:
        yield f"missing in the shadow: {output.only_primary:,}"
    if output.only_shadow:
        yield f"only in the shadow: {output.only_shadow:,}"
    for datatypes, count in output.datatypes.items():
        yield f"{datatypes}: {count:,}"
    if output.shapes:
        yield f"another shape: {output.shapes:,}"


def _output_json(output: OutputTally) -> Mapping[str, Any]:
    return {
        "answers": output.answers,
        "only_primary": output.only_primary,
        "only_shadow": output.only_shadow,
        "datatypes": output.datatypes,
        "shapes": output.shapes,
        "compared": output.compared,
        "identical": output.identical,
        "elements": output.elements,
        "equal": output.equal,
        "absolute_error": _distribution(output.absolute),
        "relative_error": _distribution(output.relative),
    }


def _distribution(found: Distribution) -> Mapping[str, Any] | None:
    """Return a distribution as JSON values; an infinite quantile, which JSON cannot represent, is null."""
    if not found.count:
        return None
    shares = {"min": 0.0, "p01": 0.01, "p05": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    values = {name: found.quantile(share) for name, share in shares.items()}
    return {
        "count": found.count,
        "infinite": found.infinite,
        **{name: None if value == math.inf else value for name, value in values.items()},
        "bins": [list(each) for each in found.bins()],
    }


def _counts(counts: Counts) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered)


def _target(name: str, model: str) -> str:
    return name if name == model else f"{name} ({model})"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
