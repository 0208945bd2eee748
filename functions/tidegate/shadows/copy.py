"""A request on its way to a shadow, and the bytes of it that cross to the process or the function that sends it."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tidegate.errors import EventError
from tidegate.rules.contract import Ranking
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import COMPARED_HEADERS, Answer, Exchange, NoAnswer, Pair

FORMAT: Final = 3
_HEAD: Final = struct.Struct(">BIIIQddH")
"""The format; the bytes of the description, of both parts with headers, and of the body; the time, the latency and the status."""

_to_json: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":")).encode


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
        described = _described(
            self.pair, self.revision, self.ranking, self.shard, self.address, self.path, primary.is_rpc
        )
        headers = _packed(tuple(self.headers))
        answered = _packed(tuple([each for each in primary.headers if each[0] in COMPARED_HEADERS]))
        sizes = (len(described), len(headers), len(answered), len(self.body))
        head = _HEAD.pack(FORMAT, *sizes, self.at, primary.latency_ms, primary.status)
        return [head + described + headers + answered, self.body, primary.body]


def read_copy(data: bytes | memoryview) -> ShadowCopy:
    """Read what `ShadowCopy.parts` wrote.

    Raises:
        EventError: it is something else, or of another format.
    """
    try:
        form, *sizes, at, latency_ms, status = _HEAD.unpack_from(data)
        # Each part ends where the next one begins; the last is the rest.
        ends = list(itertools.accumulate(sizes, initial=_HEAD.size))
        if form != FORMAT or len(data) < ends[-1]:
            raise ValueError("format or length")
        described, headers, answered, body, primary_body = (
            bytes(data[start:end]) for start, end in itertools.pairwise([*ends, len(data)])
        )
        pair, revision, ranking, shard, (host, port), path, is_rpc = json.loads(described)
        return ShadowCopy(
            Pair(*map(str, pair)),
            str(revision),
            at,
            None if ranking is None else Ranking(*ranking),
            str(shard),
            (str(host), int(port)),
            str(path),
            _unpacked(headers),
            body,
            Answer(status, _unpacked(answered), primary_body, latency_ms, is_rpc is True),
        )
    except (ValueError, TypeError, struct.error, RecursionError) as error:
        raise EventError(f"the copy of a request for a shadow cannot be read: {type(error).__name__}") from error


@lru_cache(maxsize=1024)
def _described(
    pair: Pair,
    revision: str,
    ranking: Ranking | None,
    shard: str,
    address: tuple[str, int],
    path: str,
    is_rpc: bool,
) -> bytes:
    """Return what the copies of a pair have in common: encoding it takes longer than all else."""
    return _to_json([pair, revision, ranking, shard, address, path, is_rpc]).encode()


@lru_cache(maxsize=256)
def _packed(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the sizes of all names and values, and then these: they may have any bytes. Most copies of a pair have the same."""
    texts = [text for header in headers for text in header]
    return b"".join([struct.pack(f">H{len(texts)}I", len(texts), *map(len, texts)), *texts])


def _unpacked(data: bytes) -> list[tuple[bytes, bytes]]:
    (count,) = struct.unpack_from(">H", data)
    sizes = struct.unpack_from(f">{count}I", data, 2)
    ends = list(itertools.accumulate(sizes, initial=2 + 4 * count))
    if count % 2 or ends[-1] != len(data):
        raise ValueError("headers")
    texts = [data[start:end] for start, end in itertools.pairwise(ends)]
    return list(zip(texts[::2], texts[1::2], strict=True))
