"""What answers at the address of a stack need not be one."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import CliRunner
from tidegate.cli.follow import follow
from tidegate.cli.stacks import StoreOptions, find_stack, read_fleet, resolve_settings
from tidegate.errors import UnavailableError

DEEP = b"[" * 200_000


@contextmanager
def answering(answer: bytes, heard: list[bytes] | None = None) -> Iterator[str]:
    """The address of a service that answers everything so, and notes in `heard` what it was asked."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked = self.request.recv(4096)
            if heard is not None:
                heard.append(asked)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_stack_of_another_user_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") as url:
        monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", url)
        with pytest.raises(click.UsageError, match=r"is another user's.*set TIDEGATE_OPERATOR_TOKEN"):
            resolve_settings(StoreOptions())


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized"])
def test_the_users_token_goes_to_no_address_that_was_not_named(status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    control = b'{"control": {"bucket": "b", "registry_table": "t"}}'
    heard: list[bytes] = []
    with answering(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(control), control), heard) as url:
        monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", url)
        monkeypatch.setattr("tidegate.cli.follow.LOCAL_STACK", url)
        monkeypatch.setenv("TIDEGATE_OPERATOR_TOKEN", "the-token-of-production")
        with pytest.raises(click.UsageError):
            resolve_settings(StoreOptions())
        CliRunner().invoke(follow, ["status"])
        assert heard
        assert not any(b"the-token-of-production" in each for each in heard)
        with contextlib.suppress(UnavailableError):
            read_fleet(url)
        assert b"the-token-of-production" in heard[-1]


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
        monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", url)
        assert find_stack(StoreOptions()) is None
