"""Models whose process ends, or hangs, at a request that asks for it, and otherwise double what they are sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.triton.misbehaving import write_model

SOUND = 1.0
EXIT, SEGFAULT, KILL, ABORT, HANG, RAISE, LEAVE = (float(number) for number in range(901, 908))
"""First element of an input, and what the model does then."""

CHECK = f"""\
asked = float(x.flat[0])
            if asked == {EXIT}: os._exit(3)
            if asked == {SEGFAULT}: __import__("ctypes").string_at(0)
            if asked == {KILL}: os.kill(os.getpid(), 9)
            if asked == {ABORT}: os.abort()
            if asked == {HANG}: time.sleep(3600)
            if asked == {RAISE}: raise MemoryError("no room")
            if asked == {LEAVE}: raise SystemExit(4)"""


def write_mortal(root: Path, name: str, *, instances: int = 1, more: str = "") -> None:
    """A model that dies when it is asked to."""
    write_model(root, name, check=CHECK, more=more)
    config = root / name / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", f"count: {instances}"))


def request(first: float = SOUND, second: float = 1.0) -> dict[str, Any]:
    """The JSON of a request."""
    return {"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [first, second]}]}
