"""What events tell, read from recorded ones and from ones of any shape: an answer or an `EventError`, nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.aws.event_kinds import Alarm, alarm_of, created_objects, is_from_queue, require_schedule
from tidegate.errors import EventError

from tests.lambdas.conftest import EVENTS

RECORDED: dict[str, Any] = {file.stem: json.loads(file.read_text()) for file in EVENTS.glob("*.json")}
ALARMS = ("alarm", "alarm_by_sns", "alarm_by_eventbridge")
OBJECTS = ("object_created", "rules_uploaded", "rules_uploaded_by_s3")
READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(ALARMS, alarm_of),
    **dict.fromkeys(OBJECTS, created_objects),
    "schedule": require_schedule,
}


def test_an_alarm_is_the_same_by_whatever_way_it_comes() -> None:
    assert alarm_of(RECORDED["alarm"]) == alarm_of(RECORDED["alarm_by_eventbridge"])
    assert alarm_of(RECORDED["alarm"]) == Alarm("tidegate-server-errors", "ALARM", "2026-11-24T08:00:00.000+00:00")
    by_sns = copy.deepcopy(RECORDED["alarm_by_sns"])
    message = json.loads(by_sns["Records"][0]["Sns"]["Message"])
    for at in ("2026-11-24T08:00:00.000+0000", "2026-11-24T08:00:00Z", "2026-11-24T09:00:00.000+0100"):
        message |= {"AlarmName": "tidegate-server-errors", "StateChangeTime": at}
        by_sns["Records"][0]["Sns"]["Message"] = json.dumps(message)
        assert alarm_of(by_sns) == alarm_of(RECORDED["alarm"])


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "[" * 100_000])
def test_a_time_that_no_year_has_is_malformed(at: str) -> None:
    event = copy.deepcopy(RECORDED["alarm"])
    event["alarmData"]["state"]["timestamp"] = at
    by_sns = copy.deepcopy(RECORDED["alarm_by_sns"])
    message = json.loads(by_sns["Records"][0]["Sns"]["Message"]) | {"StateChangeTime": at}
    by_sns["Records"][0]["Sns"]["Message"] = at if at.startswith("[") else json.dumps(message)
    for each in (event, by_sns):
        with pytest.raises(EventError):
            alarm_of(each)


def test_objects_that_were_created() -> None:
    assert created_objects(RECORDED["rules_uploaded"]) == created_objects(RECORDED["rules_uploaded_by_s3"])
    assert created_objects(RECORDED["rules_uploaded"]) == [("tidegate", "rules/homepage team.zip")]
    (record,) = RECORDED["rules_uploaded_by_s3"]["Records"]
    removed = record | {"eventName": "ObjectRemoved:Delete"}
    assert created_objects({"Records": [record, removed, record]}) == [("tidegate", "rules/homepage team.zip")] * 2
    assert created_objects(RECORDED["rules_uploaded"] | {"detail-type": "Object Deleted"}) == []
    assert created_objects({"Service": "Amazon S3", "Event": "s3:TestEvent"}) == []


def test_schedules() -> None:
    for event in (RECORDED["schedule"], RECORDED["schedule"] | {"source": "aws.scheduler"}, {}):
        require_schedule(event)
    assert is_from_queue(RECORDED["queue"])
    assert not any(is_from_queue(event) for name, event in RECORDED.items() if name != "queue")


@pytest.mark.parametrize("reader", [alarm_of, created_objects, require_schedule])
def test_an_event_of_another_kind_is_refused(reader: Callable[[Any], Any]) -> None:
    strange = [None, [], "text", 7, True, {"Records": []}, {"Records": [7]}, {"Records": {}}, {"source": "aws.ec2"}]
    others = [event for name, event in RECORDED.items() if READERS.get(name) is not reader]
    for event in [*strange, *others]:
        with pytest.raises(EventError):
            reader(event)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in an event."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield (*path, name)
        yield from places(inner, (*path, name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["Records", "source", "s3"]), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(READERS)))
def test_a_malformed_event_is_refused_and_never_an_error_of_another_kind(data: st.DataObject, name: str) -> None:
    event = copy.deepcopy(RECORDED[name])
    for *parents, last in data.draw(st.lists(st.sampled_from(list(places(event))), min_size=1, max_size=2)):
        inner = event
        for parent in parents:
            try:
                inner = inner[parent]
            except (KeyError, IndexError, TypeError):
                inner = None
        if isinstance(inner, dict) and data.draw(st.booleans()):
            inner.pop(last, None)
        elif isinstance(inner, dict) or (isinstance(inner, list) and isinstance(last, int) and last < len(inner)):
            inner[last] = data.draw(JSON)
    try:
        found = READERS[name](event)
    except EventError as error:
        assert str(error)
        return
    if isinstance(found, Alarm):
        assert found.name
        assert found.state
    elif found is not None:
        assert all(isinstance(text, str) for pair in found for text in pair)
