"""Envoy gets the decisions that the gateway makes: for random rules, and contexts that look for their edges."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tidegate.envoy.plans import cluster_of, shapes
from tidegate.gateway import Dispatcher
from tidegate.oip.paths import model_path
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.decided import header_value

from tests.rules.oracle import Directory
from tests.rules.strategies import contexts, directories, write_directory
from tests.support.effort import examples

CONTEXTS = 15


async def asked(app: Any, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[str, str], Any]:
    """Status, headers and document of an app's answer to a POST."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "http_version": "1.1",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()], "client": ("127.0.0.1", 1),
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
        app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, authorizes=True)
        for objective in engine.objectives:
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
