"""The gateway's function under Lambda's own runtime client: from a fresh process to its first answer, and warm."""

from __future__ import annotations

import base64
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate.cli.stacks import read_fleet

from assets.building import ASSETS, THIS_PYTHON, build
from bench.gateway import CONTEXT, VALUES
from bench.load import Peer, infer_request, latencies_ms
from bench.rule_sets import bundle, rule_set
from bench.stack import stack
from tests.support.lambda_runtime import Environment

COLD_ROUNDS = 7
ROUNDS = 7
REQUESTS = 300
COLD_LIMIT_MS = 400
ADDED_LIMIT_MS = 2.5
OWN_LIMIT_MS = 0.7
SHOWN_IMPORTS = 8

_PUBLISH = """
import asyncio, sys
from pathlib import Path
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects
from tidegate.aws.provision import provision
from tidegate.ports import LiveEntry
async def publish(url, bucket, table, data):
    clients = AwsClients(AwsConfig(endpoint_url=url, region="us-east-1"))
    await provision(clients, bucket, table)
    store = S3BundleStore(Objects(clients, bucket))
    await store.flip(LiveEntry(await store.put_bundle(data), 1, "bench", 1.0), None)
asyncio.run(publish(*sys.argv[1:4], Path(sys.argv[4]).read_bytes()))
"""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    architecture = "arm64" if platform.machine() == "aarch64" else "x86_64"
    with tempfile.TemporaryDirectory() as directory, stack("bench/rules", "bench/models") as url:
        folder = Path(directory)
        code = build(ASSETS[0], architecture, folder, THIS_PYTHON, Path(sys.executable)).folder
        fleet = read_fleet(url)
        triton = urlsplit(fleet["shards"][0]["endpoints"][0]["url"])
        control = fleet["control"]
        shards = {"TIDEGATE_SHARD_ENDPOINTS": json.dumps({fleet["shards"][0]["name"]: triton.netloc})}
        cold = _cold(control, shards, code, folder)
        warm = _warm({**_variables(control), **shards}, code, folder, triton.hostname or "", triton.port or 80)
        imports = _imports(code)
    return _report(cold, warm, imports)


def _variables(control: Mapping[str, str], bucket: str = "") -> dict[str, str]:
    return {
        "TIDEGATE_AWS_ENDPOINT_URL": control["endpoint_url"],
        "TIDEGATE_BUCKET": bucket or control["bucket"],
        "TIDEGATE_REGISTRY_TABLE": control["registry_table"],
    }


def _cold(control: Mapping[str, str], shards: Mapping[str, str], code: Path, folder: Path) -> dict[str, list[float]]:
    """Milliseconds to the first call for an event, to the answer of the first event, and together."""
    data = folder / "bundle"
    data.write_bytes(bundle(rule_set(1_000)))
    arguments = (control["endpoint_url"], "bench-cold", control["registry_table"], str(data))
    subprocess.run([sys.executable, "-c", _PUBLISH, *arguments], check=True)
    event = _event("/v1/objectives/bench", b"", {}, "GET")
    times: dict[str, list[float]] = {"init": [], "first": [], "both": []}
    for number in range(COLD_ROUNDS + 1):
        variables = {**_variables(control, "bench-cold"), **shards}
        with Environment("tidegate.lambdas.gateway.handler", variables, folder / "log", code) as environment:
            began = time.perf_counter()
            response = environment.invoke(event)
            first_ms = (time.perf_counter() - began) * 1e3
            if response["statusCode"] != 200:
                raise RuntimeError(f"the function answered {response}")
            if number:
                times["init"].append(environment.init_ms)
                times["first"].append(first_ms)
                times["both"].append(environment.init_ms + first_ms)
    return times


def _warm(variables: Mapping[str, str], code: Path, folder: Path, host: str, port: int) -> dict[str, list[float]]:
    """Medians of each round: Triton called directly, an empty function, and the gateway's, whole and by its own word."""
    raw = infer_request("/v2/models/echo/infer", {}, VALUES)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"Inference-Header-Content-Length: (\d+)", head)
    assert length is not None
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": length[1].decode(),
        "tidegate-context": json.dumps(CONTEXT),
    }
    event = _event("/v2/models/echo/infer", body, headers, "POST")
    empty = folder / "empty"
    empty.mkdir()
    (empty / "empty.py").write_text("def handler(event, context):\n    return {'statusCode': 200}\n")
    times: dict[str, list[float]] = {"direct": [], "empty": [], "function": [], "own": []}
    with (
        Environment("tidegate.lambdas.gateway.handler", variables, folder / "warm-log", code) as gateway,
        Environment("empty.handler", {}, folder / "empty-log", empty) as nothing,
    ):
        for _ in range(100):
            gateway.invoke(event)
            nothing.invoke(event)
        for _ in range(ROUNDS):
            times["direct"].append(statistics.median(latencies_ms(Peer("direct", host, port, raw), REQUESTS)))
            times["empty"].append(statistics.median(_invoked(nothing, event)[0]))
            whole, own = _invoked(gateway, event)
            times["function"].append(statistics.median(whole))
            times["own"].append(statistics.median(own))
    return times


def _invoked(environment: Environment, event: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """The time of each invocation, and of it what deciding and dispatching took without Triton, in milliseconds."""
    whole, own = [], []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        response = environment.invoke(event)
        whole.append((time.perf_counter() - began) * 1e3)
        if response["statusCode"] != 200:
            raise RuntimeError(f"the function answered {response}")
        timing = (response.get("headers") or {}).get("server-timing")
        if timing:
            parts = {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", timing)}
            own.append(parts["decide"] + parts["dispatch"] - parts["triton"])
    return whole, own or [0.0]


def _event(path: str, body: bytes, headers: Mapping[str, str], method: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(Path("tests/lambdas/events/http_api.json").read_text())
    event["rawPath"] = path
    event["requestContext"]["http"] |= {"path": path, "method": method}
    event["headers"] = {"host": "bench", "content-length": str(len(body)), **headers}
    event["body"], event["isBase64Encoded"] = base64.b64encode(body).decode(), True
    return event


def _imports(code: Path) -> list[tuple[str, float]]:
    """The packages that the function imports, with the milliseconds that their own modules take, the longest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import tidegate.lambdas.gateway"],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(code), "PATH": "/usr/bin:/bin"},
        cwd=code,
    )
    sums: dict[str, float] = {}
    for own_us, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", done.stderr):
        package = name.partition(".")[0]
        package = package if (code / package).exists() or (code / f"{package}.py").exists() else "standard library"
        sums[package] = sums.get(package, 0.0) + int(own_us) / 1e3
    return sorted(sums.items(), key=lambda each: -each[1])


def _report(cold: Mapping[str, list[float]], warm: Mapping[str, list[float]], imports: list[tuple[str, float]]) -> str:
    first = {name: statistics.median(values) for name, values in cold.items()}
    direct, empty, function, own = (statistics.median(warm[name]) for name in ("direct", "empty", "function", "own"))
    added = statistics.median(mine - bare for mine, bare in zip(warm["function"], warm["direct"], strict=True))
    ours = statistics.median(
        mine - bare - nothing
        for mine, bare, nothing in zip(warm["function"], warm["direct"], warm["empty"], strict=True)
    )
    shares = ", ".join(f"{name} {took:.0f}" for name, took in imports[:SHOWN_IMPORTS])
    return "\n".join(
        [
            "## As a function",
            "",
            "The gateway's packaged asset under `awslambdaric`, against an emulated Runtime API on this machine; S3 is moto.",
            "",
            f"From a fresh process to the answer of the first event, with 1 000 rules read from S3, medians of {COLD_ROUNDS}:",
            "",
            "| | ms | limit |",
            "|---|---:|---:|",
            f"| init: start, runtime client, imports | {first['init']:.0f} | |",
            f"| first event: settings, wiring, pointer and bundle from S3, the answer | {first['first']:.0f} | |",
            f"| together | {first['both']:.0f} | {COLD_LIMIT_MS} ({first['both'] / COLD_LIMIT_MS:.2f} of it) |",
            "",
            f"Imports by package, ms of their own modules: {shares}.",
            "",
            f"Warm, one 1 kB inference, p50 in ms, medians of {ROUNDS} interleaved rounds of {REQUESTS}:",
            "",
            "| | ms | limit |",
            "|---|---:|---:|",
            f"| Triton called directly | {direct:.3f} | |",
            f"| an empty function: runtime client and emulated API alone | {empty:.3f} | |",
            f"| the gateway's function | {function:.3f} | |",
            f"| added to direct | {added:.3f} | {ADDED_LIMIT_MS} ({added / ADDED_LIMIT_MS:.2f} of it) |",
            f"| of which not the empty function's | {ours:.3f} | {OWN_LIMIT_MS} ({ours / OWN_LIMIT_MS:.2f} of it) |",
            f"| of which deciding and dispatching, by Server-Timing | {own:.3f} | |",
            "",
        ]
    )
