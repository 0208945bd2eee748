"""The events that start a function: a schedule, created objects, or an alarm's change of state.

Every reader accepts any value and refuses what it does not know, so that nothing is ignored silently: a refused message ends
in the dead-letter queue, a refused invocation counts as a failure, and an alarm watches both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus

from tidegate.errors import EventError

_SCHEDULERS = ("aws.events", "aws.scheduler")
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""Errors of malformed alarms: OverflowError for a time outside the years 1 to 9999, RecursionError for deeply nested JSON."""

_ALARM_CHANGED = "CloudWatch Alarm State Change"


class AlarmState(StrEnum):
    """A state of an alarm: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change of an alarm's state; `at` is a time in UTC."""

    name: str
    state: AlarmState
    at: str


def is_from_queue(event: object) -> bool:
    records = _records(event)
    return bool(records) and all(record.get("eventSource") == "aws:sqs" for record in records)


def require_message_ids(event: Mapping[str, Any]) -> None:
    """Raise `EventError` if a message of a batch lacks the id that reports its failure."""
    for index, record in enumerate(_records(event)):
        if not isinstance(record.get("messageId"), str) or not record["messageId"]:
            raise EventError(f"Records[{index}].messageId must be text: the id of a message of an SQS queue")


def require_schedule(event: object) -> None:
    """Raise `EventError` unless an event is a tick of a schedule, or the empty object of a manual call."""
    if isinstance(event, Mapping) and (not event or event.get("source") in _SCHEDULERS):
        return
    raise EventError("the event is neither a tick of a schedule nor a call with {}")


def created_objects(event: object) -> list[tuple[str, str]]:
    """Return bucket and key of each object that was created, from an event of EventBridge or a notification of S3.

    Other events of S3 (a deleted object, the test when notifications are set up) name none.

    Raises:
        EventError: it is not an event of S3, or is malformed.
    """
    try:
        if isinstance(event, Mapping):
            if event.get("source") == "aws.s3":
                detail = event["detail"]
                created = event.get("detail-type") == "Object Created"
                return [_object(detail["bucket"]["name"], detail["object"]["key"])] if created else []
            if event.get("Event") == "s3:TestEvent":
                return []
        records = _records(event)
        if records and all(record.get("eventSource") == "aws:s3" for record in records):
            # S3's own notifications have form-encoded keys; EventBridge's do not.
            return [
                _object(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
                for record in records
                if str(record.get("eventName")).startswith("ObjectCreated:")
            ]
    except (KeyError, TypeError, AttributeError) as error:
        raise EventError("the event of S3 is malformed: it names no bucket and key") from error
    raise EventError("the event is not one of S3, by EventBridge or as S3's own notification")


def alarm_of(event: object) -> Alarm:
    """Return the alarm of an event from the alarm's own Lambda action, SNS, or EventBridge.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html,
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html

    Raises:
        EventError: it is not such an event, or is malformed.
    """
    if isinstance(event, Mapping):
        if isinstance(event.get("alarmData"), Mapping):
            return _alarm_with_state(event["alarmData"])
        if event.get("source") == "aws.cloudwatch" and event.get("detail-type") == _ALARM_CHANGED:
            return _alarm_with_state(event.get("detail"))
    records = _records(event)
    if records and all(record.get("EventSource") == "aws:sns" for record in records):
        return _alarm_of_sns(records)
    raise EventError("the event is not a change of an alarm's state, by the alarm itself, SNS or EventBridge")


def _alarm_of_sns(records: Sequence[Mapping[str, Any]]) -> Alarm:
    if len(records) > 1:
        raise EventError("the event of SNS holds several messages, and SNS sends one")
    try:
        message = json.loads(records[0]["Sns"]["Message"])
        return _alarm(message["AlarmName"], message["NewStateValue"], message["StateChangeTime"])
    except _UNREADABLE as error:
        raise EventError("the message of SNS is not an alarm's: AlarmName, NewStateValue or StateChangeTime") from error


def _alarm_with_state(data: Any) -> Alarm:
    try:
        return _alarm(data["alarmName"], data["state"]["value"], data["state"]["timestamp"])
    except _UNREADABLE as error:
        raise EventError("the alarm's event is malformed: alarmName, state.value or state.timestamp") from error


def _alarm(name: Any, state: Any, at: str) -> Alarm:
    if not (isinstance(name, str) and name and isinstance(state, str) and state):
        raise TypeError("an alarm's name and state are text")
    if state not in set(AlarmState):
        raise EventError(f"the alarm's state must be {', '.join(AlarmState)}")
    moment = datetime.fromisoformat(at)
    # The same change may arrive in several ways, which format the time differently.
    return Alarm(name, AlarmState(state), moment.astimezone(UTC).isoformat(timespec="milliseconds"))


def _object(bucket: Any, key: Any) -> tuple[str, str]:
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise TypeError("a bucket's name and a key are text")
    return bucket, key


def _records(event: object) -> list[Mapping[str, Any]]:
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        return []
    return records
