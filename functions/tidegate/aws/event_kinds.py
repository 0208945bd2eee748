"""What an event that starts a function tells: a schedule, objects that were created, or an alarm's change of state.

Every reader takes an event of any shape and refuses what it does not know, so that nothing is ignored silently: a refused
message of a queue ends in its dead-letter queue, a refused invocation among the failures, and an alarm watches both.
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
"""What an alarm's fields may raise: OverflowError by a time that no year has in UTC, RecursionError by JSON nested deeply."""

_ALARM_CHANGED = "CloudWatch Alarm State Change"


class AlarmState(StrEnum):
    """A state of an alarm: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change of an alarm's state: `at` is when, in UTC, however the event writes it."""

    name: str
    state: AlarmState
    at: str


def is_from_queue(event: object) -> bool:
    """Whether an event is a batch of messages of an SQS queue."""
    records = _records(event)
    return bool(records) and all(record.get("eventSource") == "aws:sqs" for record in records)


def require_message_ids(event: Mapping[str, Any]) -> None:
    """Check that each message of a batch has its id, by which alone its failure can be reported.

    Raises:
        EventError: one has none.
    """
    for index, record in enumerate(_records(event)):
        if not isinstance(record.get("messageId"), str) or not record["messageId"]:
            raise EventError(f"Records[{index}].messageId must be text: the id of a message of an SQS queue")


def require_schedule(event: object) -> None:
    """Check that an event is a tick of a schedule, or the empty object of a call by hand.

    Raises:
        EventError: it is another.
    """
    if isinstance(event, Mapping) and (not event or event.get("source") in _SCHEDULERS):
        return
    raise EventError("the event is neither a tick of a schedule nor a call with {}")


def created_objects(event: object) -> list[tuple[str, str]]:
    """Bucket and key of each object that an event of S3 says was created, by EventBridge or by S3's own notification.

    Empty for another event of S3: a deleted object, or the test that S3 sends when notifications are set up.

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
            # S3's own notifications have keys encoded as in a form: EventBridge's do not.
            return [
                _object(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
                for record in records
                if str(record.get("eventName")).startswith("ObjectCreated:")
            ]
    except (KeyError, TypeError, AttributeError) as error:
        raise EventError("the event of S3 is malformed: it names no bucket and key") from error
    raise EventError("the event is none of S3, by EventBridge or as S3's own notification")


def alarm_of(event: object) -> Alarm:
    """The alarm that an event tells of: as an alarm's own Lambda action, by SNS, or by EventBridge.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html,
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html

    Raises:
        EventError: it is another event, or is malformed.
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
    # The same change may come by several ways, each with its own way to write the time.
    return Alarm(name, AlarmState(state), moment.astimezone(UTC).isoformat(timespec="milliseconds"))


def _object(bucket: Any, key: Any) -> tuple[str, str]:
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise TypeError("a bucket's name and a key are text")
    return bucket, key


def _records(event: object) -> list[Mapping[str, Any]]:
    """The event's `Records`, if it has a list of objects of that name; else none."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        return []
    return records
