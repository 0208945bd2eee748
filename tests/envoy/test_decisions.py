"""Envoy gets the decisions that the gateway makes: for random rules, and contexts that look for their edges."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tidegate.envoy.plans import PLAN_HEADER, cluster_of, shapes
from tidegate.gateway import Dispatcher
from tidegate.oip.paths import model_path
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.decided import header_value
from tidegate.web.in_process import HeadLimits, InProcess, LiveEngine

from tests.rules.oracle import Directory
from tests.rules.strategies import contexts, directories, write_directory
from tests.support.effort import examples

CONTEXTS = 15


def encoded(headers: dict[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers.items():
        yield name.lower().encode(), value.encode()


async def asked(app: Any, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[str, str], Any]:
    """Status, headers and document of an app's answer to a POST."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "http_version": "1.1",
        "headers": [*encoded(headers)], "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive() -> Any:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    content = sent[1]["body"]
    return sent[0]["status"], found, json.loads(content) if content else None


@settings(
    max_examples=examples(200),
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(directories(), st.integers(0, 2**32))
def test_a_proxy_is_told_what_the_gateway_decides(directory: Directory, seed: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        engine = load_bundle(compile_directory(write_directory(directory, Path(root))))
    clusters = {cluster_of(shape) for shape in shapes(engine)}

    async def compare() -> None:
        dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
        live = LiveEngine()
        app = create_app(engines=live, dispatcher=dispatcher, authorizes=True)
        inner = InProcess(app.authorization, live, HeadLimits(65_536, 256, 8_192), lambda *_: None)
        for objective in engine.objectives:
            live.seen(engine)
            for values, _ in contexts(seed, directory, objective, CONTEXTS):
                try:
                    text = json.dumps(values, allow_nan=False)
                except (TypeError, ValueError):
                    # No caller can send it.
                    continue
                status, headers, refused = await asked(
                    app, f"/authorize/v2/models/{objective}/infer", {"Tidegate-Context": text}
                )
                body = f'{{"context": {text}}}'.encode()
                kind = {"Content-Type": "application/json"}
                resolved, _, document = await asked(app, f"/v1/objectives/{objective}/resolve", kind, body)
                assert status == resolved, (values, refused, document)
                live.seen(engine)
                directions = inner.decide(
                    b"POST", f"/v2/models/{objective}/infer".encode(), list(encoded({"Tidegate-Context": text})), 100
                )
                assert (directions is None) == (status != 200)
                if directions is not None:
                    # The same, but for the shard, which Envoy names by the server that answers.
                    to_server, to_caller, plan = directions
                    told = {name.decode().lower(): value.decode() for name, value in (*to_server, *to_caller)}
                    planned = {} if plan is None else {PLAN_HEADER: plan.decode()}
                    assert told | planned == {k: v for k, v in headers.items() if k != "tidegate-shard"}
                if status != 200:
                    assert refused["error"] == document["detail"]
                    continue
                decision = document["decision"]
                assert headers["x-tidegate-path"] == model_path(decision["model"], decision["version"], "/infer")
                assert headers["x-tidegate-shard"] in clusters
                places = [decision["shards"], *(each["shards"] for each in decision["fallbacks"])]
                assert headers["x-tidegate-shard"] == ">".join("+".join(each) for each in places)
                for name in ("rule", "variant", "cell", "reason"):
                    shown = None if decision[name] is None else header_value(str(decision[name])).decode()
                    assert headers.get(f"tidegate-{name}") == shown
                given_ = {name: value for name, value in headers.items() if name.startswith("tidegate-param-")}
                assert len(given_) == len({each.lower() for each in decision["parameters"]}) + 1

    asyncio.run(compare())
