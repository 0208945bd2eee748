"""The cost of importing the gateway, and that it runs without a server of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

from tidegate.rules import Engine

from tests.web.conftest import FakeTriton, gateway_app

HEAVY = ["grpc", "tidegate.rpc", "numpy", "pydantic", "boto3", "tritonclient", "yaml", "uvicorn", "uvloop", "httpx", "jinja2", "starlette.testclient", "starlette.templating"]  # fmt: skip


def test_the_gateway_imports_nothing_heavy() -> None:
    code = (
        "import sys, tidegate.web, tidegate.gateway, tidegate.triton.transport, tidegate.rules\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_one_app_serves_one_event_loop_after_another(engine: Engine, fake: FakeTriton) -> None:
    """Call the app as an adapter for serverless functions does, on plain asyncio."""
    app = gateway_app(engine, {"main": fake.port})
    scope = {
        "type": "http", "method": "POST", "path": "/v2/models/echoing/infer", "headers": [], "query_string": b"",
    }  # fmt: skip

    async def once(left_ms: int) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        class Context:
            def get_remaining_time_in_millis(self) -> int:
                return left_ms

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({**scope, "aws.context": Context()}, receive, send)
        return sent

    for _ in range(3):
        start, body = asyncio.run(once(5000))
        assert (start["status"], body["body"]) == (200, b"{}")
    start, _ = asyncio.run(once(10))
    assert start["status"] == 504, "the function has no time left for a request"
