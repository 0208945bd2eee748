"""AWS on this machine: moto's server as a child process, with what moto itself leaves open closed.

moto looks whether a condition holds and writes in two steps, so two writers at once could both win: here one request
that may write is answered at a time. What it holds is in memory, and gone with the process.

    python -m tidegate.aws.local_server [--port 0]

prints `ready http://127.0.0.1:PORT` and runs until its standard input ends, as it does when its parent ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tidegate.errors import StackError

HOST = "127.0.0.1"
READY = "ready "
START_TIMEOUT_S = 60.0

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(slots=True)
class LocalAws:
    """A running server; made by `start`, ended by `stop`."""

    url: str
    _process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, port: int = 0) -> LocalAws:
        """Start a server; port 0 takes a free one.

        Raises:
            StackError: it did not start, such as for a port that is in use or because moto is not installed.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tidegate.aws.local_server",
            f"--port={port}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        server = cls("", process)
        try:
            assert process.stdout is not None
            async with asyncio.timeout(START_TIMEOUT_S):
                line = (await process.stdout.readline()).decode().strip()
        except BaseException as error:
            await server.stop()
            if isinstance(error, TimeoutError):
                raise StackError(f"the local AWS was not ready within {START_TIMEOUT_S:g} s") from error
            raise
        if not line.startswith(READY):
            await server.stop()
            raise StackError(f"the local AWS did not start on port {port}; is moto installed, and the port free?")
        server.url = line.removeprefix(READY)
        return server

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()

    async def stop(self) -> None:
        """End it at once; safe to call again. It has nothing to lose."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def one_writer(app: WsgiApp) -> WsgiApp:
    """The app, answering one request at a time of those that may write; a body is read before its turn comes."""
    import threading

    turn = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        if environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with turn:
            return app(environ, start_response)

    return answer


def known_buckets(app: WsgiApp) -> WsgiApp:
    """The app, asked once only whether a bucket is there.

    Triton asks twice before it looks at anything else: two thirds of the 66 requests of a load.
    """
    there: set[str] = set()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].rstrip("/")
        if method == "HEAD" and path in there and not environ.get("QUERY_STRING"):
            start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", "0")])
            return []

        def started(status: str, headers: Any, *rest: Any) -> Any:
            if path.count("/") == 1:
                if method == "HEAD" and status.startswith("200"):
                    there.add(path)
                elif method == "DELETE":
                    there.discard(path)
            return start_response(status, headers, *rest)

        return app(environ, started)

    return answer


def main(port: int) -> None:
    """Serve until standard input ends."""
    import functools
    import logging
    import os
    import threading

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    class Dispatcher(DomainDispatcherApplication):
        """moto's, which lists the folder of its own package with every request to find the service of a host."""

        @functools.cache  # noqa: B019  # there is one, as long as the process
        def get_backend_for_host(self, host: str | None) -> Any:
            return super().get_backend_for_host(host)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = known_buckets(one_writer(Dispatcher(create_backend_app)))
    server = make_server(HOST, port, app, threaded=True)

    def end_with_parent() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        # At once: threads that still answer would keep the interpreter from ending.
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.stdout.write(f"{READY}http://{HOST}:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="AWS on this machine, in memory.")
    parser.add_argument("--port", type=int, default=0)
    main(parser.parse_args().port)
