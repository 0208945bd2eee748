"""Becomes Envoy, which ends with the process that started it.

python -P -m tidegate.bootstrap.envoy_process PARENT ENVOY ARGUMENT …
"""

from __future__ import annotations

import os
import sys

from tidegate.bootstrap.parent import end_with_parent

_OURS = ("AWS_", "ECS_", "TIDEGATE_")

if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    # Envoy reads none of these, and credentials that it does not have cannot be taken from it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    os.execve(sys.argv[2], sys.argv[2:], kept)  # noqa: S606  # the kernel's signal outlives it
