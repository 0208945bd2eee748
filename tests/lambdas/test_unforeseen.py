"""An error that nobody foresaw is answered in the form of the door that was asked, and its words are told to nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVENT = Path(__file__).parent / "events" / "http_api.json"
SECRET = "member 4711"

PROCESS = """
import asyncio, json, sys, types

from tidegate.aws.http_function import HttpFunction
from tidegate.aws.telemetry import Telemetry

how, event, secret = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]


async def app(scope, receive, send):
    if how != "at once":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    if how == "in the body":
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError(secret)


asyncio.set_event_loop(asyncio.new_event_loop())
freshness = types.SimpleNamespace(measured_age_s=0.0, poll_if_due=lambda: None)
function = HttpFunction(app, freshness, Telemetry("gateway"))
context = types.SimpleNamespace(aws_request_id="r-1")
answers = [function(event, context) for _ in range(2)]
print("\\n" + json.dumps(answers))
"""


@pytest.mark.parametrize("how", ["at once", "after its head", "in the body"])
@pytest.mark.parametrize("path", ["/v2/models/adding/infer", "/v1/objectives/adding/infer"])
def test_an_unforeseen_error_is_answered_in_the_doors_form(how: str, path: str) -> None:
    event = json.loads(EVENT.read_text(encoding="utf-8")) | {"rawPath": path}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, how, json.dumps(event), SECRET], capture_output=True, text=True, check=True
    )
    logged, _, last = done.stdout.rstrip().rpartition("\n")
    for answer in json.loads(last):
        assert answer["statusCode"] == 500
        document: Any = json.loads(answer["body"])
        if path.startswith("/v2"):
            assert document == {"error": "internal error, request r-1"}
        else:
            assert answer["headers"]["content-type"] == "application/problem+json"
            assert (document["status"], document["detail"]) == (500, "internal error, request r-1")
    assert "unforeseen RuntimeError" in logged
    assert SECRET not in done.stdout + done.stderr
