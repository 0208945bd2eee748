"""Facts about members, or whatever else has a key, from a DynamoDB table: read in batches, cached, within a time-out.

A fact is an item whose partition key `pk` is its key, whose sort key `sk` is the name of its set, and whose attribute
`value` is JSON text. `tidegate facts seed` writes such items.

What cannot be read in time is answered without: with the last value that was read, however old, else as if there were
no such fact. That is counted (`Found.stale`, `Found.degraded`) and never an error, since a worse answer beats none.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from facts_config import CONNECTIONS, FactsConfig

Value = TypeVar("Value")

MAX_KEYS = 100
"""The most keys of one BatchGetItem."""

MAX_KEY_BYTES = 2048
RETRY_DELAY_S = 0.002
FAILURES_TO_PAUSE = 3
PAUSE_S = 1.0
"""After so many failures in a row nothing is read for so long: an outage must not cost every request its time-out."""


@dataclass(frozen=True)
class Found(Generic[Value]):
    """What a look-up found.

    Attributes:
        values: the value of each key that has a fact.
        cached: how many keys were answered from the cache, be it that they have no fact.
        read: how many have a fact that was read now,
        absent: how many have none, read now,
        stale: how many could not be read and have an old value,
        degraded: how many could not be read and are answered as if they had no fact.
        reason: why not all could be read, without any key.
    """

    values: Mapping[bytes, Value]
    cached: int = 0
    read: int = 0
    absent: int = 0
    stale: int = 0
    degraded: int = 0
    reason: str = ""


class Facts(Generic[Value]):
    """Looks facts up; for one thread.

    Args:
        config: see `FactsConfig`.
        client: a boto3 client of DynamoDB, see `dynamodb`.
        decode: makes a value of a fact's JSON text; a ValueError makes the fact count as unreadable.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        config: FactsConfig,
        client: Any,
        decode: Callable[[str], Value],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._client = client
        self._decode = decode
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Value | None]] = OrderedDict()
        self._pool = ThreadPoolExecutor(CONNECTIONS, "facts")
        self._failures = 0
        self._paused_until = clock()

    def warm_up(self, patient: Any) -> str:
        """Read a key that nobody has, so that the first request finds credentials and a connection.

        The first read is by `patient`, a client with a longer time-out, as fetching credentials may take a while. Says
        what went wrong with it, or nothing.
        """
        problem = ""
        for client in (patient, self._client):
            try:
                self._read(client, [b"-"], self._clock())
            except Exception as error:  # noqa: BLE001  # whatever it is, requests are answered without
                problem = problem or kind_of(error)
        return problem

    def find(self, keys: Iterable[bytes]) -> Found[Value]:
        """Look keys up, together and within the time-out. A key that no table can have has no fact."""
        now = self._clock()
        values: dict[bytes, Value] = {}
        wanted: list[bytes] = []
        cached = absent = 0
        for key in dict.fromkeys(keys):
            expires, value = self._cache.get(key, (now, None))
            if not _is_possible(key):
                absent += 1
            elif expires <= now:
                wanted.append(key)
            else:
                self._cache.move_to_end(key)
                cached += 1
                if value is not None:
                    values[key] = value
        if not wanted:
            return Found(values, cached, 0, absent)
        answers, reason = self._fetch(wanted) if now >= self._paused_until else ({}, "paused after failures")
        present = {key: value for key, value in answers.items() if value is not None}
        left = [key for key in wanted if key not in answers]
        stale = {key: old for key in left if (old := self._cache.get(key, (now, None))[1]) is not None}
        self._keep(answers)
        return Found(
            values | present | stale,
            cached,
            len(present),
            absent + len(answers) - len(present),
            len(stale),
            len(left) - len(stale),
            reason,
        )

    def close(self) -> None:
        """End the threads; what they still wait for is bounded by the time-out."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Value | None], str]:
        """The values of the keys that were answered in time (None: there is no such fact), and why not all were."""
        deadline = self._clock() + self._config.timeout_ms / 1000
        chunks = [keys[first : first + MAX_KEYS] for first in range(0, len(keys), MAX_KEYS)]
        futures = [self._pool.submit(self._read, self._client, chunk, deadline) for chunk in chunks]
        done, late = wait(futures, self._config.timeout_ms / 1000)
        for future in late:
            future.cancel()
        answers: dict[bytes, Value | None] = {}
        malformed = 0
        for future in done:
            if future.exception() is None:
                found, wrong = future.result()
                answers |= found
                malformed += wrong
        failed = [future for future in futures if future in late or future.exception() is not None]
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= FAILURES_TO_PAUSE:
            self._paused_until = self._clock() + PAUSE_S
        reason = _reason(failed) if failed else ""
        if not reason and len(answers) < len(keys):
            reason = f"{malformed} malformed" if malformed else "DynamoDB gave keys back until the time was over"
        return answers, reason

    def _read(self, client: Any, keys: Sequence[bytes], deadline: float) -> tuple[dict[bytes, Value | None], int]:
        """Read up to 100 keys, and again what DynamoDB gives back; keys that stay unanswered are left out."""
        answers: dict[bytes, Value | None] = {}
        malformed = 0
        left = [{"pk": {"S": key.decode()}, "sk": {"S": self._config.name}} for key in keys]
        delay = RETRY_DELAY_S
        table = self._config.table
        request = {"ProjectionExpression": "pk, #value", "ExpressionAttributeNames": {"#value": "value"}}
        while left:
            answer = client.batch_get_item(RequestItems={table: {"Keys": left, **request}})
            asked = {key["pk"]["S"].encode() for key in left}
            left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            absent = asked - {key["pk"]["S"].encode() for key in left}
            for item in answer["Responses"].get(table, []):
                key = item["pk"]["S"].encode()
                absent.discard(key)
                try:
                    answers[key] = self._decode(item["value"]["S"])
                except (ValueError, KeyError, RecursionError):
                    malformed += 1
            answers |= dict.fromkeys(absent)
            if left and self._clock() + delay >= deadline:
                break
            if left:
                time.sleep(delay)
                delay *= 2
        return answers, malformed

    def _keep(self, answers: Mapping[bytes, Value | None]) -> None:
        expires = self._clock() + self._config.cache_ttl_s
        for key, value in answers.items():
            self._cache[key] = (expires, value)
            self._cache.move_to_end(key)
        while len(self._cache) > self._config.cache_size:
            self._cache.popitem(last=False)


def _is_possible(key: bytes) -> bool:
    """Whether an item could have this key; DynamoDB refuses a whole batch for one that could not."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        return False
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def kind_of(error: BaseException) -> str:
    """What kind of error it is; its message may hold keys, and so is not told."""
    # botocore's connection errors have the attribute too, and None in it.
    response = getattr(error, "response", None) or {}
    code = response.get("Error", {}).get("Code", "")
    return str(code or type(error).__name__)


def _reason(failed: Sequence[Future[Any]]) -> str:
    kinds = set()
    for future in failed:
        error = future.exception() if future.done() and not future.cancelled() else None
        kinds.add("no answer in time" if error is None else kind_of(error))
    return ", ".join(sorted(kinds))
