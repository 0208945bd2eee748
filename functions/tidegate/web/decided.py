"""A decision as headers: `Tidegate-*` response headers for the caller, and parameters as request headers for Triton."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from tidegate.oip.parameters import origin_headers, parameter_headers
from tidegate.rules import Traffic
from tidegate.rules.decision import Decision, Target
from tidegate.web.http import HeaderList

_MOST_KEPT: Final = 4096
_LONGEST_VALUE: Final = 256
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class DecisionHeaders:
    """Builds and caches the headers of decisions. An engine returns the same decision object for equal requests."""

    def __init__(self) -> None:
        self._shown: dict[tuple[int, int, str], tuple[Decision, Target, HeaderList]] = {}
        self._parameters: dict[int, tuple[Decision, HeaderList]] = {}
        self._origins: dict[tuple[str | None, Traffic], HeaderList] = {}

    def shown(self, decision: Decision, target: Target | None = None, shard: str | None = None) -> HeaderList:
        """Return the response headers of a decision that `target` on `shard` answered.

        The defaults, the decision's own target and its first shard, are for answers that no target gave.
        """
        target = target or decision.target
        shard = shard or decision.shards[0]
        key = (id(decision), id(target), shard)
        kept = self._shown.get(key)
        if kept is not None and kept[0] is decision and kept[1] is target:
            return kept[2]
        if len(self._shown) >= _MOST_KEPT:
            self._shown.clear()
        headers = _shown(decision, target, shard)
        self._shown[key] = (decision, target, headers)
        return headers

    def parameters(self, decision: Decision) -> HeaderList:
        """Return the headers that Triton turns into request parameters (`--http-header-forward-pattern`)."""
        if not decision.parameters:
            return ()
        kept = self._parameters.get(id(decision))
        if kept is not None and kept[0] is decision:
            return kept[1]
        if len(self._parameters) >= _MOST_KEPT:
            self._parameters.clear()
        headers = parameter_headers(decision.parameters)
        self._parameters[id(decision)] = (decision, headers)
        return headers

    def origin(self, caller: str | None, traffic: Traffic) -> HeaderList:
        """Return the headers that tell the model who sent a request, and its traffic class; see `parameters`."""
        kept = self._origins.get((caller, traffic))
        if kept is not None:
            return kept
        if len(self._origins) >= _MOST_KEPT:
            self._origins.clear()
        self._origins[caller, traffic] = headers = origin_headers(caller, traffic.value)
        return headers


def reason_of(decision: Decision, target: Target) -> str:
    """Return why `target` serves a decision, as callers and the log get it: the decision's reason, or `fallback`."""
    return decision.reason if target == decision.target else "fallback"


def header_value(text: str) -> bytes:
    """Return `text` as a header value: all but printable ASCII percent-encoded, cut to 256 bytes."""
    return quote(text, safe=_PLAIN)[:_LONGEST_VALUE].encode()


def _shown(decision: Decision, target: Target, shard: str) -> HeaderList:
    values = {
        b"tidegate-rule": decision.rule,
        b"tidegate-model": target.model,
        b"tidegate-model-version": target.version,
        b"tidegate-shard": shard,
        b"tidegate-variant": decision.variant,
        b"tidegate-cell": decision.cell,
        b"tidegate-revision": decision.revision,
        b"tidegate-reason": reason_of(decision, target),
    }
    return tuple((name, header_value(str(value))) for name, value in values.items() if value is not None)
