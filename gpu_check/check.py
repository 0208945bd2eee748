"""Runs on the machine with the GPU, from the unpacked archive: `python3 check.py`. `--cpu` does everything but the GPU's part.

It starts Triton and the gateway, compares the answers of the GPU with the CPU's, measures at 1 and at 64 connections, and prints a
table. It needs Python 3.12 (or the Python that the archive was made for), NumPy and PyTorch, and no network. It ends within six minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

HERE = Path(__file__).resolve().parent
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
WIDTH = 256
CONNECTIONS = (1, 64)
STARTS_WITHIN_S = 120.0
ROWS = 32
REFUSED_S = 0.01
TAIL_LINES = 30
TOLERANCE = 1e-3
"""Largest difference of the GPU's answers from the CPU's, as a part of the largest value of the answer."""

PATHS = [str(HERE / f"site-{PYTHON}"), str(HERE / "site")]


class CheckError(Exception):
    """Why the check cannot go on."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def look(on_cpu: bool) -> dict[str, str]:
    """Return what this machine has. Raises `CheckError`: a part is missing."""
    found = {"python": platform.python_version(), "cores": str(os.cpu_count())}
    stub = HERE / "site" / "pytriton" / "tritonserver" / "python_backend_stubs" / PYTHON
    if not stub.is_dir():
        made_for = ", ".join(sorted(each.name for each in stub.parent.iterdir()))
        raise CheckError(f"this is Python {PYTHON}, and the archive was made for {made_for}: run it with one of these")
    library = f"libpython{PYTHON}.so.1.0"
    if not (Path(sysconfig.get_config_var("LIBDIR") or "") / library).is_file():
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise CheckError(f"{library} is missing, to which Triton's Python backend links: install it") from error
    try:
        import numpy
    except ImportError as error:
        raise CheckError(f"NumPy is missing for {sys.executable}") from error
    found["numpy"] = numpy.__version__
    try:
        import torch
    except ImportError as error:
        if not on_cpu:
            raise CheckError(f"PyTorch is missing for {sys.executable}; `--cpu` checks all but the GPU") from error
        return found | {"torch": "none", "gpu": "none"}
    found["torch"] = torch.__version__
    if on_cpu:
        return found | {"gpu": "none"}
    if not torch.cuda.is_available():
        raise CheckError("PyTorch finds no GPU; `--cpu` checks all but the GPU")
    return found | {"gpu": torch.cuda.get_device_name(0), "cuda": str(torch.version.cuda)}


def environment(work: Path) -> tuple[str, str, dict[str, str]]:
    """Build Triton's folders. Return the server, its backend directory, and the variables that it needs."""
    from tidegate.triton.installation import find_installation

    installation = find_installation(cache_dir=work / "cache")
    return str(installation.server), str(installation.backend_directory), installation.environment()


@contextmanager
def running(command: list[str], variables: dict[str, str], log: Path, ready: str) -> Iterator[None]:
    """Run a server until the block ends. Raises `CheckError`: it does not get ready; the message has the end of its log."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while not answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                lines = log.read_text(errors="replace").splitlines()
                errors = [line for line in lines[:-TAIL_LINES] if line.startswith("E") or "rror" in line]
                tail = "\n".join([*errors[:TAIL_LINES], *lines[-TAIL_LINES:]])
                raise CheckError(f"{Path(command[0]).name} is not ready; the end of its log:\n{tail}")
            time.sleep(0.2)
        yield
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, kind)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def models_for(work: Path, on_cpu: bool) -> Path:
    """Copy the models, which Triton must not write into; without a GPU all of them run on the CPU."""
    models = work / "models"
    shutil.copytree(HERE / "models", models)
    for config in models.glob("*/config.pbtxt"):
        if on_cpu:
            config.write_text(config.read_text().replace("KIND_GPU", "KIND_CPU"))
    for ensemble in models.glob("scorer_*"):
        (ensemble / "1").mkdir(exist_ok=True)
    return models


def request_of(path: str, rows: bytes, count: int, headers: str = "") -> bytes:
    """Return a whole HTTP request with one binary tensor, which asks for a binary one."""
    document = {
        "inputs": [
            {
                "name": "INPUT",
                "shape": [count, WIDTH],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(rows)},
            }
        ],
        "outputs": [{"name": "OUTPUT", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(document).encode()
    return (
        (
            f"POST {path} HTTP/1.1\r\nHost: check\r\nContent-Length: {len(head) + len(rows)}\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\n{headers}\r\n"
        ).encode()
        + head
        + rows
    )


def rows_of(seed: int, count: int) -> bytes:
    import numpy

    drawn: bytes = numpy.random.RandomState(seed).standard_normal((count, WIDTH)).astype(numpy.float32).tobytes()
    return drawn


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, dict[str, str], bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def compare(port: int) -> tuple[float, int]:
    """Return the largest difference of the two devices' answers, as a part of the largest value, over `ROWS` rows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    worst = 0.0
    for seed in range(ROWS):
        found = []
        for device in ("gpu", "cpu"):
            header = f'Tidegate-Context: {{"device": "{device}"}}\r\n'
            status, headers, body = await ask(
                reader, writer, request_of("/v2/models/scoring/infer", rows_of(seed, 1), 1, header)
            )
            if status != 200:
                raise CheckError(f"the gateway answered {status}: {body[:500]!r}")
            if headers.get("tidegate-model") != f"scorer_{device}":
                raise CheckError(f"the gateway chose {headers.get('tidegate-model')} for the device {device}")
            tensor = body[int(headers["inference-header-content-length"]) :]
            found.append(struct.unpack(f"<{WIDTH}f", tensor))
        largest = max(map(abs, found[1]))
        worst = max(worst, *(abs(a - b) / largest for a, b in zip(*found, strict=True)))
    writer.close()
    return worst, ROWS


@dataclass(frozen=True)
class Measured:
    """Requests answered in a second, latencies of these in milliseconds, and how many were refused as too many (503)."""

    rate: float
    p50_ms: float
    p99_ms: float
    refused: int


async def load(port: int, request: bytes, connections: int, seconds: float) -> Measured:
    """Ask over some connections without a pause, and after a refusal with a short one."""
    took_ms: list[float] = []
    refused = 0
    until = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            status, _, body = await ask(reader, writer, request)
            if status == 503:
                refused += 1
                await asyncio.sleep(REFUSED_S)
                continue
            if status != 200:
                raise CheckError(f"under load a request was answered with {status}: {body[:500]!r}")
            took_ms.append((time.perf_counter() - began) * 1000)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    if not took_ms:
        raise CheckError(f"under load no request was answered, and {refused} were refused")
    cuts = quantiles(took_ms, n=100) if len(took_ms) > 1 else [took_ms[0]] * 99
    return Measured(len(took_ms) / (time.perf_counter() - began), cuts[49], cuts[98], refused)


def metrics(port: int) -> dict[str, float]:
    """Return Triton's metrics, added up by name, those of a model as `name:model`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        series, _, value = line.rpartition(" ")
        name, _, labels = series.partition("{")
        model = labels.partition('model="')[2].partition('"')[0]
        key = f"{name}:{model}" if model else name
        found[key] = found.get(key, 0.0) + float(value)
    return found


def queue_ratio(before: dict[str, float], after: dict[str, float], model: str) -> float:
    """Return the time that requests waited for a model, as a part of the time that it computed for them."""
    queued, computed = (
        after.get(f"nv_inference_{name}_duration_us:{model}", 0)
        - before.get(f"nv_inference_{name}_duration_us:{model}", 0)
        for name in ("queue", "compute_infer")
    )
    return queued / computed if computed else 0.0


async def serve_gateway(port: int, triton_port: int) -> None:
    """Serve the gateway over the archive's rules, in front of one Triton."""
    from tidegate.bootstrap import build_gateway
    from tidegate.listener import Listener, ListenerConfig
    from tidegate.ports import Endpoint
    from tidegate.rules import load_bundle
    from tidegate.settings import Settings
    from tidegate.testing.gateway import MemoryEndpointDirectory, MemoryEngineSource

    engine = MemoryEngineSource(load_bundle((HERE / "rules.bundle").read_bytes()))
    directory = MemoryEndpointDirectory({"gpu": (Endpoint("gpu", "127.0.0.1", triton_port),)})
    gateway = build_gateway(Settings(), engine, directory)
    listener = Listener(gateway.app, ListenerConfig())
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    await listener.start(bound)
    await asyncio.Event().wait()


def check(on_cpu: bool, seconds: float, work: Path) -> str:
    """Run everything. Return the table as Markdown."""
    found = look(on_cpu)
    server, backends, variables = environment(work)
    http, gateway, scraped = free_port(), free_port(), free_port()
    command = [server, f"--model-repository={models_for(work, on_cpu)}", f"--backend-directory={backends}"]
    command += [f"--{kind}-address=127.0.0.1" for kind in ("http", "metrics")]
    command += [f"--http-port={http}", f"--metrics-port={scraped}", "--allow-grpc=false", "--http-thread-count=32"]
    command += ["--disable-auto-complete-config", "--strict-readiness=true", "--metrics-interval-ms=500"]
    own = os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)}
    lines: list[str] = []
    worst_gpu: dict[str, float] = {}
    with ExitStack() as stack:
        began = time.monotonic()
        stack.enter_context(
            running(command, variables, work / "triton.log", f"http://127.0.0.1:{http}/v2/health/ready")
        )
        started_s = time.monotonic() - began
        serve = [sys.executable, __file__, "--serve", str(gateway), str(http)]
        stack.enter_context(running(serve, own, work / "gateway.log", f"http://127.0.0.1:{gateway}/v2/health/live"))
        difference, rows = asyncio.run(compare(gateway))
        if difference > TOLERANCE:
            raise CheckError(f"the GPU's answers differ from the CPU's by {difference:.2g} of the largest value")
        body = rows_of(0, 1)
        peers = {
            "Triton": (http, request_of("/v2/models/scorer_gpu/infer", body, 1)),
            "the gateway": (
                gateway,
                request_of("/v2/models/scoring/infer", body, 1, 'Tidegate-Context: {"device": "gpu"}\r\n'),
            ),
        }
        for name, (port, request) in peers.items():
            for connections in CONNECTIONS:
                asyncio.run(load(port, request, connections, min(1.0, seconds)))
                before = metrics(scraped)
                measured = asyncio.run(load(port, request, connections, seconds))
                after = metrics(scraped)
                worst_gpu |= {
                    key: max(value, worst_gpu.get(key, 0.0))
                    for key, value in after.items()
                    if key.startswith("nv_gpu_")
                }
                lines.append(
                    f"| {name} | {connections} | {measured.rate:,.0f} | {measured.p50_ms:.2f} | {measured.p99_ms:.2f} | {measured.refused:,} | "
                    f"{queue_ratio(before, after, 'mlp_gpu'):.2f} |"
                )
    if not on_cpu and not worst_gpu:
        raise CheckError("Triton has no metric nv_gpu_*: its DCGM finds no GPU")
    machine = ", ".join(f"{name} {value}" for name, value in found.items())
    gpu = "\n".join(f"| `{name}` | {value:,.2f} |" for name, value in sorted(worst_gpu.items())) or "| none | |"
    library = "NumPy" if found["torch"] == "none" else "PyTorch"
    where = "on the CPU, too: a dry run that says nothing of a GPU" if on_cpu else "on the GPU"
    return (
        f"An ensemble of two Python steps, the second in {library} {where}. Answers of {rows} rows differ from the CPU's by at most "
        f"{difference:.1e} of the largest value. Triton was ready after {started_s:.0f} s.\n\n"
        "| asked | connections | answers/s | p50, ms | p99, ms | refused | queue / compute |\n|---|---:|---:|---:|---:|---:|---:|\n"
        + "\n".join(lines)
        + f"\n\n| most during the measurement | |\n|---|---:|\n{gpu}\n\n*{datetime.now(UTC):%Y-%m-%d}, {machine}.*\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the stack on a GPU.")
    parser.add_argument("--cpu", action="store_true", help="everything but the GPU's part, on any machine")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="how long each of the four measurements takes (default: 15)"
    )
    parser.add_argument("--out", type=Path, help="file for the table, beside standard output")
    parser.add_argument("--serve", nargs=2, type=int, metavar=("PORT", "TRITON"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not 0.1 <= arguments.seconds <= 30:
        parser.error(f"--seconds: {arguments.seconds:g} is not from 0.1 to 30")
    sys.path[:0] = PATHS
    if arguments.serve:
        asyncio.run(serve_gateway(*arguments.serve))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as work:
        try:
            table = check(arguments.cpu, arguments.seconds, Path(work))
        except CheckError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(table)
    if arguments.out is not None:
        arguments.out.write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
