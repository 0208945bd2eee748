"""Where the commands' own reports go: standard error, so that standard output stays for results."""

from __future__ import annotations

import logging


def log_to_stderr() -> None:
    """Write what Tidegate reports, from level INFO on, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("tidegate")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn").addHandler(handler)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
