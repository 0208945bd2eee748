"""The shadows' function: sends the copies of a batch of messages to their shadows, and compares the answers."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import is_from_queue
from tidegate.aws.objects import Objects
from tidegate.aws.shadow_queue import BATCH_SPARE_MS, copy_in, object_in
from tidegate.aws.shadow_tallies import S3ShadowTallies, TallyWriter
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.functions import shard_directory
from tidegate.errors import EventError, SettingsError
from tidegate.gateway.shadow_lanes import send_copy
from tidegate.metrics import Dimension, Metric
from tidegate.ports import EndpointDirectory, Transport
from tidegate.settings import Settings
from tidegate.shadows.copy import ShadowCopy, read_copy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, NoAnswer
from tidegate.shadows.tallies import Tallies

_OK = 200


@dataclass(frozen=True, slots=True)
class _Parts:
    function: EventFunction
    objects: Objects
    transport: Transport
    directory: EndpointDirectory
    writer: TallyWriter
    timeout_s: float


@functools.cache
def _wired() -> _Parts:
    settings = Settings.from_environment()
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must be set")
    objects = Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket)
    # A process that Lambda starts again has the same log stream, and does not know what the one before counted.
    name = f"{os.environ.get('AWS_LAMBDA_LOG_STREAM_NAME', 'environment')}-{os.urandom(8).hex()}"
    return _Parts(
        EventFunction("shadow", settings.log_level),
        objects,
        build_transport(settings),
        shard_directory(settings.shard_endpoints),
        TallyWriter(S3ShadowTallies(objects), name),
        settings.shadow_timeout_ms / 1000,
    )


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Send each copy of a batch once, and store the tallies.

    A copy that cannot be read or whose object is gone is reported as failed. One that waited for longer than it may, or for
    which there is no time left or no endpoint, is dropped.

    Raises:
        EventError: the event is not a batch of messages.
    """
    parts = _wired()
    function = parts.function
    function.begin(context)
    if not is_from_queue(event):
        raise EventError("the event is not a batch of messages of a queue")
    tallies = Tallies()
    dropped: Counter[Drop] = Counter()
    answered = failed = 0

    def one(message: Mapping[str, Any]) -> None:
        nonlocal answered, failed
        copy = function.run(lambda: _received(parts.objects, message))
        shadow = function.run(lambda: _sent(parts, copy, context.get_remaining_time_in_millis()))
        if isinstance(shadow, Drop):
            dropped[shadow] += 1
        elif isinstance(shadow, Answer) and shadow.status == _OK:
            answered += 1
        else:
            failed += 1
        tallies.add(copy.exchange(NoAnswer.DROPPED if isinstance(shadow, Drop) else shadow))

    result = function.each_message(event, context, one)
    parts.writer.add(tallies)
    function.run(parts.writer.store)
    function.emit({Metric.SHADOWS_SENT: answered + failed, Metric.SHADOWS_FAILED: failed})
    if dropped:
        function.emit({Metric.SHADOWS_DROPPED: dropped.total()})
    for reason, count in dropped.items():
        function.emit({Metric.SHADOWS_DROPPED: count}, {Dimension.REASON: reason})
    return result


async def _received(objects: Objects, message: Mapping[str, Any]) -> ShadowCopy:
    """Return the copy of a message. Its object is deleted first, so that a message which comes again is not sent again."""
    data = copy_in(message)
    if data is None:
        key = object_in(message)
        stored = await objects.get(key)
        if stored is None:
            raise EventError("the object with the copy is gone")
        await objects.delete(key)
        data = stored.data
    return read_copy(data)


async def _sent(parts: _Parts, copy: ShadowCopy, left_ms: float) -> Answer | NoAnswer | Drop:
    """Send a copy once, if it is early enough and `left_ms` of the batch's time suffice."""
    # Both clocks are AWS's.
    waited_s = time.time() - copy.at
    if waited_s > parts.timeout_s or left_ms <= parts.timeout_s * 1000 + BATCH_SPARE_MS:
        return Drop.LATE
    # Where the shard is now, whatever the message says.
    endpoints = parts.directory.endpoints(copy.shard)
    if not endpoints:
        return Drop.NO_ENDPOINT
    at = endpoints[0]
    return await send_copy(parts.transport, copy._replace(address=(at.host, at.port)), parts.timeout_s)
