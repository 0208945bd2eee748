"""`POST /v1/objectives/{objective}/stream`, in front of a real Triton."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.web.conftest import Host

STREAM = "/v1/objectives/tallying/stream"


def events(body: bytes) -> list[tuple[str, Any]]:
    """Return the name and the data of each event, read as a browser does."""
    found = []
    parts = body.decode().split("\n\n")
    assert parts.pop() == ""
    for part in parts:
        fields = dict(line.split(": ", 1) for line in part.splitlines())
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


def ask(gateway: Host, inputs: dict[str, Any], objective: str = "tallying", **context: Any) -> Any:
    return gateway.ask("POST", f"/v1/objectives/{objective}/stream", {"context": context, "inputs": inputs})


def test_each_response_is_an_event_and_the_decision_the_last(gateway: Host) -> None:
    reply = ask(gateway, {"COUNT": 3}, country="SE")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    assert reply.headers["tidegate-rule"] == "tuned"
    *sent, (last, document) = events(reply.body)
    assert [(name, data["outputs"]["NUMBER"]) for name, data in sent] == [("message", number) for number in range(3)]
    assert sent[0][1].keys() == {"outputs"}
    assert set(sent[0][1]["outputs"]) == {"NUMBER", "PARAMETERS"}
    parameters = json.loads(sent[0][1]["outputs"]["PARAMETERS"])
    assert parameters["Tidegate-Param-top_k"] == "20"
    assert (last, document["decision"]["rule"], document["decision"]["served_by"]["model"]) == ("end", "tuned", "tally")


def test_a_stream_without_responses_has_only_its_end(gateway: Host) -> None:
    assert [name for name, _ in events(ask(gateway, {"COUNT": 0}).body)] == ["end"]


def test_an_error_before_the_first_event_is_a_problem(gateway: Host) -> None:
    assert ask(gateway, {"COUNT": 1, "SCRIPT": "raise"}).problem["type"].endswith("model-error")
    assert ask(gateway, {"COUNT": 1, "OTHER": 1}).problem["input"] == "OTHER"
    assert ask(gateway, {}).status == 400


def test_an_error_within_a_stream_is_an_event_and_the_end(gateway: Host) -> None:
    connection = gateway.ask
    with pytest.raises(Exception, match="IncompleteRead") as caught:
        connection("POST", STREAM, {"context": {}, "inputs": {"COUNT": 9, "SCRIPT": "fail"}})
    found = events(caught.value.partial)  # type: ignore[attr-defined]
    assert [name for name, _ in found] == ["message", "message", "error"]
    assert found[-1][1]["type"].endswith("model-error")


def test_inputs_are_those_of_infer_in_one_row(gateway: Host) -> None:
    pair = {"INPUT0": [list(range(16))], "INPUT1": [1] * 16}
    (name, data), _end = events(ask(gateway, pair, "adding").body)
    assert (name, data["outputs"]["OUTPUT0"]) == ("message", [1 + value for value in range(16)])
    infer = gateway.ask("POST", "/v1/objectives/adding/infer", {"context": {}, "inputs": pair})
    assert infer.json["outputs"]["OUTPUT0"] == [data["outputs"]["OUTPUT0"]]
    two_rows = {name: [value, value] for name, value in {"INPUT0": [1] * 16, "INPUT1": [2] * 16}.items()}
    assert len(events(ask(gateway, two_rows, "adding").body)[0][1]["outputs"]["OUTPUT0"]) == 32
    assert "INPUT0" in ask(gateway, {"INPUT0": [1] * 15, "INPUT1": [2] * 16}, "adding").problem["detail"]


def test_a_shape_that_triton_would_read_differently_is_refused(gateway: Host) -> None:
    rows = gateway.ask(
        "POST", "/v1/objectives/echoing/stream", {"context": {}, "inputs": {"X": [[1.0, 2.0], [3.0, 4.0]]}}
    )
    assert (rows.status, rows.problem["input"]) == (400, "X")


def test_explain_adds_the_trace_to_the_end(gateway: Host) -> None:
    reply = gateway.ask("POST", f"{STREAM}?explain=true", {"context": {"country": "SE"}, "inputs": {"COUNT": 1}})
    assert "explanation" in events(reply.body)[-1][1]


def test_large_inputs_are_streamed_too(gateway: Host) -> None:
    reply = ask(gateway, {"COUNT": 1, "SCRIPT": "x" * 300_000})
    assert [name for name, _ in events(reply.body)] == ["message", "end"]
