"""An explanation as text: the decision, the arithmetic that an analyst can recompute, and rule by rule why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tidegate.rules import Decision, Draw, Explanation
from tidegate.rules.compare.wording import plain
from tidegate.rules.decision import LayerDraw
from tidegate.rules.program import Layer, free_buckets
from tidegate.rules.sticky import SEPARATOR

SHOWN_SEPARATOR = "␟"
SHOWN_RULES = 50
"""Rules that match below the deciding one or fail are all shown up to this many; `--json` always has all."""


def explanation_lines(explanation: Explanation, layers: Mapping[str, Layer]) -> Iterator[str]:
    """The lines of an explanation; `layers` are those of the rules directory."""
    decision = explanation.decision
    if decision is None:
        yield f"{explanation.objective}: no rule matches this context"
    else:
        yield from _decision(decision)
    for each in explanation.ignored:
        near = "" if each.did_you_mean is None else f"; did you mean {each.did_you_mean!r}?"
        yield f"ignored: the objective does not declare the attribute {each.name!r}{near}"
    for layer in explanation.layers:
        yield from _layer(layer, layers.get(layer.layer))
    if explanation.draws:
        yield from _draws(explanation.draws)
    elif decision is not None and decision.reason == "no_sticky_key":
        yield "choice: no attribute of the sticky key has a value (an empty text is none), so the first variant serves"
    yield from _rules(explanation)


def _decision(decision: Decision) -> Iterator[str]:
    version = "" if decision.version is None else f"/{decision.version}"
    resolved = f"{decision.model}{version}"
    written = "" if decision.target.name == resolved else f" ({decision.target.name})"
    yield f"{decision.objective} → rule {decision.rule} → {resolved}{written}"
    yield f"  reason {decision.reason}, shards {', '.join(decision.shards)}, revision {decision.revision[:12]}"
    if decision.experiment is not None:
        yield f"  experiment {decision.experiment}, cell {decision.cell}"
    elif decision.variant is not None:
        yield f"  variant {decision.variant}"
    if decision.parameters:
        yield "  parameters " + ", ".join(f"{name}={value}" for name, value in decision.parameters.items())
    if decision.fallbacks:
        yield "  fallbacks " + ", ".join(target.name for target in decision.fallbacks)
    if decision.shadows:
        yield "  shadows " + ", ".join(f"{shadow.target.name} {plain(shadow.percent)} %" for shadow in decision.shadows)


def _layer(draw: LayerDraw, layer: Layer | None) -> Iterator[str]:
    yield f"layer {draw.layer}: SHA-256 of {_shown(draw.hashed)}"
    yield f"  first 8 bytes {draw.number:016x} = {draw.number}; floor(that × 10000 / 2^64) = bucket {draw.bucket}"
    owners = {"holdout": layer.holdout, **layer.experiments} if layer is not None else draw.ranges
    for owner, pairs in owners.items():
        name = owner if owner == "holdout" and layer is not None else f"experiment {owner}"
        owned = ", ".join(f"{first}–{last}" for first, last in pairs) or "no buckets"
        inside = any(first <= draw.bucket <= last for first, last in pairs)
        yield f"  {name}: {owned}{'  ← this bucket' if inside else ''}"
    if layer is not None:
        free = free_buckets(layer)
        owned = ", ".join(f"{first}–{last}" for first, last in free) or "no buckets"
        inside = any(first <= draw.bucket <= last for first, last in free)
        yield f"  free: {owned}{'  ← this bucket' if inside else ''}"


def _draws(draws: tuple[Draw, ...]) -> Iterator[str]:
    yield "choice: the smallest -ln(u) / weight wins, u = (first 8 bytes of the SHA-256 + 0.5) / 2^64"
    for draw in draws:
        yield f"  {draw.variant}{'  ← wins' if draw.won else ''}"
        yield f"    SHA-256 of {_shown(draw.hashed)}"
        yield f"    first 8 bytes {draw.number:016x} = {draw.number}; u = {draw.u!r}"
        if draw.score is None:
            yield "    weight 0: cannot win"
        else:
            yield f"    -ln(u) / weight = {draw.score * draw.weight:.9f} / {draw.weight} = {draw.score!r}"


def _rules(explanation: Explanation) -> Iterator[str]:
    deciding = explanation.decision.rule if explanation.decision is not None else None
    yield "rules"
    for count, trace in enumerate(explanation.rules):
        if count >= SHOWN_RULES and trace.rule != deciding:
            continue
        if not trace.matched:
            yield f"  ✗ {trace.rule}: {trace.failed}: {trace.detail}"
        elif trace.rule == deciding:
            yield f"  ✓ {trace.rule}"
        else:
            yield f"  ✓ {trace.rule} (matches, but a rule above it came first)"
    if len(explanation.rules) > SHOWN_RULES:
        yield f"  … the first {SHOWN_RULES} of {len(explanation.rules)} rules; --json has all"


def _shown(hashed: str) -> str:
    """A hashed text in quotes, with its separators and what does not print made visible."""
    return '"' + SHOWN_SEPARATOR.join(repr(part)[1:-1] for part in hashed.split(SEPARATOR)) + '"'
