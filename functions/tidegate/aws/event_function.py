"""The parts shared by the functions that events start: an event loop, logs, metrics and traces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from tidegate.aws.event_kinds import require_message_ids
from tidegate.aws.telemetry import emit, function_logger
from tidegate.metrics import Dimension, Metric

T = TypeVar("T")
Event = Mapping[str, Any]


class EventFunction:
    """Logger, tracer and event loop of one function. `service` is its short name, and the dimension `service` of its metrics."""

    def __init__(self, service: str, level: str = "INFO") -> None:
        self.service = service
        self.logger = function_logger(service, level)
        # Without patches, as AWS is called in other threads, where X-Ray's SDK finds no segment.
        self._tracer = Tracer(service=service, auto_patch=False)
        self._runner = asyncio.Runner()

    def begin(self, context: Any) -> None:
        """Add the invocation's id to all that is logged from now on."""
        self.logger.append_keys(correlation_id=context.aws_request_id)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine as one subsegment of the invocation's trace."""
        with self._tracer.provider.in_subsegment(f"## {self.service}"):
            return self._runner.run(work())

    def emit(self, values: Mapping[Metric, float], dimensions: Mapping[Dimension, str] | None = None) -> None:
        emit(self.service, values, dimensions)

    def ignore(self, reason: str, **extra: str) -> None:
        """Log and count an event that requires no work."""
        self.logger.info(f"nothing to do: {reason}", extra=extra)
        self.emit({Metric.IGNORED_EVENTS: 1})

    def each_message(self, event: Event, context: Any, work: Callable[[Event], object]) -> dict[str, Any]:
        """Call `work` with each message of a queue. Only those that failed are delivered again, and in the end go to the
        dead-letter queue.

        Raises:
            EventError: a message has no id.
        """
        require_message_ids(event)

        def one(record: Mapping[str, Any]) -> object:
            return work(json.loads(record["body"]))

        return self._partial(event, context, one)

    def all_messages(
        self,
        event: Event,
        context: Any,
        work: Callable[[Sequence[str]], Coroutine[Any, Any, Sequence[Exception | None]]],
    ) -> dict[str, Any]:
        """Run `work` with the bodies of all messages of a queue together. It returns why each one failed, or None; see `each_message`.

        Raises:
            EventError: a message has no id.
        """
        require_message_ids(event)
        records = event["Records"]
        found = self.run(lambda: work([str(record.get("body")) for record in records]))
        errors = {record["messageId"]: error for record, error in zip(records, found, strict=True)}

        def one(record: Mapping[str, Any]) -> None:
            error = errors[record["messageId"]]
            if error is not None:
                raise error

        return self._partial(event, context, one)

    def _partial(self, event: Event, context: Any, one: Callable[[Mapping[str, Any]], object]) -> dict[str, Any]:
        processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        return dict(process_partial_response(dict(event), one, processor, context))
