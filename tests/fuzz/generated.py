"""Requests that Hypothesis makes up: headers, bodies and tensors by hand, all else from the gateway's OpenAPI document."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.fuzz.requests import CANARY, OBJECTIVES
from tests.isolation.place import Place, infer, v1
from tests.support.wire import ask, message

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(CANARY)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["country", "city", "allocations", "sequence_id", "X", "TEXT"]) | st.text(max_size=8)
CONTEXTS = st.dictionaries(NAMES, NESTED, max_size=4)
HEADER_VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
HEADER_NAMES = st.sampled_from(
    ["Tidegate-Context", "Tidegate-Timeout-Ms", "Tidegate-Override", "Content-Type", "Content-Encoding", "traceparent", "X-City",
     "Inference-Header-Content-Length", "Accept-Encoding", "Connection", "baggage", "Endpoint-Load-Metrics-Format"]
)  # fmt: skip
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4)
DATATYPES = st.sampled_from(["FP32", "FP64", "INT32", "INT64", "BYTES", "BOOL", "UINT8", "FP16"])
DIMENSIONS = st.integers(-2, 8) | st.integers(-(1 << 65), 1 << 65)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[dict[str, object], bytes]:
    """An input of `/v2` and its binary data, which need not fit each other."""
    tensor: dict[str, object] = {
        "name": draw(st.sampled_from(["X", "TEXT"]) | st.text(max_size=4)),
        "datatype": draw(DATATYPES),
        "shape": draw(st.lists(DIMENSIONS, max_size=4)),
    }
    if draw(st.booleans()):
        tensor["data"] = draw(st.lists(SCALARS, max_size=8) | NESTED)
        return tensor, b""
    data = draw(st.binary(max_size=64))
    tensor["parameters"] = {"binary_data_size": draw(st.just(len(data)) | DIMENSIONS)}
    return tensor, data


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that infers or resolves."""
    objective, headers = draw(st.sampled_from(OBJECTIVES)), draw(HEADERS)
    if draw(st.booleans()):
        body = {"context": draw(CONTEXTS | NESTED), "inputs": draw(st.dictionaries(NAMES, NESTED, max_size=3))}
        path = f"{objective}/{draw(st.sampled_from(['infer', 'resolve']))}"
        return v1(path, json.dumps(body).encode(), "attacker", headers)
    inputs = draw(st.lists(tensors(), max_size=3))
    document = {"inputs": [tensor for tensor, _ in inputs], "parameters": draw(CONTEXTS)}
    head, data = json.dumps(document).encode(), b"".join(data for _, data in inputs)
    if data or draw(st.booleans()):
        headers = [*headers, ("Inference-Header-Content-Length", str(len(head)))]
    return infer(objective, head + data, "attacker", *headers)


def send_generated(send: Callable[[bytes], None], examples: int, number: int) -> int:
    """Send requests of our own strategies; how many there were."""
    sent = 0

    @seed(number)
    @given(requests())
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def each(request: bytes) -> None:
        nonlocal sent
        sent += 1
        send(request)

    each()
    return sent


def send_described(place: Place, send: Callable[[bytes], None], examples: int, number: int) -> int:
    """Send requests that Schemathesis makes of the gateway's document, and of those of single objectives; how many there were.

    Half of each operation's `examples` break what the document says.
    """
    import schemathesis

    sent = 0
    for path in ("/openapi.json", *(f"/openapi.json?objective={name}" for name in OBJECTIVES)):
        reply = ask(place.port, message("GET", path, [("Tidegate-Caller", "attacker")]))
        assert reply is not None
        document = reply.json()
        _name_objectives(document)
        operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
        for operation, mode in itertools.product(operations, schemathesis.GenerationMode):

            @seed(number)
            @given(operation.as_strategy(generation_mode=mode))
            @settings(max_examples=examples // 2, database=None, deadline=None, suppress_health_check=list(HealthCheck))
            def each(case: Any) -> None:
                nonlocal sent
                sent += 1
                send(_as_bytes(case))

            # Where an operation takes nothing, nothing can break what the document says of it.
            with contextlib.suppress(Unsatisfiable):
                each()
    return sent


def _name_objectives(node: Any) -> None:
    """Let the parameter `objective` of every path be one of those that there are."""
    if isinstance(node, dict):
        if node.get("in") == "path" and node.get("name") == "objective":
            node["schema"] = {"type": "string", "enum": list(OBJECTIVES)}
        for value in node.values():
            _name_objectives(value)
    elif isinstance(node, list):
        for value in node:
            _name_objectives(value)


def _as_bytes(case: Any) -> bytes:
    headers = [(name, str(value)) for name, value in dict(case.headers or {}).items() if name != "Tidegate-Caller"]
    headers = [("Tidegate-Caller", "attacker"), *headers]
    body = case.body
    if isinstance(body, bytes):
        data = body
    elif type(body).__name__ == "NotSet" or body is None:
        data = b""
    else:
        data = json.dumps(body).encode()
    if case.media_type:
        headers.append(("Content-Type", case.media_type))
    query = f"?{urlencode(case.query, doseq=True)}" if case.query else ""
    lines = [f"{case.method.upper()} {case.formatted_path}{query} HTTP/1.1", "Host: a"]
    lines += [f"{name}: {value}" for name, value in headers]
    if data:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + data
