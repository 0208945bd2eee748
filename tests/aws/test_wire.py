"""What a gateway reads and writes without boto3 is what the stores read and write with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.gateway_stores import WireBundleSource, WireGatewayReports
from tidegate.aws.registry import DynamoRegistry
from tidegate.aws.signing import Credentials, Signer
from tidegate.aws.wire import Wire
from tidegate.errors import BundleError, StoreError
from tidegate.ports import GatewayReport, LiveEntry
from tidegate.rules import compile_directory

from tests.support.aws import LocalAws
from tests.support.stack import ROOT

BUNDLE = compile_directory(ROOT / "routing_rules")


def wire(url: str, service: str) -> Wire:
    return Wire(url, Signer(Credentials("testing", "testing", "token"), "us-east-1", service), timeout_s=5.0)


def test_nothing_published_is_nothing_read(aws: LocalAws) -> None:
    source = WireBundleSource(wire(aws.url, "s3"), aws.bucket)
    assert source.read_pointer() is None
    with pytest.raises(BundleError, match="no bundle of revision 000000000000"):
        source.read_bundle("0" * 64)


def test_a_bucket_that_is_missing_is_no_empty_one(aws: LocalAws) -> None:
    with pytest.raises(StoreError, match=r"no bucket 'no-such-bucket'.*TIDEGATE_BUCKET"):
        WireBundleSource(wire(aws.url, "s3"), "no-such-bucket").read_pointer()


def test_what_the_store_published_is_read_and_once_only(aws: LocalAws) -> None:
    store = S3BundleStore(aws.objects())
    source = WireBundleSource(wire(aws.url, "s3"), aws.bucket)

    async def publish_and_read() -> None:
        revision = await store.put_bundle(BUNDLE)
        flipped = await store.flip(LiveEntry(revision, 1, "tests", 1000.0, "first"), None)
        found = await source.pointer()
        assert found == flipped
        assert found is not None
        assert await source.pointer(found) is found, "it is still the same"
        assert await source.bundle(found.live.revision) == BUNDLE

    asyncio.run(publish_and_read())


def test_a_bundle_that_was_changed_in_the_bucket_is_refused(aws: LocalAws) -> None:
    source = WireBundleSource(wire(aws.url, "s3"), aws.bucket)

    async def change_and_read() -> None:
        revision = await S3BundleStore(aws.objects()).put_bundle(BUNDLE)
        aws.s3().put_object(Bucket=aws.bucket, Key=f"bundles/{revision}", Body=BUNDLE[:-10])
        await source.bundle(revision)

    with pytest.raises(BundleError, match="damaged"):
        asyncio.run(change_and_read())


def test_a_report_stands_in_the_registry(aws: LocalAws) -> None:
    registry = DynamoRegistry(aws.clients(), aws.table, clock=lambda: 1000.0)
    report = GatewayReport("gateway-1", "a" * 64, 999.5)

    async def report_and_list() -> list[GatewayReport]:
        await WireGatewayReports(wire(aws.url, "dynamodb"), aws.table).report(report)
        return list(await registry.gateways())

    assert asyncio.run(report_and_list()) == [report]


def test_a_refused_report_says_so(aws: LocalAws) -> None:
    reports = WireGatewayReports(wire(aws.url, "dynamodb"), "no-such-table")
    with pytest.raises(StoreError, match="no-such-table refused a report with 400"):
        asyncio.run(reports.report(GatewayReport("gateway-1", "a" * 64, 1.0)))


@pytest.fixture
def one_answer_per_connection() -> Iterator[tuple[str, list[int]]]:
    """A server that closes each connection without a word after one answer, as one does that timed out meanwhile."""
    listener = socket.create_server(("127.0.0.1", 0))
    served: list[int] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                # Before the answer, after which the test goes on.
                served.append(1)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", served
    listener.close()
    thread.join(5)


def test_a_kept_connection_that_died_is_replaced(one_answer_per_connection: tuple[str, list[int]]) -> None:
    url, served = one_answer_per_connection
    source = WireBundleSource(wire(url, "s3"), "tidegate")
    assert [source.read_pointer() for _ in range(3)] == [None] * 3
    assert len(served) == 3


def test_a_store_that_is_down_is_named() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    source = WireBundleSource(wire(f"http://127.0.0.1:{port}", "s3"), "tidegate")
    with pytest.raises(StoreError, match=f"127.0.0.1:{port} did not answer: ConnectionRefusedError"):
        source.read_pointer()


@pytest.fixture
def mute_after_one() -> Iterator[tuple[str, list[int]]]:
    """A server that takes every request, and answers only the first one of each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[int] = []
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=answer_once, args=(connection,), daemon=True).start()

    def answer_once(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in range(2):
                if not connection.recv(65536):
                    return
                taken.append(number)
                if number == 0:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
    listener.close()
    for connection in kept:
        connection.close()


def test_a_request_that_must_not_be_done_twice_is_not_repeated_after_a_time_out(
    mute_after_one: tuple[str, list[int]],
) -> None:
    url, taken = mute_after_one
    queue = Wire(url, Signer(Credentials("testing", "testing", "token"), "us-east-1", "sqs"), timeout_s=0.1)
    assert queue.send("POST", "/", is_idempotent=False).status == 200
    with pytest.raises(StoreError, match="TimeoutError"):
        queue.send("POST", "/", is_idempotent=False)
    assert taken == [0, 1]


def test_a_request_that_must_not_be_done_twice_is_sent_again_where_the_connection_was_closed(
    one_answer_per_connection: tuple[str, list[int]],
) -> None:
    url, served = one_answer_per_connection
    queue = wire(url, "sqs")
    assert [queue.send("POST", "/", is_idempotent=False).status for _ in range(3)] == [404] * 3
    assert len(served) == 3
