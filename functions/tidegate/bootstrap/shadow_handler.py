"""The handler of the function `shadow`: sends the copies of a batch of messages to their shadows, and compares the answers.

A local stack whose copies go through a queue runs it, too.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import is_from_queue
from tidegate.aws.objects import Objects
from tidegate.aws.shadow_claims import ShadowClaims
from tidegate.aws.shadow_queue import BATCH_SPARE_MS, copy_in, id_in, object_in
from tidegate.aws.shadow_tallies import S3ShadowTallies, TallyWriter
from tidegate.bootstrap import build_tracer, build_transport
from tidegate.bootstrap.balancers import shard_directory
from tidegate.bootstrap.functions import FLUSH_S, report_traces
from tidegate.errors import EventError, SettingsError, StoreError
from tidegate.gateway.shadow_batch import BatchLimits, ShadowBatches
from tidegate.metrics import Dimension, Metric
from tidegate.ports import Tracer
from tidegate.settings import Settings
from tidegate.shadows.copy import ShadowCopy, read_copy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer
from tidegate.shadows.tallies import Tallies
from tidegate.shadows.tensors import MOST_BYTES

_OK = 200
_log = logging.getLogger("tidegate.function")


@dataclass(frozen=True, slots=True)
class _Parts:
    function: EventFunction
    objects: Objects
    claims: ShadowClaims
    batches: ShadowBatches
    writer: TallyWriter
    tracer: Tracer | None


@dataclass(slots=True)
class _Done:
    """What became of a batch."""

    tallies: Tallies = field(default_factory=Tallies)
    dropped: Counter[Drop] = field(default_factory=Counter)
    answered: int = 0
    failed: int = 0
    repeated: int = 0

    def add(self, copy: ShadowCopy, result: Any) -> None:
        if isinstance(result, Drop):
            self.dropped[result] += 1
        elif isinstance(result, Answer) and result.status == _OK:
            self.answered += 1
        else:
            self.failed += 1
        self.tallies.add(copy.exchange(result))


@functools.cache
def _wired() -> _Parts:
    settings = Settings.from_environment()
    if settings.bucket is None or settings.registry_table is None:
        raise SettingsError("TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE must be set")
    clients = AwsClients(AwsConfig.from_settings(settings))
    objects, claims = Objects(clients, settings.bucket), ShadowClaims(clients, settings.registry_table)
    # A process that Lambda starts again has the same log stream, and does not know what the one before counted.
    name = f"{os.environ.get('AWS_LAMBDA_LOG_STREAM_NAME', 'environment')}-{os.urandom(8).hex()}"
    limits = BatchLimits(settings.shadow_timeout_ms / 1000, settings.shadow_in_flight, BATCH_SPARE_MS / 1000)
    # Larger answers are not compared, and those of a batch are held together.
    transport = build_transport(replace(settings, max_response_bytes=min(settings.max_response_bytes, MOST_BYTES)))
    function = EventFunction("shadow", settings.log_level)
    tracer = build_tracer(settings, report_traces)
    return _Parts(
        function,
        objects,
        claims,
        ShadowBatches(transport, _placed(settings), claims, limits, tracer=tracer),
        TallyWriter(S3ShadowTallies(objects), name),
        tracer,
    )


def _placed(settings: Settings) -> Callable[[ShadowCopy], ShadowCopy | None]:
    """Return what finds the address of a copy: where its shard is now, whatever the message says. Without the addresses of shards, as in
    a local stack, it is the endpoint that the gateway chose."""
    if settings.shard_endpoints is None:
        return lambda copy: copy
    directory = shard_directory(settings.shard_endpoints)

    def placed(copy: ShadowCopy) -> ShadowCopy | None:
        endpoints = directory.endpoints(copy.shard)
        return copy._replace(address=(endpoints[0].host, endpoints[0].port)) if endpoints else None

    return placed


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Send each copy of a batch once, however often its message is delivered, and store the tallies.

    A message that cannot be read or whose object is gone is reported as failed. A copy that waited for longer than it may, for which
    there is no time left or no endpoint, or whose shadow is paused, is dropped.

    Raises:
        EventError: the event is not a batch of messages.
    """
    parts = _wired()
    function, done = parts.function, _Done()
    function.begin(context)
    if not is_from_queue(event):
        raise EventError("the event is not a batch of messages of a queue")

    async def work(bodies: Sequence[str]) -> Sequence[Exception | None]:
        return await _carried_out(parts, done, bodies, lambda: context.get_remaining_time_in_millis() / 1000)

    result = function.all_messages(event, context, work)
    parts.writer.add(done.tallies)
    function.run(parts.writer.store)
    if parts.tracer is not None:
        parts.tracer.flush(FLUSH_S)
    function.emit({Metric.SHADOWS_SENT: done.answered + done.failed, Metric.SHADOWS_FAILED: done.failed})
    if done.repeated:
        function.emit({Metric.SHADOWS_REPEATED: done.repeated})
    if done.dropped:
        function.emit({Metric.SHADOWS_DROPPED: done.dropped.total()})
    for reason, count in done.dropped.items():
        function.emit({Metric.SHADOWS_DROPPED: count}, {Dimension.REASON: reason})
    return result


async def _carried_out(
    parts: _Parts, done: _Done, bodies: Sequence[str], left_s: Callable[[], float]
) -> Sequence[Exception | None]:
    """Receive all messages, send their copies, and return why a message failed."""
    received = await asyncio.gather(*(_received(parts, done, body) for body in bodies), return_exceptions=True)
    copies = [each for each in received if isinstance(each, ShadowCopy)]
    for copy, result in zip(copies, await parts.batches.send(copies, left_s), strict=True):
        done.add(copy, result)
    return [each if isinstance(each, Exception) else None for each in received]


async def _received(parts: _Parts, done: _Done, body: str) -> ShadowCopy | None:
    """Return the copy of a message; None if it has none, or was carried out before.

    Raises:
        EventError: the message cannot be read, or its object is gone.
        StoreError: it cannot be read now, or its counts are damaged.
    """
    message = json.loads(body)
    if not isinstance(message, dict):
        raise EventError("the message must be a JSON object")
    message_id, data, counted = id_in(message), copy_in(message), Tallies()
    counted.count(message.get("counts", []))
    key = object_in(message) if data is None and "object" in message else None
    if key is not None:
        stored = await parts.objects.get(key)
        if stored is None:
            if await parts.claims.is_claimed(message_id):
                done.repeated += 1
                return None
            raise EventError("the object with the copy is gone")
        data = stored.data
    copy = None if data is None else read_copy(data)
    # From here on the message is not carried out again: a copy is sent at most once.
    if not await parts.claims.claim(message_id):
        done.repeated += 1
        return None
    done.tallies.merge(counted)
    if key is not None:
        try:
            await parts.objects.delete(key)
        except StoreError as error:
            _log.warning("a copy was not deleted, and expires: %s", error)
    return copy
