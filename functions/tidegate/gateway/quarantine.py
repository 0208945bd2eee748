"""Quarantine of requests that end servers: one that has ended two is refused for a while."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from tidegate.gateway.call import Call
from tidegate.ports import Endpoint

STRIKES: Final = 2
_MOST_KEPT: Final = 1024
_HASHED_BYTES: Final = 65_536
_SAME_END_S: Final = 1.0


@dataclass(slots=True)
class _Record:
    last_at: dict[Endpoint, float] = field(default_factory=dict)
    strikes: int = 0
    until_s: float = 0.0


class Quarantine:
    """Remembers, by digest, the requests that were in flight when a server ended.

    A request that is answered is cleared, so common requests are not refused for having been in flight by chance.

    Args:
        refused_s: how long a request is refused (at least 0).
    """

    def __init__(self, refused_s: float) -> None:
        self._refused_s = refused_s
        self._records: dict[bytes, _Record] = {}
        self._until_s = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no request is suspected, which is nearly always so."""
        return not self._records

    def refuses(self, objective: str, call: Call, now_s: float) -> bool:
        """Return whether a request has ended two servers lately."""
        if now_s >= self._until_s:
            # Without this, every request would be hashed after the first suspicion.
            self._records.clear()
            return False
        record = self._records.get(digest(objective, call))
        return record is not None and record.strikes >= STRIKES and now_s < record.until_s

    def strike(self, objective: str, call: Call, endpoint: Endpoint, now_s: float) -> bool:
        """Record that a server, or a model's process, ended with this request; return whether it is refused from now on."""
        key = digest(objective, call)
        record = self._records.get(key)
        if record is None or now_s >= record.until_s:
            self._tidy(now_s)
            record = self._records[key] = _Record()
        last_at_s = record.last_at.get(endpoint)
        record.last_at[endpoint] = now_s
        record.until_s = self._until_s = now_s + self._refused_s
        if last_at_s is None or now_s - last_at_s >= _SAME_END_S:
            record.strikes += 1
        return record.strikes >= STRIKES

    def clear(self, objective: str, call: Call) -> None:
        """Clear a request of suspicion, as it was answered."""
        self._records.pop(digest(objective, call), None)

    def _tidy(self, now_s: float) -> None:
        self._records = {key: each for key, each in self._records.items() if now_s < each.until_s}
        while len(self._records) >= _MOST_KEPT:
            del self._records[next(iter(self._records))]


def digest(objective: str, call: Call) -> bytes:
    """Return a digest of a request and its objective: a request that ends one model may be harmless to another.

    Of a large body only both ends and the length are hashed, to save time.
    """
    body = call.body
    what = f"{objective}\n{call.method} {call.suffix} {len(body)} {call.rest_bytes}\n"
    sha = hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16)
    if len(body) <= 2 * _HASHED_BYTES:
        sha.update(body)
    else:
        sha.update(body[:_HASHED_BYTES])
        sha.update(body[-_HASHED_BYTES:])
    return sha.digest()
