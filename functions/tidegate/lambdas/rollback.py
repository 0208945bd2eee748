"""The guard's function: an alarm moves the pointer back to the revision before, once, and says so."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from tidegate.aws.event_function import EventFunction
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
    return function, build_control_plane(settings, build_transport(settings), publishes=False), settings


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Roll back if an alarm says that what was published lately is bad; each change of an alarm's state counts once.

    Raises:
        StoreError: a store did not answer.
        PublishError: the revision before could not be made live.
    """
    function, plane, settings = _wired()
    function.begin(context)
    alarm = read_alarm(event)
    if alarm is None or alarm["state"] != "ALARM":
        function.logger.info("nothing to do: the event is no alarm")
        return {"status": "ignored", "reason": "the event is no alarm"}

    def roll_back(data: Mapping[str, Any]) -> dict[str, Any]:
        why = f"alarm {data['name']}"
        return function.run(lambda: guard(plane, "the guard", why, settings.guard_window_s)).as_dict()

    result = once_per("rollback", settings, roll_back, context)(alarm)
    function.logger.warning("the guard was called", extra={"alarm": alarm["name"], "result": result})
    metrics = function.metrics()
    metrics.add_metric("Rollbacks", "Count", int(result["status"] == "rolled back"))
    metrics.flush_metrics()
    return result


def read_alarm(event: Mapping[str, Any]) -> dict[str, str] | None:
    """Name, state and time of the alarm that an event tells of: as an alarm's own Lambda action, or by SNS.

    The events: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html.
    """
    data = event.get("alarmData")
    if isinstance(data, Mapping):
        state = data.get("state", {})
        return _alarm(data.get("alarmName"), state.get("value"), state.get("timestamp"))
    records = event.get("Records")
    if isinstance(records, list) and records and records[0].get("EventSource") == "aws:sns":
        try:
            message = json.loads(records[0]["Sns"]["Message"])
        except ValueError:
            return None
        return _alarm(message.get("AlarmName"), message.get("NewStateValue"), message.get("StateChangeTime"))
    return None


def _alarm(name: object, state: object, at: object) -> dict[str, str] | None:
    if not name or not state:
        return None
    return {"name": str(name), "state": str(state), "at": str(at)}
