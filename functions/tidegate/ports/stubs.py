"""How Triton says that the process of a Python model, its *stub*, has ended.

Triton does not start another one: it answers so to every request of that instance from then on, after a second, while the
model stays READY. Unloading and loading the model heals it (docs/triton.md).
"""

from __future__ import annotations

import re

_MARK = b"' is not healthy"
_SEARCHED_BYTES = 128 * 1024
_ENDED = re.compile(rb"Stub process '([^']{1,512})' is not healthy")


def ended_stub(status: int, body: bytes) -> str | None:
    """The instance whose process has ended, as an answer of Triton names it; None where it says no such thing.

    An instance is `<instance group>_<number>`, and a group without a name is `<model>_<number>`. Of an ensemble it is the
    step's: `in ensemble 'e', Stub process 'step_0_0' is not healthy.` The same words stand in the error of a model that
    called one whose process has ended.
    """
    if status != 500 or _MARK not in body:
        return None
    found = _ENDED.search(body, 0, _SEARCHED_BYTES)
    return found[1].decode(errors="replace") if found else None
