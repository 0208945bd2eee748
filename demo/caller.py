"""Sends the demonstration's requests, to `/v1` and `/v2`."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.http as triton
from tidegate.cli.stacks import read_fleet


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: its outputs, the headers of the decision, and the time it took in milliseconds."""

    outputs: Mapping[str, Any]
    headers: Mapping[str, str]
    took_ms: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal: the HTTP status and what the problem document says."""

    status: int
    detail: str


def ask(url: str, objective: str, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answered | Refused:
    """Call `/v1/objectives/{objective}/infer`: plain JSON values in and out."""
    start = time.perf_counter()
    try:
        with _post(f"{url}/v1/objectives/{objective}/infer", {"context": context, "inputs": inputs}) as response:
            document = json.load(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
    except urllib.error.HTTPError as error:
        return Refused(error.code, json.load(error)["detail"])
    return Answered(document["outputs"], headers, (time.perf_counter() - start) * 1e3)


def ask_for_stream(
    url: str, objective: str, context: Mapping[str, Any], inputs: Mapping[str, Any]
) -> Answered | Refused:
    """Call `/v1/objectives/{objective}/stream`: each output has the values of all responses, in order."""
    start = time.perf_counter()
    outputs: dict[str, list[Any]] = {}
    try:
        with _post(f"{url}/v1/objectives/{objective}/stream", {"context": context, "inputs": inputs}) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            for line in response:
                if line.startswith(b"data: "):
                    for name, value in json.loads(line.removeprefix(b"data: ")).get("outputs", {}).items():
                        outputs.setdefault(name, []).append(value)
    except urllib.error.HTTPError as error:
        return Refused(error.code, json.load(error)["detail"])
    return Answered(outputs, headers, (time.perf_counter() - start) * 1e3)


def ask_with_tritonclient(url: str, objective: str, context: Mapping[str, Any], query: str) -> Answered:
    """Call `/v2` with the unmodified `tritonclient.http`; the context travels in a header."""
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    tensor = triton.InferInput("QUERY", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[query.encode()]], dtype=np.object_))
    headers = {"Tidegate-Context": json.dumps(context)}
    start = time.perf_counter()
    result = client.infer(objective, [tensor], headers=headers)
    took_ms = (time.perf_counter() - start) * 1e3
    titles = [title.decode() for title in result.as_numpy("TITLES")[0]]
    client.close()
    return Answered({"TITLES": [titles]}, {"tidegate-model": result.get_response()["model_name"]}, took_ms)


def resolve(url: str, objective: str, context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decision alone, from `/v1/objectives/{objective}/resolve`."""
    with _post(f"{url}/v1/objectives/{objective}/resolve", {"context": context}) as response:
        decision: Mapping[str, Any] = json.load(response)["decision"]
    return decision


def fleet(url: str) -> Mapping[str, Any]:
    """Read `/v1/fleet` as an operator does, like `tidegate status`."""
    return read_fleet(url)


def _post(url: str, document: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=30)
