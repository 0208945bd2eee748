"""What answers at the address of a stack need not be one."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from tidegate.cli.control import StoreOptions, find_stack, read_fleet, resolve_settings
from tidegate.errors import UnavailableError

DEEP = b"[" * 200_000


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a service that answers everything so."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_stack_of_another_user_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") as url:
        monkeypatch.setattr("tidegate.cli.control.LOCAL_STACK", url)
        with pytest.raises(click.UsageError, match=r"is another user's.*set TIDEGATE_OPERATOR_TOKEN"):
            resolve_settings(StoreOptions())


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x00\x06\x04no HTTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(DEEP), DEEP),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff",
    ],
    ids=["no HTTP", "cut off", "too deep", "no UTF-8"],
)
def test_what_is_no_gateway_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer) as url:
        with pytest.raises(UnavailableError, match=r"is it a gateway|is the gateway running"):
            read_fleet(url)
        monkeypatch.setattr("tidegate.cli.control.LOCAL_STACK", url)
        assert find_stack(StoreOptions()) is None
