"""Names in a model's folder, as Triton and Tidegate read them.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import re

CONFIG = "config.pbtxt"

SAMPLES = "samples"
"""The folder of a model's golden requests."""

FACTS = "facts"
"""The folder of a model's facts. They change, while a model does not, so they are in a table and not pushed."""

KEEP = ".keep"
"""An empty file that keeps a folder without other files, as object storage has no folders."""

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Pattern of the name of a model that rules can name."""

VERSION = r"[1-9][0-9]{0,17}"
"""Pattern of the folder of a version: a positive integer without leading zeros, below 2^63."""

_VERSION = re.compile(VERSION)


def version_of(name: str) -> int | None:
    """Return the version of a folder by its name; None if Triton does not treat it as one."""
    return int(name) if _VERSION.fullmatch(name) else None


def is_bytecode(name: str) -> bool:
    """Return whether a file or folder holds compiled Python, which is neither pushed nor copied."""
    return name == "__pycache__" or name.endswith(".pyc")
