"""The live rules in this process: a bundle that is polled while decisions are made, and kept on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tidegate.client.answers import checked
from tidegate.client.config import ClientConfig, Protocol, check_address
from tidegate.client.exchange import Ask, Reply, Request
from tidegate.errors import BundleError, EndpointError, Refusal, RefusedError, SettingsError, StoreError, TidegateError
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import MAX_BYTES, short_revision
from tidegate.rules.decision import Decision

POLL_TIMEOUT_S: Final = 10.0
LONGEST_PAUSE_S: Final = 30.0
"""The longest time between two polls of a gateway that does not answer."""

LATE_S: Final = 0.5
"""How much older than the poll interval rules may be before a decision waits for a poll: time for a regular one."""

_JITTER: Final = 0.1

logger = logging.getLogger("tidegate.client")

Places = Mapping[str, Sequence[str]]


class LiveRules:
    """The engine of the live bundle, and the addresses of the shards.

    Nothing runs by itself: the client that decides calls `is_due` and has `poll` carried out. Polls of many processes spread by jitter, and
    get rarer while the gateway does not answer; the last good rules serve meanwhile.

    Attributes:
        engine: that of the last good bundle; None before the first.
        decide: the engine's method, where nothing else is to be checked: no caller's grant, no age; else None.
        next_poll_s: when the next poll is due, by the monotonic clock.
        places: addresses by shard, if the gateway says them.
    """

    def __init__(self, url: str, config: ClientConfig) -> None:
        self.engine: Engine | None = None
        self.decide: Callable[[str, Mapping[str, Any]], Decision] | None = None
        self.next_poll_s = 0.0
        self.places: Places = {}
        self._url, self._config = url, config
        self._headers = gateway_headers(config)
        self._asks_places = config.shards is None and config.proxy is None
        self._tags: dict[str, str] = {}
        self._known_at: float | None = None
        self._failures = 0
        self._early_s = -math.inf
        self._error: TidegateError | None = None
        self._file = _file_of(url, config)

    @property
    def age_s(self) -> float | None:
        """Seconds since the rules were last known to be live; None before the first ones."""
        return None if self._known_at is None else max(0.0, time.time() - self._known_at)

    @property
    def is_late(self) -> bool:
        """Whether the rules are older than polls make them, so that a decision waits for one for a moment."""
        age_s = self.age_s
        return self._failures == 0 and (age_s is None or age_s > self._config.poll_s + LATE_S)

    def usable(self) -> Engine:
        """Return the engine to decide by.

        Raises:
            StoreError: there are no rules, or they are older than `max_age_s`.
            RefusedError: there are none, as the caller may not read them.
        """
        most_s, age_s = self._config.max_age_s, self.age_s
        if self.engine is None:
            raise self._error or StoreError(f"{self._url} has not given the rules yet")
        if most_s is not None and (age_s is None or age_s > most_s):
            why = f": {self._error}" if self._error else ""
            raise StoreError(
                f"the rules were last known to be live {age_s or 0:.0f} s ago, and max_age_s is {most_s:g}{why}"
            )
        return self.engine

    def load(self) -> None:
        """Load the last good bundle from disk, if there is one. It was checked before it was written, and is checked again."""
        if self._file is None or self.engine is not None:
            return
        try:
            data = self._file.read_bytes()
            known_at = self._file.stat().st_mtime
            engine = load_bundle(data)
        except FileNotFoundError:
            return
        except (OSError, BundleError) as error:
            logger.warning("the kept bundle %s is not used: %s", self._file, error)
            return
        self._use(engine)
        self._known_at = known_at
        self._tags["/v1/bundle"] = f'"{engine.revision}-gzip"'
        with contextlib.suppress(OSError, ValueError):
            self.places = _places_of(self._file.with_suffix(".json").read_bytes(), self._config.protocol)

    def hurry(self) -> None:
        """Make a poll due now: at most one in `poll_s`, and none while the gateway fails, as it would be asked for each request that
        fails otherwise."""
        now_s = time.monotonic()
        if not self._failures and now_s >= self._early_s:
            self._early_s = now_s + self._config.poll_s
            self.next_poll_s = 0.0

    def poll(self) -> Generator[Ask, Reply, None]:
        """Steps: ask for what has changed. Raises nothing: what fails is kept for `usable`."""
        asked_at = time.time()
        try:
            # Places first: rules must not name shards that are unknown.
            if self._asks_places and (found := (yield from self._changed("/v1/shards"))) is not None:
                body, tag = found
                self.places = _places_of(body, self._config.protocol)
                self._tags["/v1/shards"] = tag
                self._keep(".json", body)
            if (found := (yield from self._changed("/v1/bundle"))) is not None:
                data, tag = found
                self._swap(data, tag)
                self._tags["/v1/bundle"] = tag
                self._keep(".bundle", data)
        except (TidegateError, ValueError) as error:
            self._failures += 1
            self._error = error if isinstance(error, TidegateError) else StoreError(f"{self._url} answers {error}")
            if isinstance(error, EndpointError):
                self._error = StoreError(f"the rules cannot be read: {error}")
            if self._failures == 1:
                logger.warning("the rules cannot be followed: %s", self._error)
        else:
            if self._failures:
                logger.info("the rules can be followed again")
            self._failures, self._error, self._known_at = 0, None, asked_at
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.utime(self._file, (asked_at, asked_at))
        finally:
            self.next_poll_s = time.monotonic() + self._pause_s()

    def _pause_s(self) -> float:
        longest_s = max(self._config.poll_s, LONGEST_PAUSE_S)
        pause_s = min(longest_s, self._config.poll_s * float(2 ** min(self._failures, 16)))
        spread = 0.5 if self._failures else _JITTER
        return pause_s * random.uniform(1 - spread, 1 + _JITTER)  # noqa: S311  # no secret depends on it

    def _changed(self, path: str) -> Generator[Ask, Reply, tuple[bytes, str] | None]:
        """Return a body that is not the one of the last poll, and its tag; else None. Its tag is to be kept once it is used."""
        tag = self._tags.get(path)
        headers = [*self._headers, ("Accept-Encoding", "gzip"), *([("If-None-Match", tag)] if tag else [])]
        reply = yield Request(self._url, "GET", path, headers, timeout_s=POLL_TIMEOUT_S)
        if reply.status == 304 and tag:
            return None
        body = checked(reply, path)
        if reply.headers.get("content-encoding") == "gzip":
            body = _inflated(body)
        return body, reply.headers.get("etag", "")

    def _swap(self, data: bytes, tag: str) -> None:
        engine = load_bundle(data)
        # A proxy that compresses makes tags weak.
        if tag.removeprefix("W/").removesuffix('-gzip"').strip('"') != engine.revision:
            raise BundleError(f"{self._url} sent another bundle than its tag names")
        before = self.engine
        self._use(engine)
        if before is None or before.revision != engine.revision:
            logger.info("deciding by revision %s", short_revision(engine.revision))

    def _use(self, engine: Engine) -> None:
        self.engine = engine
        self.decide = engine.decide if engine.callers is None and self._config.max_age_s is None else None

    def _keep(self, suffix: str, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self._file.parent, delete=False) as draft:
                draft.write(data)
            Path(draft.name).replace(self._file.with_suffix(suffix))
        except OSError as error:
            logger.warning("the bundle cannot be kept in %s: %s", self._file.parent, error.strerror)


def gateway_headers(config: ClientConfig) -> list[tuple[str, str]]:
    """Return the headers of every request to the gateway."""
    own = [] if config.caller is None else [("Tidegate-Caller", config.caller)]
    return [*own, *(config.headers or {}).items()]


def check_grant(engine: Engine, caller: str | None, objective: str) -> None:
    """Check that the caller may use an objective, as the gateway does.

    Raises:
        RefusedError: it may not.
    """
    if engine.callers is None:
        return
    known = None if caller is None else engine.callers.get(caller)
    if known is None:
        what = (
            "the caller's name is missing"
            if caller is None
            else f"caller '{caller}' is not one of the callers in callers.yaml"
        )
        raise RefusedError(Refusal.NOT_GRANTED, what, caller=caller)
    if not known.may_use(objective):
        what = f"caller '{caller}' may not use '{objective}': `objectives` of the caller in callers.yaml lack it"
        raise RefusedError(Refusal.NOT_GRANTED, what, caller=caller, grant="objectives", objective=objective)


class ShardFile:
    """Addresses by shard from a JSON file, which is read again when it changes. Raises `SettingsError` where it cannot be read at first;
    later the last good ones stay."""

    _LOOK_S: Final = 1.0

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self._path, self._protocol = path, protocol
        self._looked_s, self._changed = 0.0, -1
        self._places: Places = {}
        self.places()

    def places(self) -> Places:
        """Return the addresses. Looks at the file once a second."""
        now_s = time.monotonic()
        if now_s < self._looked_s + self._LOOK_S and self._changed != -1:
            return self._places
        self._looked_s = now_s
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._places = _file_places(self._path.read_bytes(), self._protocol)
                self._changed = changed
        except (OSError, ValueError, SettingsError) as error:
            if self._changed == -1:
                raise SettingsError(
                    f'{self._path} cannot be read as a JSON object of lists of addresses by shard, such as {{"alpha": ["http://10.0.0.1:8000"]}}: {error}'
                ) from error
            logger.warning("%s is not read again: %s", self._path, error)
        return self._places


def _file_places(data: bytes, protocol: Protocol) -> Places:
    document = json.loads(data)
    if not isinstance(document, dict) or not all(
        isinstance(found, list) and all(isinstance(each, str) for each in found) for found in document.values()
    ):
        raise ValueError("it is not such an object")
    for found in document.values():
        for address in found:
            check_address(address, protocol)
    return document


def _places_of(body: bytes, protocol: Protocol) -> Places:
    """Return addresses by shard from an answer to `GET /v1/shards`. Raises `ValueError`."""
    member = "grpc" if protocol is Protocol.GRPC else "url"
    try:
        shards: Mapping[str, Sequence[Mapping[str, Any]]] = json.loads(body)["shards"]
        return {name: [str(each[member]) for each in found if each[member]] for name, found in shards.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no addresses of shards") from error


def _inflated(body: bytes) -> bytes:
    """Return a body that was compressed. Raises `BundleError`: it is not gzip, or inflates beyond the largest bundle."""
    inflating = zlib.decompressobj(wbits=31)
    try:
        data = inflating.decompress(body, MAX_BYTES)
    except zlib.error:
        raise BundleError("the gateway's answer is not gzip, as its headers say") from None
    if not inflating.eof:
        raise BundleError("the gateway's answer is cut off, or inflates beyond the largest bundle")
    return data


def _file_of(url: str, config: ClientConfig) -> Path | None:
    """Return the file of a bundle: one per gateway and caller, as grants differ."""
    if config.cache_dir is None:
        return None
    name = sha256(f"{url}\n{config.caller or ''}".encode()).hexdigest()[:24]
    return Path(config.cache_dir) / f"{name}.bundle"
