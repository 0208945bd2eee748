"""A request on its way to a shadow, and the bytes of it that cross to the process or the function that sends it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from tidegate.errors import EventError
from tidegate.rules.contract import Ranking
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import COMPARED_HEADERS, Answer, Exchange, NoAnswer, Pair

FORMAT: Final = 2
_LENGTHS: Final = struct.Struct(">IQ")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ShadowCopy(NamedTuple):
    """A request to a shadow.

    Attributes:
        pair: what shadows what.
        revision: the revision that decided.
        at: when the primary answered, in Unix seconds.
        ranking: the output of the objective that is a ranking, if any.
        shard: where the shadow is served.
        address: the host and port of its endpoint there.
        path: the path of the request; over gRPC the full name of the method.
        headers: its headers, or its metadata.
        body: its body, or the serialized message.
        primary: the primary's answer, which came over gRPC if the request did.
    """

    pair: Pair
    revision: str
    at: float
    ranking: Ranking | None
    shard: str
    address: tuple[str, int]
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    primary: Answer

    @property
    def size_bytes(self) -> int:
        return len(self.body) + len(self.primary.body)

    def exchange(self, shadow: Answer | NoAnswer | Drop) -> Exchange:
        return Exchange(self.pair, self.revision, self.at, self.primary, shadow, self.ranking)

    def parts(self) -> list[bytes]:
        """Return what `read_copy` reads, in parts."""
        primary = self.primary
        head = [
            FORMAT,
            self.pair,
            self.revision,
            self.at,
            self.ranking,
            self.shard,
            self.address,
            self.path,
            _text(self.headers),
            primary.status,
            _text([each for each in primary.headers if each[0] in COMPARED_HEADERS]),
            primary.latency_ms,
            primary.is_rpc,
        ]
        described = _to_json(head).encode()
        return [_LENGTHS.pack(len(described), len(self.body)), described, self.body, primary.body]


def read_copy(data: bytes | memoryview) -> ShadowCopy:
    """Read what `ShadowCopy.parts` wrote.

    Raises:
        EventError: it is something else, or of another format.
    """
    try:
        head_bytes, body_bytes = _LENGTHS.unpack_from(data)
        start = _LENGTHS.size + head_bytes
        form, *head = json.loads(bytes(data[_LENGTHS.size : start]))
        if form != FORMAT or len(data) < start + body_bytes:
            raise ValueError("format or length")
        pair, revision, at, ranking, shard, (host, port), path, headers, status, answered, latency_ms, is_rpc = head
        body, primary_body = bytes(data[start : start + body_bytes]), bytes(data[start + body_bytes :])
        return ShadowCopy(
            Pair(*map(str, pair)),
            str(revision),
            float(at),
            None if ranking is None else Ranking(*ranking),
            str(shard),
            (str(host), int(port)),
            str(path),
            _bytes(headers),
            body,
            Answer(int(status), _bytes(answered), primary_body, float(latency_ms), is_rpc is True),
        )
    except (ValueError, TypeError, struct.error, RecursionError) as error:
        raise EventError(f"the copy of a request for a shadow cannot be read: {type(error).__name__}") from error


def _text(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _bytes(headers: list[list[str]]) -> list[tuple[bytes, bytes]]:
    # JSON has lists for tuples.
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
