"""The guard's function: an alarm moves the pointer back to the last revision that is not bad, once, and says so."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import AlarmState, alarm_of
from tidegate.aws.idempotency import once_per
from tidegate.aws.secrets import with_management_secret
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane
from tidegate.control.guard import guard
from tidegate.control.plane import ControlPlane
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, ControlPlane, Settings]:
    settings = with_management_secret(Settings.from_environment())
    function = EventFunction("rollback", settings.log_level or "INFO")
    return function, build_control_plane(settings, build_transport(settings)), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Roll back if an alarm says that what was published lately is bad; each change of an alarm's state counts once.

    Raises:
        EventError: the event tells of no alarm, or of a state that no alarm has.
        StoreError: a store did not answer.
        PublishError: no earlier revision is left, or it could not be made live.
    """
    function, plane, settings = _wired()
    function.begin(context)
    alarm = alarm_of(event)
    if alarm.state is not AlarmState.ALARM:
        reason = f"the alarm's state is {alarm.state}"
        function.ignore(reason, alarm=alarm.name)
        return {"status": "ignored", "reason": reason}

    def roll_back(data: Mapping[str, Any]) -> dict[str, Any]:
        why = f"alarm {data['name']}"
        alarmed_at = datetime.fromisoformat(data["at"]).timestamp()
        judged = function.run(lambda: guard(plane, "the guard", why, settings.guard_window_s, alarmed_at=alarmed_at))
        done = judged.as_dict()
        # Here, so that an event that is delivered again is not counted again.
        metrics = function.metrics()
        metrics.add_metric("Rollbacks", "Count", int(done["status"] == "rolled back"))
        metrics.flush_metrics()
        return done

    result = once_per("rollback", settings, roll_back, context)(asdict(alarm))
    function.logger.warning("the guard was called", extra={"alarm": alarm.name, "result": result})
    return result
