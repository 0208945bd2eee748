"""Decisions of a resolver, each kept for as long and for as many contexts as its answer says."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tidegate.client.answers import checked
from tidegate.client.config import ClientConfig
from tidegate.client.exchange import Ask, Reply, Request, Steps
from tidegate.client.rules import Places, gateway_headers
from tidegate.errors import (
    ContextError,
    EndpointError,
    OverloadedError,
    StoreError,
    UnavailableError,
    UnknownObjectiveError,
)
from tidegate.rules.decision import Decision, Fault, Shadow, Target

MOST_KEPT: Final = 10_000
TIMEOUT_S: Final = 5.0

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ABSENT: Final = ("absent",)
_UNREACHABLE = (EndpointError, OverloadedError, StoreError, UnavailableError)


class Resolution(NamedTuple):
    """A decision, and the addresses of its shards as the resolver knows them."""

    decision: Decision
    places: Places


def is_newer(found: Resolution, old: Resolution) -> bool:
    return found.decision.revision != old.decision.revision or found.places != old.places


class _Kept(NamedTuple):
    resolution: Resolution
    until_s: float


class Resolver:
    """Asks for decisions. `find` gives a kept one; `ask` is the steps that get one."""

    def __init__(self, url: str, config: ClientConfig) -> None:
        self._url, self._config = url, config
        self._headers = [("Content-Type", "application/json"), *gateway_headers(config)]
        self._vary: dict[str, tuple[str, ...]] = {}
        self._kept: dict[Any, _Kept] = {}
        self._revision: str | None = None
        self._is_failing = False
        self._early_s = -math.inf

    def find(self, objective: str, context: Mapping[str, Any], past_s: float = 0.0) -> Resolution | None:
        """Return a kept decision for a context that is valid still, or was `past_s` ago."""
        vary = self._vary.get(objective)
        if vary is None:
            return None
        try:
            kept = self._kept.get(key_of(objective, vary, context))
        except (TypeError, AttributeError):
            # It is not a context: the resolver says why.
            return None
        return kept.resolution if kept is not None and time.monotonic() < kept.until_s + past_s else None

    def ask(self, objective: str, context: Mapping[str, Any]) -> Generator[Ask, Reply, Resolution]:
        """Steps: ask the resolver. If it does not answer, a decision that was kept for a little longer serves.

        Raises:
            TidegateError: what the resolver says of the request.
            UnavailableError: it does not answer.
        """
        if _NAME.fullmatch(objective) is None:
            raise UnknownObjectiveError(objective)
        path = f"/v1/objectives/{objective}/resolve"
        asked_s = time.monotonic()
        try:
            body = json.dumps({"context": context}, default=_listed).encode()
        except (TypeError, ValueError) as error:
            raise ContextError("context", f"the context cannot be sent as JSON: {error}") from None
        try:
            reply = yield Request(self._url, "POST", path, self._headers, body, TIMEOUT_S)
            resolution, vary, ttl_ms = _answer(checked(reply, path), path)
        except _UNREACHABLE as error:
            self._is_failing = True
            stale = self.find(objective, context, self._config.stale_s)
            if stale is not None:
                return stale
            if isinstance(error, EndpointError):
                raise UnavailableError(f"the resolver does not answer: {error}") from error
            raise
        self._is_failing = False
        self._revision = resolution.decision.revision
        self.keep(objective, context, resolution, vary, asked_s + ttl_ms / 1000)
        return resolution

    def may_hurry(self) -> bool:
        """Return whether to ask for a decision that is kept: once in `poll_s`, and never while the resolver fails, as it would be asked
        for each request that fails otherwise."""
        now_s = time.monotonic()
        if self._is_failing or now_s < self._early_s:
            return False
        self._early_s = now_s + self._config.poll_s
        return True

    def renewed(self, old: Resolution, objective: str, context: Mapping[str, Any]) -> Steps[Resolution | None]:
        """Steps: return a decision that is newer than an old one, as far as the last answers show that there is one, else None."""
        kept = self.find(objective, context)
        if kept is not None and kept.decision.revision == self._revision:
            return kept if is_newer(kept, old) else None
        return (yield from self.ask(objective, context)) if self._revision != old.decision.revision else None

    def keep(
        self, objective: str, context: Mapping[str, Any], resolution: Resolution, vary: Sequence[str], until_s: float
    ) -> None:
        """Keep a decision until a time of the monotonic clock."""
        self._vary[objective] = tuple(vary)
        if len(self._kept) >= MOST_KEPT:
            self._kept = {}
        self._kept[key_of(objective, self._vary[objective], context)] = _Kept(resolution, until_s)


def key_of(objective: str, vary: Sequence[str], context: Mapping[str, Any]) -> Any:
    """Return what contexts have in common that get one decision: the values that `vary` names, and `allocations`; of all else the
    name and the type."""
    values = tuple(_frozen(context[name]) if name in context else _ABSENT for name in (*vary, "allocations"))
    others = frozenset((name, type(value)) for name, value in context.items() if name not in vary)
    return objective, tuple(vary), values, others


def _frozen(value: Any) -> Any:
    """Return a value as a key. 1, 1.0 and true differ, as they do in rules."""
    if isinstance(value, list | tuple):
        return list, tuple(map(_frozen, value))
    if isinstance(value, set | frozenset):
        return list, tuple(map(_frozen, sorted(value)))
    if isinstance(value, Mapping):
        return dict, frozenset((name, _frozen(each)) for name, each in value.items())
    return type(value), value


def _listed(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a context has a {type(value).__name__}, which JSON has not")


def _answer(body: bytes, path: str) -> tuple[Resolution, Sequence[str], float]:
    """Return a decision, and for which contexts and how long it may be kept. Raises `UnavailableError`: a resolver answers otherwise."""
    try:
        answer = json.loads(body)
        resolution = Resolution(_decision(answer["decision"]), _places(answer))
        return resolution, tuple(answer["vary"]), float(answer["cache_ttl_ms"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UnavailableError(f"{path} was answered, but not with a decision") from None


def _decision(document: Mapping[str, Any]) -> Decision:
    fault = document["fault"]
    return Decision(
        document["objective"],
        document["rule"],
        _target(document),
        document["reason"],
        document["revision"],
        document["variant"],
        document["experiment"],
        document["cell"],
        document["parameters"],
        tuple(map(_target, document["fallbacks"])),
        tuple(Shadow(_target(each), each["percent"]) for each in document["shadows"]),
        document["timeout_ms"],
        document["hedge_after_ms"],
        document["hedge_at"],
        None if fault is None else Fault(**fault),
    )


def _target(document: Mapping[str, Any]) -> Target:
    return Target(document["target"], document["model"], document["version"], tuple(document["shards"]))


def _places(answer: Mapping[str, Any]) -> Places:
    places: dict[str, list[str]] = {}
    for endpoint in [*answer["endpoints"], *(each for target in answer["fallbacks"] for each in target["endpoints"])]:
        found = places.setdefault(endpoint["shard"], [])
        if endpoint["url"] not in found:
            found.append(endpoint["url"])
    return places
