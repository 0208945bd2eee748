"""Functions that start from a snapshot of an initialised process (Lambda's SnapStart).

The same snapshot becomes many environments, hours or days later. What was wired before it would share its random numbers and
its name in the registry, hold dead connections and old credentials, and take old rules for live. So a restored environment
keeps only what it imported and the rules as a last resort: it is wired again, and has read the live bundle before its first
request. https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.aws.http_function import HttpFunction
from tidegate.control.follower import EngineFollower, KnownRules

TYPE_VARIABLE = "AWS_LAMBDA_INITIALIZATION_TYPE"
FROM_SNAPSHOT = "snap-start"

Build = Callable[[KnownRules | None], tuple[HttpFunction, EngineFollower]]
"""Wires a function around rules that it may fall back on: the function, and the follower that its rules come from."""

_log = logging.getLogger("tidegate.function")


class PreparedFunction:
    """A handler that wires its function with the first event; where a snapshot will be taken, before it and after it."""

    def __init__(self, build: Build, environment: Mapping[str, str]) -> None:
        self._build = build
        self._function: HttpFunction | None = None
        self._follower: EngineFollower | None = None
        if environment.get(TYPE_VARIABLE) == FROM_SNAPSHOT:
            # The runtime ships it from Python 3.12 on; nothing else needs it.
            from snapshot_restore_py import register_after_restore

            self._wire()
            self._stop()  # a report would name an environment that never answers
            register_after_restore(self._restored)

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        """Answer one event."""
        return (self._function or self._wire())(event, context)

    def _wire(self) -> HttpFunction:
        fallback = None if self._follower is None else self._follower.known
        self._function, self._follower = self._build(fallback)
        return self._function

    def _stop(self) -> None:
        if self._follower is not None:
            self._follower.stop()

    def _restored(self) -> None:
        random.seed()
        self._stop()
        self._wire()
        _log.info("restored from a snapshot")
