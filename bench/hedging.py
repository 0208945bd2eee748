"""What hedging saves the callers of a model that stalls now and then, and what it costs: two real Tritons, one stack."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.cli.stacks import read_fleet

from bench.load import infer_request
from bench.stack import model_config, stack
from tests.support.quiet_client import quiet_client

ROUNDS = 3
ROUND_S = 30.0
PER_S = 50
CONNECTIONS = 30
WORK_MS = 10
STALL_MS = 300
STALLS = 0.02
HERE = Path("bench")


@dataclass(frozen=True, slots=True)
class Seen:
    """A round: milliseconds, and executions of the model for each request."""

    p50_ms: float
    p99_ms: float
    executions: float


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules, models = _write(Path(folder))
        with stack(str(rules), str(models)) as url:
            _seen(url, "hedged")  # its latencies are known from then on
            seen: dict[str, list[Seen]] = {"plain": [], "hedged": []}
            for _ in range(ROUNDS):
                for objective, rounds in seen.items():
                    rounds.append(_seen(url, objective))
    return _report(seen)


def _write(folder: Path) -> tuple[Path, Path]:
    rules = Path(shutil.copytree(HERE / "rules", folder / "rules"))
    models = Path(shutil.copytree(HERE / "models", folder / "models"))
    (rules / "fleet.yaml").write_text(
        "shards:\n  alpha: {replicas: 2}\nmodels:\n  echo: {shards: [alpha]}\n  stalling: {shards: [alpha]}\n"
    )
    head = (rules / "objectives" / "echo.yaml").read_text().partition("rules:")[0]
    for name, more in (("plain", ""), ("hedged", ", hedge_at: p95")):
        (rules / "objectives" / f"{name}.yaml").write_text(
            head.replace("objective: echo", f"objective: {name}") + f"rules: [{{id: default, serve: stalling{more}}}]\n"
        )
    (models / "stalling" / "1").mkdir(parents=True)
    (models / "stalling" / "config.pbtxt").write_text(model_config("stalling", instances=4))
    code = (models / "echo_step" / "1" / "model.py").read_text()
    code = code.replace("import triton_python", "import random\nimport time\n\nimport triton_python")
    wait = f"time.sleep({STALL_MS / 1e3} if random.random() < {STALLS} else {WORK_MS / 1e3})"
    code = code.replace("        return [", f"        {wait}\n        return [")
    (models / "stalling" / "1" / "model.py").write_text(code)
    return rules, models


def _seen(url: str, objective: str) -> Seen:
    port = urlsplit(url).port or 80
    context = {"Tidegate-Context": json.dumps({"member_id": "1138", "country": "US", "device": "tv"})}
    request = infer_request(f"/v2/models/{objective}/infer", context, 16)
    before = _executions(url)
    with quiet_client(port, request, per_s=PER_S, connections=CONNECTIONS) as client:
        time.sleep(ROUND_S)
        report = client.stop()
    failed = {outcome: count for outcome, count in report.outcomes().items() if not outcome.startswith("200")}
    if failed:
        raise RuntimeError(f"not every request was answered: {failed}")
    # A hedge that lost is computed to its end.
    time.sleep(2 * STALL_MS / 1e3)
    executions = (_executions(url) - before) / len(report.answered)
    return Seen(report.percentile_ms(50), report.percentile_ms(99), executions)


def _executions(url: str) -> int:
    found = 0
    for endpoint in read_fleet(url)["shards"][0]["endpoints"]:
        with urllib.request.urlopen(f"{endpoint['url']}/v2/models/stalling/stats", timeout=10) as answer:
            found += json.load(answer)["model_stats"][0]["inference_count"]
    return found


def _report(seen: dict[str, list[Seen]]) -> str:
    lines = [
        "## Hedging",
        "",
        f"A model takes {WORK_MS} ms, and {STALL_MS} ms for {STALLS:.0%} of its requests, on two servers of four instances each;"
        f" {PER_S} requests/s, medians of {ROUNDS} rounds of {ROUND_S:.0f} s each.",
        "",
        "| rule | p50 | p99 | executions per request |",
        "|---|---|---|---|",
    ]
    for name, title in (("plain", "no hedges"), ("hedged", "`hedge_at: p95`")):
        p50_ms, p99_ms, executions = (
            statistics.median(values)
            for values in zip(*((each.p50_ms, each.p99_ms, each.executions) for each in seen[name]), strict=True)
        )
        lines.append(f"| {title} | {p50_ms:.1f} ms | {p99_ms:.1f} ms | {executions:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
