"""One shadow as the data plane hands it over: whom it shadowed, the primary's answer, and its own or why there is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tidegate.rules.contract import Ranking
from tidegate.rules.decision import Target
from tidegate.shadows.counts import Drop

COMPARED_HEADERS: Final = (b"content-encoding", b"inference-header-content-length")
"""The only headers that a comparison reads."""


class Pair(NamedTuple):
    """The two targets that are compared, in one rule. Targets are as written; models are what they resolve to."""

    objective: str
    rule: str
    primary: str
    primary_model: str
    shadow: str
    shadow_model: str

    @classmethod
    def of(cls, objective: str, rule: str, primary: Target, shadow: Target) -> Pair:
        """Return the pair of the target that answered, which may be a fallback, and of a shadow."""
        return cls(objective, rule, primary.name, _model(primary), shadow.name, _model(shadow))


class Answer(NamedTuple):
    """A whole answer: header names in lower case, `body` not decompressed; `latency_ms` is how long it took. With `is_rpc` it came over
    gRPC, and `body` is the serialized message."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    latency_ms: float
    is_rpc: bool = False

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class NoAnswer(StrEnum):
    """Why a shadow that was sent has no answer."""

    REFUSED = "refused"
    """The endpoint could not be reached."""
    RESET = "reset"
    """The connection ended before the whole answer was there."""
    TIMEOUT = "timeout"
    TOO_LARGE = "too large"
    """The answer is larger than the transport takes."""
    OTHER = "other"


class Exchange(NamedTuple):
    """One shadow and what it shadowed; `at` is in Unix seconds. `shadow` is a `Drop` if it was not sent. The body of the primary
    may be left out where there is no answer to compare it with."""

    pair: Pair
    revision: str
    at: float
    primary: Answer
    shadow: Answer | NoAnswer | Drop
    ranking: Ranking | None = None


def worker_parts(exchanges: Iterable[Exchange]) -> list[bytes]:
    """Return exchanges as the parts of a frame: for each its description, the primary's body and the shadow's."""
    parts = []
    for each in exchanges:
        shadow, body = each.shadow, b""
        described: list[Any] = [each.pair, each.revision, each.at, _described(each.primary)]
        if isinstance(shadow, Answer):
            described.append(_described(shadow))
            body = shadow.body
        else:
            described.append(shadow)
        parts += [json.dumps([*described, each.ranking]).encode(), each.primary.body, body]
    return parts


def exchanges_of(parts: Sequence[bytes]) -> Iterator[Exchange]:
    """Read what `worker_parts` wrote."""
    for start in range(0, len(parts), 3):
        head, primary_body, shadow_body = parts[start : start + 3]
        pair, revision, at, primary, shadow, ranking = json.loads(head)
        yield Exchange(
            Pair(*pair),
            revision,
            at,
            _answer(primary, primary_body),
            _reason(shadow) if isinstance(shadow, str) else _answer(shadow, shadow_body),
            None if ranking is None else Ranking(*ranking),
        )


def _model(target: Target) -> str:
    return target.model if target.version is None else f"{target.model}/{target.version}"


def _reason(text: str) -> NoAnswer | Drop:
    try:
        return NoAnswer(text)
    except ValueError:
        return Drop(text)


def _described(answer: Answer) -> list[Any]:
    headers = [[key.decode(), value.decode("latin-1")] for key, value in answer.headers if key in COMPARED_HEADERS]
    return [answer.status, headers, answer.latency_ms, answer.is_rpc]


def _answer(described: list[Any], body: bytes) -> Answer:
    status, headers, latency_ms, is_rpc = described
    return Answer(status, [(key.encode(), value.encode("latin-1")) for key, value in headers], body, latency_ms, is_rpc)
