"""A decision made visible: the `Tidegate-*` response headers, and the headers that carry its parameters to Triton."""

from __future__ import annotations

from urllib.parse import quote

from tidegate.rules.decision import Decision, Target

HeaderList = tuple[tuple[bytes, bytes], ...]

_MOST_KEPT = 4096
_LONGEST_VALUE = 256
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class DecisionHeaders:
    """Builds the headers of a decision once and keeps them: an engine gives equal requests one decision object."""

    def __init__(self) -> None:
        self._shown: dict[tuple[int, int, str], tuple[Decision, Target, HeaderList]] = {}
        self._parameters: dict[int, tuple[Decision, HeaderList]] = {}

    def shown(self, decision: Decision, target: Target | None = None, shard: str | None = None) -> HeaderList:
        """The response headers of a decision that `target` on `shard` has answered, or, without those, would have."""
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
        """The request headers that Triton turns into request parameters (`--http-header-forward-pattern`)."""
        if not decision.parameters:
            return ()
        kept = self._parameters.get(id(decision))
        if kept is not None and kept[0] is decision:
            return kept[1]
        if len(self._parameters) >= _MOST_KEPT:
            self._parameters.clear()
        headers = tuple(
            (b"Tidegate-Param-" + quote(name, safe="").encode(), _parameter(value))
            for name, value in decision.parameters.items()
        )
        self._parameters[id(decision)] = (decision, headers)
        return headers


def header_value(text: str) -> bytes:
    """`text` as a header value: printable ASCII as it is, all else percent-encoded, at most 256 bytes."""
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
        b"tidegate-reason": decision.reason if target == decision.target else "fallback",
    }
    return tuple((name, header_value(str(value))) for name, value in values.items() if value is not None)


def _parameter(value: str | int | float | bool) -> bytes:
    """A parameter's value; the compiler lets text through only if it can stand in a header."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
