"""The shadows' function: carries out the copies of requests that a queue holds."""

from __future__ import annotations

from tidegate.bootstrap.shadow_handler import handler

__all__ = ["handler"]
