"""Python imports this at start if its folder is on PYTHONPATH: the wall clock differs from the system's by the number of seconds
in the file that CHAOS_CLOCK names. So it can be set back without the rights to set the system's."""

from __future__ import annotations

import os
import time

_system_s = time.time
_path = os.environ.get("CHAOS_CLOCK")
if _path is not None:
    _descriptor = os.open(_path, os.O_RDONLY)

    def _shifted_s() -> float:
        return _system_s() + float(os.pread(_descriptor, 32, 0) or b"0")

    time.time = _shifted_s
