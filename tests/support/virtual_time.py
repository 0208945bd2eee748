"""Runs a coroutine on an event loop whose clock jumps: waits take no time, and the order of events is certain.

What is given to a thread is done at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
LIMIT_S = 3600.0
LIMIT_TURNS = 1_000_000
"""Turns of the loop, of which the longest test takes some 30,000."""


class _Selector(selectors.DefaultSelector):
    """Where nothing is ready, it moves the clock to the next timer instead of waiting for it."""

    now_s = 0.0
    turns = 0

    def __init__(self, limit_s: float, limit_turns: int) -> None:
        super().__init__()
        self._limit_s = limit_s
        self._limit_turns = limit_turns

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if self.turns == self._limit_turns:
            raise RuntimeError(f"tasks do not end: {self.turns} turns of the loop, to {self.now_s:.0f} s of its clock")
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout != 0:
            if timeout is None or self.now_s > self._limit_s:
                raise RuntimeError("every task waits for something that will never happen")
            self.now_s += timeout
        return ready


class _AtOnce(ThreadPoolExecutor):
    def submit(self, work: Callable[..., T], /, *arguments: Any, **options: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work(*arguments, **options))
        except BaseException as error:  # noqa: BLE001  # whoever waits for it raises it
            done.set_exception(error)
        return done


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, limit_s: float, limit_turns: int) -> None:
        self._clock = _Selector(limit_s, limit_turns)
        super().__init__(self._clock)
        self.set_default_executor(_AtOnce())

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is no thread."""

    def time(self) -> float:
        return self._clock.now_s


def run(work: Coroutine[Any, Any, T], limit_s: float = LIMIT_S, limit_turns: int = LIMIT_TURNS) -> T:
    """What `asyncio.run` does, without waiting; fails where tasks wait for each other, or go on, for ever: until `limit_s` of its
    clock, or for `limit_turns` turns of its loop.

    An exception that a task left behind is raised as well.
    """
    left: list[Mapping[str, Any]] = []
    with asyncio.Runner(loop_factory=lambda: _Loop(limit_s, limit_turns)) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: left.append(context))
        result = runner.run(work)
    assert not left, left
    return result
