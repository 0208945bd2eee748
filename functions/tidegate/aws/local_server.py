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
from urllib.parse import urlsplit

from tidegate.errors import StackError

HOST = "127.0.0.1"
READY = "ready "
START_TIMEOUT_S = 60.0

REMEMBERED_BYTES = 64 * 1024
REMEMBERED = 10_000

_ASKED = (
    "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_HOST", "HTTP_RANGE", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_X_AMZ_CHECKSUM_MODE", "HTTP_X_AMZ_TARGET",
)  # fmt: skip
"""All of a request that its answer depends on, beside what is stored."""

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
            # Not the modules of whatever folder this was started in.
            "-P",
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

    async def start_again(self) -> None:
        """Start it anew, with nothing in it, at the port that it had. Raises as `start`."""
        port = urlsplit(self.url).port
        assert port is not None
        self._process = (await LocalAws.start(port))._process

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


def remembered_reads(app: WsgiApp) -> WsgiApp:
    """The app, asked for the same only once until somebody writes to S3.

    Triton asks for each load some 66 times whether the bucket is there and what is in it, mostly the same; moto takes
    milliseconds for an answer. What is not small is not remembered.
    """
    known: dict[tuple[str, ...], tuple[str, list[tuple[str, str]], bytes]] = {}
    writes = [0]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            # The registry's table is written all the time, by requests for no bucket.
            writes[0] += environ["PATH_INFO"] != "/"
            try:
                return app(environ, start_response)
            finally:
                writes[0] += environ["PATH_INFO"] != "/"
                if environ["PATH_INFO"] != "/":
                    known.clear()
        key = tuple(str(environ.get(name, "")) for name in _ASKED)
        found = known.get(key)
        if found is None:
            seen, heads = writes[0], list[tuple[str, Any]]()
            parts = app(environ, lambda status, headers, *_: heads.append((status, list(headers))))
            try:
                body = b"".join(parts)
            finally:
                getattr(parts, "close", lambda: None)()
            ((status, headers),) = heads
            found = (status, headers, body)
            if len(body) <= REMEMBERED_BYTES and len(known) < REMEMBERED and seen == writes[0]:
                known[key] = found
        start_response(found[0], found[1])
        return [found[2]]

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
    app = remembered_reads(one_writer(Dispatcher(create_backend_app)))
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
