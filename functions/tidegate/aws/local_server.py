"""AWS on this machine: moto's server as a child process, which keeps everything in memory.

moto checks a condition and writes in two steps, so that of two writers both could win. Here only one writing request runs at a
time.

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
"""The parts of a read that its answer depends on, beside what is stored."""

_OF_CONNECTION = ("date", "connection", "content-length", "transfer-encoding")
"""Headers that describe an answer as it is sent, not as the app made it."""

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
            StackError: it did not start, such as because the port is in use.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Ignore modules in the current folder.
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
        """Start it again, empty, on the same port. Raises like `start`."""
        port = urlsplit(self.url).port
        assert port is not None
        self._process = (await LocalAws.start(port))._process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> None:
        await self._process.wait()

    async def stop(self) -> None:
        """Kill the process; it may be called again."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def one_writer(app: WsgiApp) -> WsgiApp:
    """Wrap the app so that only one request that may write runs at a time. Its body has been read: see `main`."""
    import threading

    turn = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        with turn:
            return app(environ, start_response)

    return answer


def remembered_reads(app: WsgiApp) -> WsgiApp:
    """Wrap the app so that small answers to equal reads are cached until the next write to S3.

    For each load Triton asks S3 some 66 times, mostly for the same, and moto takes milliseconds for an answer.
    """
    known: dict[tuple[str, ...], tuple[str, list[tuple[str, str]], bytes]] = {}
    writes = [0]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            # Writes to the registry's table, which are frequent, name no bucket.
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
            seen = writes[0]
            found = _whole(app, environ)
            if len(found[2]) <= REMEMBERED_BYTES and len(known) < REMEMBERED and seen == writes[0]:
                known[key] = found
        start_response(found[0], found[1])
        return [found[2]]

    return answer


def _whole(app: WsgiApp, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the status, the headers and the whole body that an app answers."""
    heads: list[tuple[str, list[tuple[str, str]]]] = []
    parts = app(environ, lambda status, headers, *_: heads.append((status, list(headers))))
    try:
        body = b"".join(parts)
    finally:
        getattr(parts, "close", lambda: None)()
    ((status, headers),) = heads
    return status, headers, body


def _body(environ: dict[str, Any]) -> bytes | None:
    """Return the whole body of a request; None if its sender was gone before the end, as moto would store the rest."""
    read, size = environ["wsgi.input"].read, int(environ.get("CONTENT_LENGTH") or 0)
    try:
        body: bytes = read() if "wsgi.input_terminated" in environ else read(size)
    except OSError:
        return None
    return body if len(body) >= size else None


def main(port: int) -> None:
    """Serve until standard input ends."""
    import functools
    import logging
    import os
    import threading

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc]  # whose types mypy does not follow
        # moto's own lists the folder of its package with every request.
        @functools.cache  # noqa: B019  # there is one dispatcher, as long as the process
        def get_backend_for_host(self, host: str | None) -> Any:
            return super().get_backend_for_host(host)

    class Handler(WSGIRequestHandler):
        # werkzeug's own ends each connection after one request: with the next connection and its thread this took twice the
        # time of an average answer of moto.
        protocol_version = "HTTP/1.1"

        def run_wsgi(self) -> None:
            environ = self.make_environ()
            # All of it, as what is left would be taken for the next request.
            body = _body(environ)
            if body is None:
                self.close_connection = True
                return
            environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
            status, headers, content = _whole(self.server.app, environ)
            lines = [f"{self.protocol_version} {status}", f"Date: {self.date_time_string()}"]
            lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _OF_CONNECTION]
            if self.command == "HEAD" or status[:3] in ("204", "304"):
                lines += [f"{name}: {value}" for name, value in headers if name.lower() == "content-length"]
                content = b""
            else:
                lines.append(f"Content-Length: {len(content)}")
            self.wfile.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + content)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = remembered_reads(one_writer(Dispatcher(create_backend_app)))
    server = make_server(HOST, port, app, threaded=True, request_handler=Handler)

    def end_with_parent() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        # Threads that still answer would keep the interpreter from ending.
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
