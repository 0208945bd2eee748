"""The pointer through an HTTP cache: tens of thousands of gateways that poll one object would exceed S3's rate for a prefix, and
cost more than they must.

The answers are those of `PointerCache`, or S3's own object through any cache that keeps its `ETag` and says how old it is by the
header `Age` (RFC 9111). Bundles are read from S3, with credentials: so a server that can answer in the cache's place can at most name
another revision that was published.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from tidegate.aws.formats import decode_pointer, encode_pointer
from tidegate.aws.gateway_stores import WireBundleSource
from tidegate.aws.wire import Unsigned, Wire, WireResponse
from tidegate.errors import StoreError
from tidegate.ports import BundleSource, LiveEntry, Pointer

TIMEOUT_S = 0.5
"""How long the cache may take: it is near, and S3 is asked after it."""

AVOIDED_S = 10.0
"""How long a cache that failed is not asked again."""


class CachedBundleSource:
    """A `BundleSource` that reads the pointer from an HTTP cache, and from `stored` where the cache fails or is older than `most_s`
    seconds.

    Two caches need not agree, and rules must not go back and forth: while an answer is older than the last one can be, what is
    known stays. A pointer that really went back, as after a restore, is read from `stored`.
    """

    def __init__(
        self, stored: WireBundleSource, url: str, most_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        parts = urlsplit(url)
        self._stored = stored
        self._wire = Wire(f"{parts.scheme}://{parts.netloc}", Unsigned(), TIMEOUT_S)
        self._path = parts.path or "/"
        self._most_s = most_s
        self._clock = clock
        self._avoided_until = -math.inf
        self._first_read = ("", -math.inf)

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        return await asyncio.to_thread(self.read_pointer, known)

    async def bundle(self, revision: str) -> bytes:
        return await self._stored.bundle(revision)

    def read_pointer(self, known: Pointer | None = None) -> Pointer | None:
        asked_at = self._clock()
        found = self._cached(known)
        if found is not None and known is not None and found.live.sequence < known.live.sequence:
            # The cache read it before `known` became live, so nothing newer was live then either.
            is_behind = known.tag == self._first_read[0] and asked_at - found.age_s <= self._first_read[1]
            found = replace(known, age_s=found.age_s) if is_behind else None
        if found is None:
            found = self._stored.read_pointer(known)
        if found is not None and found.tag != self._first_read[0]:
            self._first_read = (found.tag, self._clock())
        return found

    def _cached(self, known: Pointer | None) -> Pointer | None:
        """Ask the cache. Return None if the store must be asked."""
        if self._clock() < self._avoided_until:
            return None
        try:
            response = self._wire.send("GET", self._path, headers={} if known is None else {"if-none-match": known.tag})
            age_s = self._age_s(response)
            if age_s > self._most_s:
                return None
            if response.status == 304 and known is not None:
                return replace(known, age_s=age_s)
            if response.status != 200:
                raise StoreError(f"the cache of the pointer answered {response.status}")
            return replace(decode_pointer(response.body, response.headers["etag"]), age_s=age_s)
        except (StoreError, KeyError, ValueError):
            self._avoided_until = self._clock() + AVOIDED_S
            return None

    def _age_s(self, response: WireResponse) -> float:
        age = response.headers.get("age")
        if age is None:
            return self._most_s
        if not age.isdecimal():
            raise ValueError("a malformed Age")
        return float(age)


class PointerCache:
    """Keeps the pointer for those that read it from here: however many ask, the store is asked once in `kept_s`, and only if
    somebody asks. A failure is kept as long: what fails, or hangs, is not asked by each of them."""

    def __init__(self, source: BundleSource, kept_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._kept_s = kept_s
        self._clock = clock
        self._pointer: Pointer | None = None
        self._read_at = self._until = -math.inf
        self._failure: str | None = None
        self._asking: asyncio.Task[None] | None = None

    async def read(self) -> tuple[Pointer | None, float]:
        """Return the pointer, and its age in seconds. Raises `StoreError`: the store did not answer, and what is kept is too old."""
        if self._asking is None and self._clock() >= self._until:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            # Shielded: others wait for it, too.
            await asyncio.shield(self._asking)
        if self._failure is not None:
            raise StoreError(self._failure)
        return self._pointer, self._clock() - self._read_at

    async def _ask(self) -> None:
        began_at = self._clock()
        try:
            self._pointer = await self._source.pointer(self._pointer)
            self._read_at, self._until, self._failure = began_at, began_at + self._kept_s, None
        except StoreError as error:
            # Counted from its end: a time-out takes longer than `kept_s`.
            self._until, self._failure = self._clock() + self._kept_s, str(error)
        finally:
            self._asking = None

    async def reply(self) -> tuple[bytes, dict[str, str]] | None:
        """Return body and headers of an answer with what gateways read of a pointer: the live revision, and when it became so, but
        not who published it and why. None: there is no pointer. Raises `StoreError` as `read`."""
        pointer, age_s = await self.read()
        if pointer is None:
            return None
        headers = {
            "ETag": pointer.tag,
            "Age": str(math.ceil(age_s)),
            "Cache-Control": f"max-age={math.ceil(self._kept_s)}",
        }
        live = LiveEntry(pointer.live.revision, pointer.live.sequence, "", pointer.live.at)
        return encode_pointer(Pointer((live,), pointer.tag)), headers
