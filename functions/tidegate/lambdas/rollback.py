"""The guard's function: on an alarm, moves the pointer back, once, to the last revision that is not marked bad."""

from __future__ import annotations

import functools
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
from tidegate.metrics import Metric
from tidegate.settings import Settings


@functools.cache
def _wired() -> tuple[EventFunction, ControlPlane, Settings]:
    settings = with_management_secret(Settings.from_environment())
    function = EventFunction("rollback", settings.log_level)
    return function, build_control_plane(settings, build_transport(settings)), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Roll back a recent publish if an alarm changed to ALARM; each change counts once.

    Raises:
        EventError: the event is not an alarm's, or its state is unknown.
        PublishError: no earlier revision is left, or it could not be made live.
    """
    function, plane, settings = _wired()
    function.begin(context)
    alarm = alarm_of(event)
    if alarm.state is not AlarmState.ALARM:
        reason = f"the alarm's state is {alarm.state}"
        function.ignore(reason, alarm=alarm.name)
        return {"status": "ignored", "reason": reason}

    def roll_back() -> dict[str, Any]:
        why, alarmed_at = f"alarm {alarm.name}", datetime.fromisoformat(alarm.at).timestamp()
        judged = function.run(lambda: guard(plane, "the guard", why, settings.guard_window_s, alarmed_at=alarmed_at))
        # An event that is delivered again does not get here, and is not counted again.
        function.emit({Metric.ROLLBACKS: int(judged.status == "rolled back")})
        return judged.as_dict()

    result = once_per("rollback", settings, asdict(alarm), roll_back, context)
    function.logger.warning("the guard was called", extra={"alarm": alarm.name, "result": result})
    return result
