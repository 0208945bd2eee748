"""The effect of a caller far above its limit on another one.

The clients share the cores with what they ask. So the same requests are also sent to a bare server beside the gateway, which answers each
with a constant: what the quiet caller loses then is the clients', and no gateway's.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import infer_request
from bench.stack import stack
from tests.support.quiet_client import QuietReport, quiet_client

ROUNDS = 7
SECONDS = 8.0
QUIET_PER_S = 150
QUIET_CONNECTIONS = 4
LIMIT_PER_S = 100
TIMES = 10
NOISY_CONNECTIONS = 32
VALUES = 256
CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}
HERE = Path("bench")
ALONE = "alone"
ELSEWHERE = "beside the same client, which asks a bare server"
ABOVE = f"beside a caller at {TIMES} times its limit"
KINDS = {ALONE: 0, "beside a caller at its limit": 1, ABOVE: TIMES, ELSEWHERE: TIMES}
BARE_SERVER = """
import asyncio, uvloop
class Constant(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, b""
    def data_received(self, data):
        self.got += data
        head, _, body = self.got.partition(b"\\r\\n\\r\\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\\r\\n")[0] or 1 << 60)
        if len(body) >= length:
            self.got = b""
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
async def main():
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(shutil.copytree(HERE / "rules", Path(folder) / "rules"))
        callers = {"quiet": {"objectives": "*"}, "noisy": {"objectives": "*", "rate_per_s": LIMIT_PER_S}}
        (rules / "callers.yaml").write_text(json.dumps({"callers": callers}))
        with stack(str(rules), str(HERE / "models")) as url, _bare_server() as bare_port:
            port = urlsplit(url).port or 80
            rounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            admitted: list[float] = []
            for turn in range(ROUNDS):
                names = list(KINDS)
                for kind in names[turn % len(names) :] + names[: turn % len(names)]:
                    noisy_port = bare_port if kind == ELSEWHERE else port
                    quiet, noisy = _round(port, noisy_port, KINDS[kind] * LIMIT_PER_S)
                    rounds[kind].append((quiet.percentile_ms(50), quiet.percentile_ms(99)))
                    if noisy is not None and kind == ABOVE:
                        admitted.append(
                            sum(count for name, count in noisy.outcomes().items() if name.startswith("200"))
                        )
    return _report(rounds, statistics.median(admitted) / SECONDS)


def _request(caller: str) -> bytes:
    headers = {"Tidegate-Context": json.dumps(CONTEXT), "Tidegate-Caller": caller}
    return infer_request("/v2/models/echo/infer", headers, VALUES)


@contextmanager
def _bare_server() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", BARE_SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _round(port: int, noisy_port: int, noisy_per_s: int) -> tuple[QuietReport, QuietReport | None]:
    with ExitStack() as clients:
        noisy = None
        if noisy_per_s:
            noise = quiet_client(noisy_port, _request("noisy"), per_s=noisy_per_s, connections=NOISY_CONNECTIONS)
            noisy = clients.enter_context(noise)
        quiet = clients.enter_context(
            quiet_client(port, _request("quiet"), per_s=QUIET_PER_S, connections=QUIET_CONNECTIONS)
        )
        time.sleep(SECONDS)
        seen = quiet.stop()
        if any(not outcome.startswith("200") for outcome in seen.outcomes()):
            raise RuntimeError(f"the quiet caller was not always answered: {dict(seen.outcomes())}")
        return seen, None if noisy is None else noisy.stop()


def _report(rounds: dict[str, list[tuple[float, float]]], admitted_per_s: float) -> str:
    alone_ms = statistics.median(p99 for _, p99 in rounds[ALONE])
    elsewhere_ms = statistics.median(p99 for _, p99 in rounds[ELSEWHERE])
    lines = [
        "## Beside a caller above its limit",
        "",
        f"A quiet caller sends {QUIET_PER_S} requests of 1 kB per second; the limit of the other is {LIMIT_PER_S} per second. Clients, gateway",
        f"and Triton share this machine. Medians of {ROUNDS} interleaved rounds of {SECONDS:.0f} s.",
        "",
        "| the quiet caller | p50, ms | p99, ms | p99 | p99 |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, figures in rounds.items():
        p50_ms, p99_ms = (statistics.median(values) for values in zip(*figures, strict=True))
        lines.append(
            f"| {kind} | {p50_ms:.2f} | {p99_ms:.2f} | {p99_ms / alone_ms:.2f} × alone | {p99_ms / elsewhere_ms:.2f} × bare |"
        )
    lines += [
        "",
        f"Of the caller at {TIMES} times its limit, {admitted_per_s:.0f} requests per second were answered.",
        "",
    ]
    return "\n".join(lines)
