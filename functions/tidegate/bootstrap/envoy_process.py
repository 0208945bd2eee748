"""Becomes Envoy, which ends with the process that started it.

python -P -m tidegate.bootstrap.envoy_process PARENT ENVOY ARGUMENT …
"""

from __future__ import annotations

import os
import sys

from tidegate.bootstrap.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # the kernel's signal outlives it
