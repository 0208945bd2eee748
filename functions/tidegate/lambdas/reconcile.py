"""The reconciler's function: runs after a push, after a flip, and on a schedule in case an event was lost."""

from __future__ import annotations

import functools
from typing import Any

from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import created_objects, is_from_queue, require_schedule
from tidegate.aws.secrets import with_management_secret
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane
from tidegate.control.plane import ControlPlane
from tidegate.control.reconcile import ReconcileResult, reconcile_fleet
from tidegate.metrics import Metric
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, ControlPlane]:
    settings = with_management_secret(Settings.from_environment())
    function = EventFunction("reconcile", settings.log_level)
    return function, build_control_plane(settings, build_transport(settings))


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Reconcile once if any message reports a created object.

    Raises:
        EventError: the event is neither a batch of S3 messages nor a tick of a schedule.
        StoreError: a store did not answer; the schedule tries again.
    """
    function, plane = _wired()
    function.begin(context)

    @functools.cache
    def once() -> ReconcileResult:
        result = function.run(lambda: reconcile_fleet(plane, "the reconciler"))
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
    is_bad = result.failed or result.problems or result.refused
    log = function.logger.warning if is_bad else function.logger.info
    log("reconciled", extra={"reconciled": result.as_dict()})
    function.emit(
        {
            Metric.CHANGES: len(result.actions),
            Metric.FAILED_LOADS: len(result.failed) + len(result.waiting),
            Metric.UNREACHABLE_ENDPOINTS: len(result.unreachable),
            Metric.REFUSED_ENDPOINTS: len(result.refused),
            Metric.PROBLEMS: len(result.problems),
        }
    )
