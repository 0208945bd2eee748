"""What `/authorize` answers, for a proxy that runs this code itself: a decision without a request for it."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Awaitable
from typing import Final

from tidegate.errors import StoreError
from tidegate.gateway.quotas import Lease
from tidegate.ports import CountRequest
from tidegate.rules import Engine
from tidegate.web.authorize import PREFIX, Authorization
from tidegate.web.http import LEASE, Scope
from tidegate.web.routes import route_of

Headers = list[tuple[bytes, bytes]]
Told = tuple[Headers, Headers, bytes | None]
"""What the proxy sets in the request, what it sets in the answer, and the plan."""

FRESH_S: Final = 2.0
"""How old a look at the live rules may be: far less than a publish waits before the models of the rules before are unloaded."""

_TARGET: Final = re.compile(rb"(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)(?:\?([!-~]*))?")
"""A request target that means the same to every reader: nothing in its path is escaped."""

_NEAR_BYTES: Final = 256
_NEAR_HEADERS: Final = 16
"""What of a head a proxy may add to its question, at most."""

_METHODS: Final = {b"GET": "GET", b"POST": "POST"}
_MOST_KEPT: Final = 4096
_LONGEST_KEPT: Final = 256


class HeadLimits:
    """The limits of a head, as resolvers' listeners have them. A head that is near one is theirs to judge.

    Args:
        most_bytes: the request line and all headers together.
        most_headers: how many headers there are.
        most_target_bytes: the path and the query.
    """

    def __init__(self, most_bytes: int, most_headers: int, most_target_bytes: int) -> None:
        self.most_bytes: Final = most_bytes - _NEAR_BYTES
        self.most_headers: Final = most_headers - _NEAR_HEADERS
        self.most_target_bytes: Final = most_target_bytes - _NEAR_BYTES


class LiveEngine:
    """The rules that the proxy decides by (an `EngineSource`), which another thread sets."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._seen_s = -math.inf

    def seen(self, engine: Engine) -> None:
        """Take the rules that are live now."""
        self._engine = engine
        self._seen_s = time.monotonic()

    def forget(self) -> None:
        """Decide nothing until rules are seen again."""
        self._seen_s = -math.inf

    def is_recent(self) -> bool:
        """Return whether the rules were live lately."""
        return time.monotonic() - self._seen_s <= FRESH_S

    def engine(self) -> Engine:
        """Return the rules.

        Raises:
            StoreError: there are none yet.
        """
        if self._engine is None:
            raise StoreError("no rules have been read yet")
        return self._engine

    def catching_up(self) -> Awaitable[None] | None:
        """Return None: no request waits for other rules."""
        return None


class _Target:
    """A request target."""

    def __init__(self, path: str, query: bytes) -> None:
        self.path: Final = path
        self.authorized: Final = PREFIX + path
        self.raw: Final = self.authorized.encode()
        self.query: Final = query
        self.route: Final = route_of(self.authorized)


class InProcess:
    """Decides requests in any of the proxy's threads, one at a time.

    Args:
        authorization: decides by `engines`; no other thread may use it.
        engines: the rules.
        limits: which heads are not judged here.
        count: counts each decided request.
    """

    def __init__(
        self, authorization: Authorization, engines: LiveEngine, limits: HeadLimits, count: CountRequest
    ) -> None:
        self._authorization = authorization
        self._limits = limits
        self._engines = engines
        self._count = count
        self._targets: dict[bytes, _Target] = {}
        self.lock: Final = threading.Lock()
        """Held while a request is decided and counted."""

    def decide(self, method: bytes, target: bytes, headers: Headers, head_bytes: int) -> Told | None:
        """Decide a request.

        Args:
            method: its method.
            target: its path and query, as they were sent.
            headers: its headers, names in lower case, with `host`.
            head_bytes: the size of its whole head.

        Returns:
            What the proxy sets for a request that may pass; None for any other, which a resolver is to be asked about. That one
            refuses it, or knows more. Nothing is counted for it here.
        """
        name, limits = _METHODS.get(method), self._limits
        if name is None or head_bytes > limits.most_bytes or len(headers) > limits.most_headers:
            return None
        if len(target) > limits.most_target_bytes or not self._engines.is_recent():
            return None
        began_s = time.perf_counter()
        with self.lock:
            asked = self._target(target)
            if asked is None:
                return None
            scope: Scope = {
                "type": "http",
                "method": name,
                "path": asked.authorized,
                "raw_path": asked.raw,
                "query_string": asked.query,
                "headers": headers,
                LEASE: Lease(),
            }
            try:
                found = self._authorization.directions(scope, asked.path)
            except Exception:  # noqa: BLE001  # the resolver that is asked finds it too, and answers it
                return None
            self._count(name, asked.route, 200, time.perf_counter() - began_s)
        kept = found.kept
        return [*kept.to_server, *found.own], kept.to_caller, kept.plan

    def _target(self, target: bytes) -> _Target | None:
        known = self._targets.get(target)
        if known is not None:
            return known
        parts = _TARGET.fullmatch(target)
        if parts is None:
            return None
        found = _Target(parts[1].decode("ascii"), parts[2] or b"")
        if len(target) <= _LONGEST_KEPT:
            if len(self._targets) >= _MOST_KEPT:
                self._targets.clear()
            self._targets[target] = found
        return found
