"""The reconciler's function: on pushed models, on a moved pointer, and on a schedule that makes up for lost events."""

from __future__ import annotations

import functools
from typing import Any

from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import created_objects, is_from_queue, require_schedule
from tidegate.aws.secrets import with_management_secret
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane
from tidegate.control.plane import ControlPlane
from tidegate.control.reconcile import ReconcileResult
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, ControlPlane]:
    settings = with_management_secret(Settings.from_environment())
    function = EventFunction("reconcile", settings.log_level or "INFO")
    return function, build_control_plane(settings, build_transport(settings))


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Reconcile once, however many messages say that an object was created; not at all where none does.

    Raises:
        EventError: the event is neither a batch of messages of S3 nor a tick of a schedule.
        StoreError: a store did not answer; the schedule calls again.
    """
    function, plane = _wired()
    function.begin(context)

    @functools.cache
    def once() -> ReconcileResult:
        result = function.run(lambda: plane.reconciler.reconcile("the reconciler"))
        _report(function, result)
        return result

    def changed(message: object) -> None:
        if created_objects(message):
            once()
        else:
            function.ignore("no object was created")

    if is_from_queue(event):
        return function.each_message(event, context, changed)
    require_schedule(event)
    return once().as_dict()


def _report(function: EventFunction, result: ReconcileResult) -> None:
    found = result.as_dict()
    bad = result.failed or result.problems or result.refused
    level = function.logger.warning if bad else function.logger.info
    level("reconciled", extra={"reconciled": found})
    metrics = function.metrics()
    metrics.add_metric("Changes", "Count", len(result.actions))
    metrics.add_metric("FailedLoads", "Count", len(result.failed) + len(result.waiting))
    metrics.add_metric("UnreachableEndpoints", "Count", len(result.unreachable))
    metrics.add_metric("RefusedEndpoints", "Count", len(result.refused))
    metrics.add_metric("Problems", "Count", len(result.problems))
    metrics.flush_metrics()
