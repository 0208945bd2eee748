"""Runs a command's work on the control plane: wired, interruptible, and nothing left open."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from tidegate.errors import InterruptedWorkError, TidegateError

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.settings import Settings

T = TypeVar("T")

_INTERRUPTED = "interrupted; `tidegate status` says what is live, and the next reconcile or publish tidies up"


def run_on_plane(settings: Settings, work: Callable[[ControlPlane], Awaitable[T]]) -> T:
    """Do some work on the control plane of the stores that the settings name; what came of it.

    SIGTERM and Ctrl-C end the work in order, so that it gives up its claim.

    Raises:
        TidegateError: the work failed, or was interrupted.
    """
    from tidegate.bootstrap import build_transport
    from tidegate.bootstrap.control import build_control_plane

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        transport = build_transport(settings)
        try:
            return await work(build_control_plane(settings, transport))
        finally:
            await transport.aclose()

    try:
        return asyncio.run(main())
    except KeyboardInterrupt as error:
        raise InterruptedWorkError(_INTERRUPTED) from error
    except asyncio.CancelledError as error:
        raise TidegateError(_INTERRUPTED) from error
