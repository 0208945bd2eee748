"""Sends copies for shadows to a queue, without boto3: in a function nothing runs after the answer.

A message holds a copy, or names the object in the bucket that holds one which is too large, and what the gateway counted of each
pair. Its `id` tells the function a message that was delivered twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidegate.aws.layout import SHADOW_COPIES
from tidegate.aws.wire import Wire
from tidegate.errors import EventError, StoreError
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, dropped
from tidegate.shadows.exchange import Pair
from tidegate.shadows.sampled import PairCounts

MOST_MESSAGE_BYTES = 200_000
"""The largest message that holds its copy, in base64; SQS takes 262,144 bytes."""

MOST_COUNT_BYTES = 40_000
"""The most counts, in bytes of JSON, that a message has beside its copy; more have a message of their own."""

COUNTS_EVERY_S = 10.0
"""How long counts wait for a copy to go with."""

BATCH_SPARE_MS = 5_000
"""Time that a batch of the function `shadow` leaves for storing its tallies."""

_PAUSE_S = 5.0
_ID = re.compile(r"[0-9a-f]{32}")


class ShadowQueue:
    """A `tidegate.ports.ShadowSink`: takes the copies of one request, which `flush` sends.

    Args:
        queue: SQS.
        queue_url: the queue.
        store: S3.
        bucket: the bucket of large copies.
        clock: seconds that never run backwards.
    """

    takes_rpcs = False

    def __init__(
        self, queue: Wire, queue_url: str, store: Wire, bucket: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._queue_url = queue_url
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._waiting: list[ShadowCopy] = []
        self._held = PairCounts()
        self._held_until_s: float | None = None
        self._paused_until_s = 0.0

    def refusal(self, pair: Pair) -> Drop | None:  # noqa: ARG002  # the Protocol's
        return Drop.UNREACHABLE if self._clock() < self._paused_until_s else None

    def offer(self, copy: ShadowCopy) -> Drop | None:
        self._waiting.append(copy)
        return None

    def flush(self, counted: PairCounts) -> Counter[str]:
        """Send the copies that wait, with what was counted; see `send`."""
        waiting, self._waiting = self._waiting, []
        return self.send(waiting, counted.take())

    def send(self, copies: Sequence[ShadowCopy], counted: list[Any]) -> Counter[str]:
        """Send copies, and count those that the queue took and those that were dropped. Raises nothing.

        What was counted of each pair, the records of `PairCounts.take`, goes with the first copy; without one it waits for at most
        `COUNTS_EVERY_S`. After a failure, copies are dropped for 5 s, so that a queue that does not answer holds up few answers,
        and counts wait.
        """
        counts: Counter[str] = Counter()
        self._held.merge(counted)
        for position, copy in enumerate(copies):
            counts["tried"] += 1
            try:
                self._send_copy(copy)
            except StoreError:
                self._pause()
                counts[dropped(Drop.UNREACHABLE)] += len(copies) - position
                for each in copies[position:]:
                    self._held.add(each.pair, each.revision, each.at, dropped(Drop.UNREACHABLE))
                break
            counts["queued"] += 1
        self._send_due_counts()
        return counts

    def send_counts(self) -> None:
        """Send what was counted and is not sent yet. Raises nothing: where it cannot be sent, it is kept."""
        try:
            self._send_counts()
        except StoreError:
            self._pause()

    def _pause(self) -> None:
        self._paused_until_s = self._clock() + _PAUSE_S

    def _send_due_counts(self) -> None:
        now_s = self._clock()
        if not self._held:
            self._held_until_s = None
        elif self._held_until_s is None:
            self._held_until_s = now_s + COUNTS_EVERY_S
        elif now_s >= max(self._held_until_s, self._paused_until_s):
            self.send_counts()
            self._held_until_s = now_s if self._held else None

    def _send_counts(self, message: Mapping[str, Any] | None = None, group: str | None = None) -> None:
        """Send what is held with `message`, or without one alone."""
        records = self._held.take()
        try:
            if message is not None and len(json.dumps(records)) > MOST_COUNT_BYTES:
                self._send({"counts": records})
                records = []
            if message is not None or records:
                self._send({**(message or {}), **({"counts": records} if records else {})}, group)
        except StoreError:
            self._held.merge(records)
            raise

    def _send_copy(self, copy: ShadowCopy) -> None:
        data = b"".join(copy.parts())
        if len(data) > MOST_MESSAGE_BYTES // 4 * 3:
            key = f"{SHADOW_COPIES}{os.urandom(16).hex()}"
            _check(self._store.send("PUT", f"/{self._bucket}/{key}", body=data).status, "S3")
            message = {"object": key}
        else:
            message = {"copy": b64encode(data).decode()}
        self._send_counts(message, copy.pair.shadow_model)

    def _send(self, message: Mapping[str, Any], group: str | None = None) -> None:
        text = json.dumps({"id": os.urandom(16).hex(), **message})
        request = {"QueueUrl": self._queue_url, "MessageBody": text}
        if group is not None:
            # SQS delivers the copies of other shadows first while those of one take most of the function's time.
            # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
            request["MessageGroupId"] = hashlib.sha256(group.encode()).hexdigest()
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.SendMessage"}
        body = json.dumps(request).encode()
        _check(self._queue.send("POST", "/", headers=headers, body=body, is_idempotent=False).status, "SQS")


def id_in(message: Mapping[str, Any]) -> str:
    """Return the id of a message. Raises `EventError`: it has none."""
    found = message.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise EventError("the message must have an 'id' of 32 hexadecimal digits")
    return found


def copy_in(message: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of the copy that a message holds, or None if it names an object, see `object_in`, or has only counts.

    Raises:
        EventError: the message is neither.
    """
    text = message.get("copy")
    if text is None:
        if "counts" not in message or "object" in message:
            object_in(message)
        return None
    try:
        return b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise EventError("the member 'copy' of the message must be base64") from error


def object_in(message: Mapping[str, Any]) -> str:
    """Return the key of the object that a message names. Raises `EventError`: it names none."""
    key = message.get("object")
    if not isinstance(key, str) or not key.startswith(SHADOW_COPIES):
        raise EventError(f"the message must hold a 'copy', or name an 'object' below {SHADOW_COPIES}")
    return key


def _check(status: int, service: str) -> None:
    if status != 200:
        raise StoreError(f"{service} refused a copy for a shadow with {status}")
