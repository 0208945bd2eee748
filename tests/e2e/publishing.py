"""Publishes into a running stack as a user does, ensembles to publish, and callers that never stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.commands import tidegate
from tests.support.model_folders import write_model
from tests.support.stack import PATIENT, ROOT, RunningStack

TIMES = {"TIDEGATE_KEEP_REVISIONS": "0", "TIDEGATE_DRAIN_TIMEOUT_S": "1"}
"""For the stack and the commands: each publish has something to load and something to unload."""

ENSEMBLE = """name: "{name}"
platform: "ensemble"
max_batch_size: 0
input [ {{ name: "SLEEP_MS" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "VERSION" data_type: TYPE_INT32 dims: [ 1 ] }} ]
ensemble_scheduling {{
  step [
    {{
      model_name: "{step}"
      model_version: {version}
      input_map {{ key: "SLEEP_MS" value: "SLEEP_MS" }}
      output_map {{ key: "VERSION" value: "VERSION" }}
    }}
  ]
}}
"""


def write_ensemble(models: Path, name: str, version: int, step: str = "versioned") -> Path:
    """An ensemble of one step, whose version is what the ensemble answers."""
    content = ENSEMBLE.format(name=name, step=step, version=version).encode()
    return write_model(models / name, {"config.pbtxt": content, "1/.keep": b""})


def command(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """A `tidegate` process with settings of its own over `PATIENT` and `TIMES`; its output is to be read."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | PATIENT | TIMES | settings | {"PYTHONPATH": str(ROOT / "functions")},
    )


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """What a `tidegate` command says, in this process."""
    return tidegate(*arguments, variables={**TIMES, **settings})


def publish_arguments(stack: RunningStack, rules: Path, models: Path) -> list[str]:
    """The command that publishes into a stack."""
    return ["publish", "--rules", str(rules), "--models", str(models), "--json", "--stack", stack.url]


def published(stack: RunningStack, rules: Path, models: Path) -> dict[str, Any]:
    """Publish; the result."""
    done = run(*publish_arguments(stack, rules, models))
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if "took_s" in event:
            print(f"{event['step']} {event['took_s']} s")
    return last_line(done.stdout)


def last_line(output: str) -> dict[str, Any]:
    """The result of a command that prints a JSON value a line."""
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The events of a command as they happen."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
