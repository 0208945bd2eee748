"""The effect of a caller far above its limit on another one."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import infer_request
from bench.stack import stack
from tests.support.quiet_client import QuietReport, quiet_client

ROUNDS = 5
SECONDS = 8.0
QUIET_PER_S = 50
QUIET_CONNECTIONS = 4
LIMIT_PER_S = 100
TIMES = 10
NOISY_CONNECTIONS = 32
VALUES = 256
CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}
HERE = Path("bench")
KINDS = {"alone": 0, "beside a caller at its limit": 1, f"beside a caller at {TIMES} times its limit": TIMES}


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(shutil.copytree(HERE / "rules", Path(folder) / "rules"))
        callers = {"quiet": {"objectives": "*"}, "noisy": {"objectives": "*", "rate_per_s": LIMIT_PER_S}}
        (rules / "callers.yaml").write_text(json.dumps({"callers": callers}))
        with stack(str(rules), str(HERE / "models")) as url:
            port = urlsplit(url).port or 80
            rounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            admitted: list[float] = []
            for turn in range(ROUNDS):
                names = list(KINDS)
                for kind in names[turn % len(names) :] + names[: turn % len(names)]:
                    quiet, noisy = _round(port, KINDS[kind] * LIMIT_PER_S)
                    rounds[kind].append((quiet.percentile_ms(50), quiet.percentile_ms(99)))
                    if noisy is not None and KINDS[kind] == TIMES:
                        admitted.append(
                            sum(count for name, count in noisy.outcomes().items() if name.startswith("200"))
                        )
    return _report(rounds, statistics.median(admitted) / SECONDS)


def _request(caller: str) -> bytes:
    headers = {"Tidegate-Context": json.dumps(CONTEXT), "Tidegate-Caller": caller}
    return infer_request("/v2/models/echo/infer", headers, VALUES)


def _round(port: int, noisy_per_s: int) -> tuple[QuietReport, QuietReport | None]:
    with ExitStack() as clients:
        noisy = None
        if noisy_per_s:
            noise = quiet_client(port, _request("noisy"), per_s=noisy_per_s, connections=NOISY_CONNECTIONS)
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
    alone_ms = statistics.median(p99 for _, p99 in rounds["alone"])
    lines = [
        "## Beside a caller above its limit",
        "",
        f"A quiet caller sends {QUIET_PER_S} requests of 1 kB per second; the limit of the other is {LIMIT_PER_S} per second. Clients, gateway",
        f"and Triton share this machine. Medians of {ROUNDS} interleaved rounds of {SECONDS:.0f} s.",
        "",
        "| the quiet caller | p50, ms | p99, ms | p99 |",
        "|---|---:|---:|---:|",
    ]
    for kind, figures in rounds.items():
        p50_ms, p99_ms = (statistics.median(values) for values in zip(*figures, strict=True))
        lines.append(f"| {kind} | {p50_ms:.2f} | {p99_ms:.2f} | {p99_ms / alone_ms:.2f} × alone |")
    lines += [
        "",
        f"Of the caller at {TIMES} times its limit, {admitted_per_s:.0f} requests per second were answered.",
        "",
    ]
    return "\n".join(lines)
