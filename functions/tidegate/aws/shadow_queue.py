"""Sends copies for shadows to a queue, without boto3: in a function nothing runs after the answer.

A copy that is too large for a message is an object in the bucket, which the message names.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.aws.layout import SHADOW_COPIES
from tidegate.aws.wire import Wire
from tidegate.errors import EventError, StoreError
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, dropped
from tidegate.shadows.exchange import Pair

MOST_MESSAGE_BYTES = 200_000
"""The largest message that holds its copy, in base64; SQS takes 262,144 bytes."""

BATCH_SPARE_MS = 5_000
"""Time that a batch of the function `shadow` leaves for storing its tallies."""

_PAUSE_S = 5.0


class ShadowQueue:
    """A `tidegate.ports.ShadowSink`: takes the copies of one request, which `flush` sends.

    Args:
        queue: SQS.
        queue_url: the queue.
        store: S3.
        bucket: the bucket of large copies.
        clock: seconds that never run backwards.
    """

    def __init__(
        self, queue: Wire, queue_url: str, store: Wire, bucket: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._queue_url = queue_url
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._waiting: list[ShadowCopy] = []
        self._paused_until_s = 0.0

    def refusal(self, pair: Pair) -> Drop | None:  # noqa: ARG002  # the Protocol's
        return Drop.UNREACHABLE if self._clock() < self._paused_until_s else None

    def offer(self, copy: ShadowCopy) -> Drop | None:
        self._waiting.append(copy)
        return None

    def flush(self) -> Counter[str]:
        """Send the copies that wait, and count those that the queue took and those that were dropped. Raises nothing.

        After a failure, copies are dropped for 5 s, so that a queue that does not answer holds up few answers.
        """
        counts: Counter[str] = Counter()
        waiting, self._waiting = self._waiting, []
        for position, copy in enumerate(waiting):
            counts["tried"] += 1
            try:
                self._send(copy)
            except StoreError:
                self._paused_until_s = self._clock() + _PAUSE_S
                counts[dropped(Drop.UNREACHABLE)] += len(waiting) - position
                break
            counts["queued"] += 1
        return counts

    def _send(self, copy: ShadowCopy) -> None:
        data = b"".join(copy.parts())
        if len(data) > MOST_MESSAGE_BYTES // 4 * 3:
            key = f"{SHADOW_COPIES}{os.urandom(16).hex()}"
            _check(self._store.send("PUT", f"/{self._bucket}/{key}", body=data).status, "S3")
            message = {"object": key}
        else:
            message = {"copy": b64encode(data).decode()}
        body = json.dumps({"QueueUrl": self._queue_url, "MessageBody": json.dumps(message)}).encode()
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.SendMessage"}
        _check(self._queue.send("POST", "/", headers=headers, body=body, is_idempotent=False).status, "SQS")


def copy_in(message: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of the copy that a message holds, or None if it names an object: see `object_in`.

    Raises:
        EventError: the message is neither.
    """
    text = message.get("copy")
    if text is None:
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
