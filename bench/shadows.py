"""What shadows cost the callers of the primary: throughput with every request copied, and latency beside a shadow that hangs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate.cli.stacks import read_fleet

from bench.load import Peer, infer_request, throughput_per_s
from bench.stack import model_config, stack
from tests.support.quiet_client import quiet_client

ROUNDS = 3
THROUGHPUT_S = 6.0
CONNECTIONS = 8
QUIET_S = 9.0
QUIET_PER_S = 200
QUIET_CONNECTIONS = 8
VALUES = 256
SETTLE_S = 3.0
CONTEXT = json.dumps({"member_id": "1138", "country": "US", "device": "tv"})
HERE = Path("bench")
SHADOWS = {"plain": None, "copied": "twin", "hung": "hangs"}
"""The objectives, and the shadow of each."""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules, models = _write(Path(folder))
        with stack(str(rules), str(models)) as url:
            port = urlsplit(url).port or 80
            peers = {name: _peer(port, f"/v2/models/{name}/infer") for name in SHADOWS}
            per_s: dict[str, list[float]] = {"plain": [], "beside the model's work": [], "copied": []}
            p99_ms: dict[str, list[float]] = {"plain": [], "copied": [], "hung": [], "stopped": []}
            gateway = read_fleet(url)["gateway"]["pid"]
            cpu_us: dict[str, list[float]] = {"plain": [], "copied": [], "hung": []}
            for _ in range(ROUNDS):
                before = _sent(url)
                for name, taken in cpu_us.items():
                    began_us = _cpu_us(gateway)
                    found = throughput_per_s(peers[name], CONNECTIONS, THROUGHPUT_S)
                    taken.append((_cpu_us(gateway) - began_us) / (found * THROUGHPUT_S))
                    if name in per_s:
                        per_s[name].append(found)
                time.sleep(SETTLE_S)
                copies_per_s = (_sent(url) - before) / THROUGHPUT_S
                server = _shadows_server(url)
                twin = _peer(urlsplit(server["url"]).port or 80, "/v2/models/twin/infer")
                per_s["beside the model's work"].append(_beside(peers["plain"], twin, copies_per_s))
                for name, peer in peers.items():
                    p99_ms[name].append(_p99_ms(peer))
                server = _shadows_server(url)
                os.kill(server["pid"], signal.SIGSTOP)
                try:
                    p99_ms["stopped"].append(_p99_ms(peers["copied"]))
                finally:
                    # One that was stopped for too long was replaced.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(server["pid"], signal.SIGCONT)
                time.sleep(SETTLE_S)
            counts = read_fleet(url)["gateway"]["shadows"]
    return _report(per_s, cpu_us, p99_ms, counts)


def _shadows_server(url: str) -> dict[str, Any]:
    """The server of the shadows, once it is ready: one that hangs is replaced."""
    while True:
        (beta,) = [shard for shard in read_fleet(url)["shards"] if shard["name"] == "beta"]
        found: list[dict[str, Any]] = [each for each in beta["endpoints"] if each["state"] == "ready"]
        if found:
            return found[0]
        time.sleep(SETTLE_S)


def _write(folder: Path) -> tuple[Path, Path]:
    """The echo model, a twin of it on a server of its own, and a model there that answers no shadow."""
    models = Path(shutil.copytree(HERE / "models", folder / "models"))
    shutil.copytree(models / "echo", models / "twin")
    shutil.copytree(models / "echo_step", models / "twin_step")
    for name in ("twin", "twin_step"):
        config = models / name / "config.pbtxt"
        config.write_text(config.read_text().replace("echo", "twin"))
    shutil.copytree(models / "echo_step", models / "hangs")
    (models / "hangs" / "config.pbtxt").write_text(model_config("hangs"))
    code = (models / "hangs" / "1" / "model.py").read_text()
    code = code.replace("import triton_python", "import time\n\nimport triton_python")
    code = code.replace(
        "        return [",
        '        time.sleep(3600 * any("shadow" in (each.parameters() or "") for each in requests))\n        return [',
    )
    (models / "hangs" / "1" / "model.py").write_text(code)
    rules = folder / "rules"
    (rules / "objectives").mkdir(parents=True)
    placement = {"echo": ["alpha"], "twin": ["beta"], "hangs": ["beta"]}
    fleet = {"shards": {"alpha": {}, "beta": {}}, "models": {name: {"shards": on} for name, on in placement.items()}}
    (rules / "fleet.yaml").write_text(json.dumps(fleet))
    head = (HERE / "rules" / "objectives" / "echo.yaml").read_text().partition("rules:")[0]
    for name, shadow in SHADOWS.items():
        rule = {"id": "default", "serve": "echo"} | ({} if shadow is None else {"shadow": {shadow: 100}})
        text = head.replace("objective: echo", f"objective: {name}") + f"rules: [{json.dumps(rule)}]\n"
        (rules / "objectives" / f"{name}.yaml").write_text(text)
    return rules, models


def _peer(port: int, path: str) -> Peer:
    return Peer(path, "127.0.0.1", port, infer_request(path, {"Tidegate-Context": CONTEXT}, VALUES))


def _sent(url: str) -> int:
    sent: int = read_fleet(url)["gateway"]["shadows"]["sent"]
    return sent


def _beside(plain: Peer, twin: Peer, copies_per_s: float) -> float:
    """Throughput without copies, while another process asks the twin as often as it got copies."""
    with quiet_client(twin.port, twin.request, per_s=max(copies_per_s, 1.0), connections=CONNECTIONS) as client:
        found = throughput_per_s(plain, CONNECTIONS, THROUGHPUT_S)
        client.stop()
    return found


def _p99_ms(peer: Peer) -> float:
    with quiet_client(peer.port, peer.request, per_s=QUIET_PER_S, connections=QUIET_CONNECTIONS) as client:
        time.sleep(QUIET_S)
        report = client.stop()
    failed = [outcome for outcome in report.outcomes() if not outcome.startswith("200")]
    if failed:
        raise RuntimeError(f"requests failed: {failed}")
    return report.percentile_ms(99)


def _cpu_us(process: int) -> float:
    """CPU time of a process so far, in microseconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def _report(
    per_s: dict[str, list[float]],
    cpu_us: dict[str, list[float]],
    p99_ms: dict[str, list[float]],
    counts: dict[str, int | dict[str, int]],
) -> str:
    rate = {name: statistics.median(found) for name, found in per_s.items()}
    p99 = {name: statistics.median(found) for name, found in p99_ms.items()}
    beside = rate["beside the model's work"]
    cpu = {name: statistics.median(found) for name, found in cpu_us.items()}

    def row(words: str, name: str) -> str:
        return f"| {words} | {p99[name]:.2f} | {p99[name] / p99['plain']:.2f} |"

    return "\n".join(
        [
            "## Shadows",
            "",
            "An ensemble of one Python step, asked with 1 kB; its shadow is a copy of it on a Triton of its own. Clients, gateway, the",
            f"process that sends copies, and both Tritons share this machine. Medians of {ROUNDS} rounds.",
            "",
            f"| {CONNECTIONS} connections without a pause | requests per second |",
            "|---|---:|",
            f"| no shadow | {rate['plain']:,.0f} |",
            f"| no shadow, while another client asks the shadow as often as it gets copies below | {beside:,.0f} |",
            f"| every request copied | {rate['copied']:,.0f} |",
            "",
            f"So copying costs {100 * (1 - rate['copied'] / beside):.0f} % of the throughput beside the model's own work. Of all copies,",
            f"{counts['sent']:,} were sent, and the others dropped: {json.dumps(counts['dropped'])}.",
            "",
            f"The gateway takes {cpu['plain']:.0f} µs of CPU for a request, {cpu['copied']:.0f} with a copy of it, and {cpu['hung']:.0f} where the shadow",
            "hangs, so that nearly every copy is dropped.",
            "",
            f"| {QUIET_PER_S} requests per second | p99, ms | of no shadow |",
            "|---|---:|---:|",
            row("no shadow", "plain"),
            row("every request copied", "copied"),
            row("… to a model that answers no copy", "hung"),
            row("… to a server that is stopped (SIGSTOP)", "stopped"),
            "",
        ]
    )


if __name__ == "__main__":
    print(run())
