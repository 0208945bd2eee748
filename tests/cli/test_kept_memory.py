"""The gateway's process does not return the memory of each large body to the kernel, and has one heap for all of its threads."""

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


HEAPS = """
import ctypes, sys, threading
from tidegate.bootstrap.gateway_process import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

THREADS = 4
together = threading.Barrier(THREADS)

def allocate():
    part = bytes(100_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(THREADS)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


def output(program: str, mode: str) -> str:
    return subprocess.run([sys.executable, "-c", program, mode], capture_output=True, text=True, check=True).stdout


def test_bodies_one_after_another_use_the_same_pages() -> None:
    assert int(output(PROGRAM, "kept")) < 500 < int(output(PROGRAM, "returned"))


def test_threads_share_one_heap() -> None:
    assert output(HEAPS, "kept").count("<heap ") == 1 < output(HEAPS, "returned").count("<heap ")
