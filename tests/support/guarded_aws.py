"""An AWS on this machine that answers as a policy of IAM allows, and writes down what it was asked for."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.support.aws_calls import calls_of, missing_object
from tests.support.iam import Call, Policy

NOT_PASSED_ON = ("transfer-encoding", "connection", "content-length", "date", "server")
AS_THE_TEST_WANTS = b"<Error><Code>InvalidRequest</Code><Message>as the test wants</Message></Error>"


@dataclass(slots=True)
class Guard:
    """A running guard.

    Attributes:
        url: its address.
        policy: decides.
        calls: what was asked for, in order, and allowed.
        refused: what was asked for and not allowed, or is not known in the words of IAM.
        fails: whether a request, by its method and target, is answered by an error of the service's.
    """

    url: str
    policy: Policy
    calls: list[Call] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    fails: Callable[[str, str], bool] = lambda _method, _target: False

    def check(self, calls: tuple[Call, ...]) -> Call | None:
        """Note what a request needs; what of it is not allowed, if anything."""
        for call in calls:
            if not self.policy.allows(call):
                self.refused.append(str(call))
                return call
        self.calls.extend(calls)
        return None


@contextlib.contextmanager
def guarded_aws(url: str, policy: Policy) -> Iterator[Guard]:
    """A proxy before a local AWS that enforces a policy."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    guard = Guard(f"http://127.0.0.1:{server.server_address[1]}", policy)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"guard": guard, "behind": urlsplit(url).netloc})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    guard: ClassVar[Guard]
    behind: ClassVar[str]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def handle_expect_100(self) -> bool:
        """Send the interim response at once: boto3 waits a second for it before each body."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            refused = self.guard.check(calls_of(self.command, self.path, headers, body))
        except (LookupError, ValueError) as error:
            self.guard.refused.append(str(error))
            self._answer(501, b"", {})
            return
        if refused is not None:
            self._refuse(refused)
        elif self.guard.fails(self.command, self.path):
            self._answer(400, AS_THE_TEST_WANTS, {"content-type": "application/xml"})
        else:
            self._pass_on(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def _pass_on(self, body: bytes) -> None:
        status, headers, data = self._ask(body)
        of_an_object = "x-amz-target" not in self.headers and self.command in ("GET", "HEAD")
        refused = self.guard.check((missing_object(self.path),)) if status == 404 and of_an_object else None
        if refused is not None:
            self._refuse(refused)
        else:
            self._answer(status, data, headers)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.behind, timeout=300)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _refuse(self, call: Call) -> None:
        message = f"not authorized to perform: {call}"
        if "x-amz-target" in self.headers:
            document = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": message}
            self._answer(400, json.dumps(document).encode(), {"content-type": "application/x-amz-json-1.0"})
        else:
            text = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
            self._answer(403, text.encode(), {"content-type": "application/xml"})

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        length = str(len(data))
        for name, value in headers.items():
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("content-length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_arguments: Any) -> None:
        """What was asked is written down; the rest is noise."""
