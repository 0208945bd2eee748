"""What the functions that events start have in common: one event loop, logs, metrics and traces."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from tidegate.aws.event_kinds import require_message_ids
from tidegate.aws.telemetry import namespace

T = TypeVar("T")
Event = Mapping[str, Any]


class EventFunction:
    """The surroundings of one function: its logger and tracer, and the event loop that its work runs on from call to call.

    Args:
        service: the function's short name: the dimension `service` of its metrics.
        level: of the logs.
    """

    def __init__(self, service: str, level: str = "INFO") -> None:
        self.service = service
        self.logger = Logger(service=service, level=level)
        # Nothing is patched: AWS is asked from other threads, where X-Ray's SDK finds no segment to hang a call on.
        self._tracer = Tracer(service=service, auto_patch=False)
        self._runner = asyncio.Runner()
        project = logging.getLogger("tidegate")
        project.handlers = [self.logger.registered_handler]
        project.setLevel(level)
        project.propagate = False

    def begin(self, context: Any) -> None:
        """Begin an invocation: what is logged from here on carries its id."""
        self.logger.append_keys(correlation_id=context.aws_request_id)

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work to its end, as one subsegment of the invocation's trace."""

        async def worked() -> T:
            return await work()

        with self._tracer.provider.in_subsegment(f"## {self.service}"):
            return self._runner.run(worked())

    def metrics(self, **dimensions: str) -> EphemeralMetrics:
        """Metrics with these dimensions; flush them when they are complete."""
        made = EphemeralMetrics(namespace=namespace(), service=self.service)
        for name, value in dimensions.items():
            made.add_dimension(name, value)
        return made

    def ignore(self, reason: str, **extra: str) -> None:
        """Log and count an event that is understood and asks for nothing."""
        self.logger.info(f"nothing to do: {reason}", extra=extra)
        metrics = self.metrics()
        metrics.add_metric("IgnoredEvents", "Count", 1)
        metrics.flush_metrics()

    def each_message(self, event: Event, context: Any, work: Callable[[Event], object]) -> dict[str, Any]:
        """Do some work for each message of a queue; those that failed alone come again, and in the end go to its
        dead-letter queue.

        Raises:
            EventError: a message has no id.
        """
        require_message_ids(event)
        processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

        def one(record: Mapping[str, Any]) -> object:
            return work(json.loads(record["body"]))

        answer: dict[str, Any] = dict(
            process_partial_response(
                event=dict(event),
                record_handler=one,
                processor=processor,
                context=context,
            )
        )
        return answer
