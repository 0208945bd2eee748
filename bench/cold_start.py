"""A fresh process to its first decision, and what its imports cost."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.rule_sets import bundle, rule_set

ROUNDS = 9
FORBIDDEN = ("numpy", "pydantic", "boto3", "tritonclient", "yaml")

_ENGINE = """
import sys
from pathlib import Path
from tidegate.rules import load_bundle
load_bundle(Path(sys.argv[1]).read_bytes()).decide("bench", {"member_id": "1"})
"""
_GATEWAY = """
import sys
from pathlib import Path
from tidegate.bootstrap import build_gateway
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.rules import load_bundle
from tidegate.settings import Settings
engine = load_bundle(Path(sys.argv[1]).read_bytes())
build_gateway(Settings(), MemoryEngineSource(engine), MemoryEndpointDirectory(), None)
engine.decide("bench", {"member_id": "1"})
"""
_LOADED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "bundle")
        data.write_bytes(bundle(rule_set(1_000)))
        programs = {"python alone": "pass", "engine": _ENGINE, "gateway": _GATEWAY}
        samples: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, program in programs.items():
                samples[name].append(_wall_ms(program, data))
        loaded = subprocess.run(
            [sys.executable, "-c", _GATEWAY + _LOADED, str(data)], check=True, capture_output=True, text=True
        ).stdout.split()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    bare = medians["python alone"]
    heavy = [name for name in FORBIDDEN if name in loaded]
    return "\n".join(
        [
            "## From a fresh process to the first decision",
            "",
            f"A bundle of 1 000 rules. Whole processes, less an empty one ({bare:.0f} ms). Medians of {ROUNDS} rounds.",
            "",
            "| | ms |",
            "|---|---:|",
            f"| engine alone: import, load, decide | {medians['engine'] - bare:.0f} |",
            f"| gateway: import, load, wire, decide | {medians['gateway'] - bare:.0f} |",
            "",
            f"Of {', '.join(FORBIDDEN)} the gateway's process imports {', '.join(heavy) or 'none'}.",
            "",
        ]
    )


def _wall_ms(program: str, data: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(data)], check=True)
    return (time.perf_counter() - start) * 1e3
