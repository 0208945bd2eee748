"""The steps of a publish or a rollback, announced as they happen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tidegate.errors import PublishError, TidegateError


class StepState(StrEnum):
    BEGUN = "begun"
    NOTE = "note"
    PROGRESS = "progress"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One event of a step.

    Attributes:
        text: the note, the file that is being sent, the outcome, or why the step was skipped or failed.
        took_s: how long the step took, once it has ended.
        progress: bytes sent, and bytes to send.
    """

    step: str
    state: StepState
    text: str = ""
    took_s: float = 0.0
    progress: tuple[int, int] = (0, 0)


Announce = Callable[[StepEvent], None]
"""Callback for step events. An exception aborts the step."""

Note = Callable[[str], None]
"""Callback with a text: the current work of a step, or the reason for its waiting."""


@dataclass(slots=True)
class Step:
    """A step under way. `outcome` is announced when it is done."""

    name: str
    announce: Announce
    outcome: str = ""

    def note(self, text: str) -> None:
        self.announce(StepEvent(self.name, StepState.NOTE, text))

    def progress(self, text: str, done: int, total: int) -> None:
        self.announce(StepEvent(self.name, StepState.PROGRESS, text, progress=(done, total)))


class Steps:
    def __init__(self, announce: Announce, clock: Callable[[], float]) -> None:
        self._announce = announce
        self._clock = clock

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Announce a step for as long as the block runs. Raises `PublishError`: the block raised a `TidegateError`."""
        began = self._clock()
        self._announce(StepEvent(name, StepState.BEGUN))
        step = Step(name, self._announce)
        try:
            yield step
        except TidegateError as error:
            self._announce(StepEvent(name, StepState.FAILED, str(error), self._clock() - began))
            if isinstance(error, PublishError):
                raise
            raise PublishError(name, str(error)) from error
        self._announce(StepEvent(name, StepState.DONE, step.outcome, self._clock() - began))

    def skip(self, name: str, why: str) -> None:
        self._announce(StepEvent(name, StepState.SKIPPED, why))
