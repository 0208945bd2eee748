"""An ASGI app behind the listener, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvloop
from tidegate.listener import Listener, ListenerConfig

PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener that takes connections."""

    listener: Listener
    port: int
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the listener's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)


@contextlib.contextmanager
def listening(app: Any, at_once: Any = None, **limits: Any) -> Iterator[Listening]:
    """Serve `app` with the default limits but for `limits`, after `at_once` if there is one; leaving waits for no request."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        served = Listening(Listener(app, ListenerConfig(**limits), at_once), sock.getsockname()[1], loop)
        served.run(served.listener.start(sock))
    try:
        yield served
    finally:
        served.run(served.listener.stop(0))
        served.run(_end_tasks())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        loop.close()


async def _end_tasks() -> None:
    """Cancel what the app does beside its requests, as the end of a process does."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
