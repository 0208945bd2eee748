"""The gateway's process does not return the memory of each large body to the kernel."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
from tidegate.bootstrap.gateway_process import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        parts = [bytes(262_144) for _ in range(12)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(5)
print(faults(50))
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_bodies_one_after_another_use_the_same_pages() -> None:
    assert faults("kept") < 500 < faults("returned")
