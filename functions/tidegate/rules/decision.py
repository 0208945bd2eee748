"""The answer of the engine: a decision, and on demand the trace that explains it.

All values are immutable and are shared between requests: the engine builds each distinct decision once per bundle, so
that deciding allocates next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Parameters = Mapping[str, str | int | float | bool]
NO_PARAMETERS: Parameters = MappingProxyType({})

HedgeAt = Literal["p50", "p75", "p90", "p95", "p99"]
"""The percentile of a target's latencies after which a hedge is sent."""

Reason = Literal["serve", "split", "experiment", "no_sticky_key", "override"]
"""Why the target was picked: the rule's only target, a weighted choice, an experiment's cell, the first variant of a
split because none of the sticky key's attributes has a value (an empty text is none), or because the caller pinned it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model on an ordered list of shards, which serves a request.

    `name` is the target as the author wrote it (`model`, `model/version` or `name@alias`), `model` and `version` what it
    resolves to (`version` None: the version policy of the model decides), `shards` where it is placed, preferred first.
    """

    name: str
    model: str
    version: int | None
    shards: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Shadow:
    """A target that gets a copy of `percent` (0–100) of the rule's requests, whose responses no caller sees; see
    `Engine.sampled`."""

    target: Target
    # Not `float`: compiled, that would turn 10 into 10.0, which callers see.
    percent: int | float


class Fault(NamedTuple):
    """A fault that `percent` (0–100) of the rule's synthetic requests get: an answer after `delay_ms`, or the HTTP status
    `abort_status` (400–599) in place of one, after the delay if both are set. At least one of the two is."""

    percent: int | float
    delay_ms: int | None = None
    abort_status: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of the rules for one request.

    `variant` is the picked variant of a split (its target as written) or of an experiment (its cell as text), else None;
    `cell` is the experiment's cell as the author wrote it (integer or text) and `experiment` its id, else None.
    `parameters` are handed to the model. `fallbacks` are tried in order when the target fails. `timeout_ms` is
    None where neither the rule nor the objective sets it. Of `hedge_after_ms` and `hedge_at` a rule sets at most one.
    `fault` is for synthetic requests only. `revision` is the bundle's digest.
    """

    objective: str
    rule: str
    target: Target
    reason: Reason
    revision: str
    variant: str | None = None
    experiment: str | None = None
    cell: int | str | None = None
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)
    fallbacks: tuple[Target, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    timeout_ms: int | None = None
    hedge_after_ms: int | None = None
    hedge_at: HedgeAt | None = None
    fault: Fault | None = None

    @property
    def model(self) -> str:
        return self.target.model

    @property
    def version(self) -> int | None:
        return self.target.version

    @property
    def shards(self) -> tuple[str, ...]:
        return self.target.shards

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain JSON values, keys in a stable order."""
        return {
            "objective": self.objective,
            "rule": self.rule,
            "model": self.model,
            "version": self.version,
            "target": self.target.name,
            "shards": list(self.shards),
            "variant": self.variant,
            "experiment": self.experiment,
            "cell": self.cell,
            "parameters": dict(self.parameters),
            "fallbacks": [_target_dict(target) for target in self.fallbacks],
            "shadows": [{**_target_dict(shadow.target), "percent": shadow.percent} for shadow in self.shadows],
            "timeout_ms": self.timeout_ms,
            "hedge_after_ms": self.hedge_after_ms,
            "hedge_at": self.hedge_at,
            "fault": None if self.fault is None else self.fault._asdict(),
            "reason": self.reason,
            "revision": self.revision,
        }


def _target_dict(target: Target) -> dict[str, Any]:
    return {"target": target.name, "model": target.model, "version": target.version, "shards": list(target.shards)}


class Draw(NamedTuple):
    """One variant's part in a sticky choice: `u` in (0, 1], and `score` = -ln(u) / weight; the smallest score wins.

    `hashed` is the text whose SHA-256 is taken (salt, variant and key, joined by U+001F), `number` the first 8 bytes of the
    digest as a big-endian integer, and u = (number + 0.5) / 2^64. A variant of weight 0 has no score (None) and cannot win.
    """

    variant: str
    weight: int
    u: float
    score: float | None
    hashed: str
    number: int
    won: bool

    def as_dict(self, *, with_key: bool) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "weight": self.weight,
            **({"hashed": self.hashed} if with_key else {}),
            "first_8_bytes": f"{self.number:016x}",
            "integer": self.number,
            "u": self.u,
            "score": self.score,
            "won": self.won,
        }


class ShadowDraw(NamedTuple):
    """Whether a shadow copies a request: where u is at most `percent` / 100.

    `u` comes from `hashed` as in a `Draw`. Without a value of the sticky key each request is sampled by chance, so all three,
    and `sampled`, are None.
    """

    target: str
    percent: int | float
    u: float | None = None
    hashed: str | None = None
    number: int | None = None
    sampled: bool | None = None

    def as_dict(self, *, with_key: bool) -> dict[str, Any]:
        return {
            "target": self.target,
            "percent": self.percent,
            **({"hashed": self.hashed} if with_key else {}),
            "first_8_bytes": None if self.number is None else f"{self.number:016x}",
            "integer": self.number,
            "u": self.u,
            "sampled": self.sampled,
        }


class LayerDraw(NamedTuple):
    """The bucket of a request in a layer: floor(number * 10000 / 2^64), 0–9999.

    `hashed` is the text whose SHA-256 is taken (layer and key, joined by U+001F), `number` the first 8 bytes of the digest
    as a big-endian integer. `ranges` are the inclusive bucket ranges of each of the objective's experiments in the layer.
    """

    layer: str
    hashed: str
    number: int
    bucket: int
    ranges: Mapping[str, tuple[tuple[int, int], ...]]

    def as_dict(self, *, with_key: bool) -> dict[str, Any]:
        return {
            "layer": self.layer,
            **({"hashed": self.hashed} if with_key else {}),
            "first_8_bytes": f"{self.number:016x}",
            "integer": self.number,
            "bucket": self.bucket,
            "ranges": {experiment: [list(pair) for pair in pairs] for experiment, pairs in self.ranges.items()},
        }


class RuleTrace(NamedTuple):
    """Whether one rule's conditions hold, and else the first that fails. Other rules play no part.

    `failed` names the failing attribute (or `active`, `any_of`, `experiment`) and `detail` says in words what the rule
    asks for and how the context missed it, without repeating the context's value.
    """

    rule: str
    matched: bool
    failed: str | None = None
    detail: str | None = None


class Ignored(NamedTuple):
    """A name in a context that the objective does not declare, and the declared one that it may have meant."""

    name: str
    did_you_mean: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision (None where no rule matches) and the trace of every rule in order.

    `draws` holds the arithmetic of the deciding rule's sticky choice, if it made one; `layers` that of the layer buckets
    that were needed, `ignored` the names in the context that the objective does not declare, and `shadows` the draws of the
    decision's shadows.
    """

    objective: str
    decision: Decision | None
    rules: tuple[RuleTrace, ...]
    draws: tuple[Draw, ...] = ()
    layers: tuple[LayerDraw, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    shadows: tuple[ShadowDraw, ...] = ()

    @property
    def buckets(self) -> dict[str, int]:
        return {draw.layer: draw.bucket for draw in self.layers}

    def as_dict(self, *, with_key: bool = False) -> dict[str, Any]:
        """Return the explanation as plain JSON values; `with_key` with the hashed texts, which hold the sticky key: for the
        one who gave the context, not for logs."""
        return {
            "objective": self.objective,
            "decision": self.decision.as_dict() if self.decision else None,
            "rules": [trace._asdict() for trace in self.rules],
            "draws": [draw.as_dict(with_key=with_key) for draw in self.draws],
            "buckets": self.buckets,
            "layers": [draw.as_dict(with_key=with_key) for draw in self.layers],
            "ignored": [each._asdict() for each in self.ignored],
            "shadows": [draw.as_dict(with_key=with_key) for draw in self.shadows],
        }
