"""The real stores on moto's server, and servers between that lose answers, refuse, hang and fail."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects

from tests.support.parts import need

_clients: dict[AwsConfig, AwsClients] = {}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LocalAws:
    """A running server, and names for a bucket and a table that nobody else has."""

    url: str
    bucket: str
    table: str

    def clients(self, url: str = "", timeout_s: float = 20.0) -> AwsClients:
        """Clients of the server, or of one in front of it; they are costly to make, so each is made once."""
        config = AwsConfig(endpoint_url=url or self.url, region="us-east-1", timeout_s=timeout_s)
        return _clients.setdefault(config, AwsClients(config))

    def objects(self, url: str = "", timeout_s: float = 20.0) -> Objects:
        """The bucket."""
        return Objects(self.clients(url, timeout_s), self.bucket)

    def s3(self) -> Any:
        """A plain boto3 client, for what nobody should do to a bucket."""
        return self.clients().client("s3")


@contextlib.contextmanager
def local_server(module: str = "tidegate.aws.local_server") -> Iterator[str]:
    """Run the local AWS as a user's stack does; its address."""
    need("moto")
    process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("ready "), line
        yield line.removeprefix("ready ")
    finally:
        process.kill()
        process.communicate()


def names(url: str) -> LocalAws:
    """Names of a bucket and a table that do not exist yet."""
    number = next(_numbers)
    return LocalAws(url, f"bucket-{number}", f"table-{number}")


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def failing_server(status: int) -> Iterator[str]:
    """An address that answers everything with a status and nothing that a client could read."""
    with _serving(lambda handler, _body: handler.send_error(status)) as url:
        yield url


@contextlib.contextmanager
def forgetful_proxy(url: str, loses: Callable[[str, str], bool]) -> Iterator[str]:
    """An address in front of another that does what it is asked, but loses the answers that `loses` (of method and path)."""
    host = urlsplit(url).netloc

    def handle(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection(host, timeout=20)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if loses(handler.command, handler.path):
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with _serving(handle) as proxy:
        yield proxy


@contextlib.contextmanager
def _serving(handle: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            handle(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
