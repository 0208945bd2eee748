"""Requests that end servers: one that has ended two is refused for a while."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tidegate.dispatch.call import Call
from tidegate.ports import Endpoint

STRIKES = 2
_MOST_KEPT = 1024
_HASHED_BYTES = 65_536
_SAME_END_S = 1.0


@dataclass(slots=True)
class _Record:
    last_at: dict[Endpoint, float] = field(default_factory=dict)
    strikes: int = 0
    until_s: float = 0.0


class Quarantine:
    """Remembers, by digest, the requests that were under way when a server ended.

    Whoever was answered meanwhile is no suspect, so what everybody sends is not refused for having been there.

    Args:
        refused_s: how long a request is refused (at least 0).
    """

    def __init__(self, refused_s: float) -> None:
        self._refused_s = refused_s
        self._records: dict[bytes, _Record] = {}
        self._until_s = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no request is suspected, as nearly always."""
        return not self._records

    def refuses(self, objective: str, call: Call, now_s: float) -> bool:
        """Whether a request has ended two servers lately."""
        if now_s >= self._until_s:
            # Else every request would be hashed from the first suspicion on.
            self._records.clear()
            return False
        record = self._records.get(digest(objective, call))
        return record is not None and record.strikes >= STRIKES and now_s < record.until_s

    def strike(self, objective: str, call: Call, endpoint: Endpoint, now_s: float) -> bool:
        """A server, or the process of a model, ended while it had this request; whether it is refused from now on."""
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
        """A request was answered, so it ends no servers."""
        self._records.pop(digest(objective, call), None)

    def _tidy(self, now_s: float) -> None:
        self._records = {key: each for key, each in self._records.items() if now_s < each.until_s}
        while len(self._records) >= _MOST_KEPT:
            del self._records[next(iter(self._records))]


def digest(objective: str, call: Call) -> bytes:
    """Stands for a request's bytes and its objective: what ends one model is harmless to another.

    Of a large body only the ends and the length are read, so that it costs no time.
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
