"""Runs `tidegate up` for as long as a block lasts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def model_config(name: str, instances: int = 1) -> str:
    """The `config.pbtxt` of a Python model that takes and gives one tensor of any number of FP32 values."""
    return f"""\
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "INPUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUTPUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
"""


@contextmanager
def stack(rules: str, models: str, *options: str) -> Iterator[str]:
    """Start the local stack on a free port and give its address; it is stopped when the block ends."""
    command = [str(Path(sys.executable).with_name("tidegate")), "up", "--rules", rules, "--models", models]
    process = subprocess.Popen([*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        if len(line) != 2 or line[0] != "ready":
            raise RuntimeError(f"the stack did not start: exit code {process.wait(20)}")
        yield line[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
