"""The steps of a publish or rollback, told as they happen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tidegate.errors import PublishError, TidegateError


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something to tell of a step: it begins, goes on with `text`, is done with `text` as its outcome, was skipped, or
    failed with `text` as the reason. `took_s` is how long it took, where it has ended; `progress` is how many bytes of
    how many `text` has come to."""

    step: str
    state: Literal["begun", "note", "progress", "done", "skipped", "failed"]
    text: str = ""
    took_s: float = 0.0
    progress: tuple[int, int] = (0, 0)


Announce = Callable[[StepEvent], None]
"""Is told every event. What it raises ends the step."""


@dataclass(slots=True)
class Step:
    """A step under way; set `outcome` to what should be told when it is done."""

    name: str
    announce: Announce
    outcome: str = ""

    def note(self, text: str) -> None:
        """Tell that it goes on."""
        self.announce(StepEvent(self.name, "note", text))

    def progress(self, text: str, done: int, total: int) -> None:
        """Tell how far it is, in bytes."""
        self.announce(StepEvent(self.name, "progress", text, progress=(done, total)))


class Steps:
    """Announces steps, and gives their errors the step's name."""

    def __init__(self, announce: Announce, clock: Callable[[], float]) -> None:
        self._announce = announce
        self._clock = clock

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step for as long as the block.

        Raises:
            PublishError: the block raised a `TidegateError`.
        """
        began = self._clock()
        self._announce(StepEvent(name, "begun"))
        step = Step(name, self._announce)
        try:
            yield step
        except TidegateError as error:
            self._announce(StepEvent(name, "failed", str(error), self._clock() - began))
            if isinstance(error, PublishError):
                raise
            raise PublishError(name, str(error)) from error
        self._announce(StepEvent(name, "done", step.outcome, self._clock() - began))

    def skip(self, name: str, why: str) -> None:
        """Tell that a step is not needed."""
        self._announce(StepEvent(name, "skipped", why))
