"""A function that polls a cache of the pointer follows what is live, and S3 wherever the cache is of no use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.cached_pointer import CachedBundleSource, PointerCache
from tidegate.aws.gateway_stores import WireBundleSource
from tidegate.aws.signing import Credentials, Signer
from tidegate.aws.wire import Wire
from tidegate.bootstrap.agent import POINTER_PATH, pointer_answer
from tidegate.bootstrap.small_http import REQUEST_BYTES, Reply, answering
from tidegate.errors import StoreError
from tidegate.ports import LiveEntry, Pointer
from tidegate.rules import compile_directory
from tidegate.testing import MemoryBundleStore

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.support.stack import ROOT, eventually

WEB = ROOT / "tests" / "web"
RULES = compile_directory(WEB / "rules")


class CountedStore(S3BundleStore):
    reads = 0

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        self.reads += 1
        return await super().pointer(known)


@contextmanager
def agent(store: CountedStore | MemoryBundleStore, kept_s: float) -> Iterator[str]:
    """What an agent serves at `/pointer`; yields its address."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def serve() -> None:
        answer = answering({POINTER_PATH: pointer_answer(PointerCache(store, kept_s))}, 5.0)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=REQUEST_BYTES)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await ended.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}{POINTER_PATH}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


@dataclass
class Cache:
    """An HTTP cache whose answers a test sets; `asked` has the request headers."""

    url: str = ""
    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[Mapping[str, str]] = field(default_factory=list)


@pytest.fixture
def cache() -> Iterator[Cache]:
    state = Cache()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(0 if state.status == 304 else len(state.body)))
            self.end_headers()
            self.wfile.write(b"" if state.status == 304 else state.body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/live"
    yield state
    server.shutdown()
    server.server_close()


def test_a_function_follows_the_agents_pointer_and_s3_is_read_by_the_agent_alone(
    deployment: Deployment, start: Starter, tmp_path: Path
) -> None:
    first = deployment.publish(RULES)
    store = CountedStore(deployment.aws.objects())
    with agent(store, 0.1) as url:
        variables = {
            "TIDEGATE_POINTER_CACHE_URL": url,
            "TIDEGATE_POLL_INTERVAL_S": "0.1",
            "TIDEGATE_FRESH_WAIT_MS": "10000",
        }
        function = start("resolve", deployment.variables({}) | variables)

        def revision() -> Any:
            return ask(function, "/v1/objectives/adding/resolve", {"context": {}}).json["revision"]

        assert revision() == first
        second = deployment.publish(_other(tmp_path))
        assert eventually(lambda: revision() == second)
        assert store.reads > 0
    # The agent is gone.
    third = deployment.publish(RULES)
    assert eventually(lambda: revision() == third)


def _other(folder: Path) -> bytes:
    import shutil

    rules = folder / "rules"
    shutil.copytree(WEB / "rules", rules)
    file = rules / "objectives" / "adding.yaml"
    file.write_text(file.read_text().replace("timeout_ms: 5000", "timeout_ms: 4000"))
    return compile_directory(rules)


def source(deployment: Deployment, cache: Cache, most_s: float = 2.0) -> CachedBundleSource:
    signer = Signer(Credentials("testing", "testing"), "us-east-1", "s3")
    return CachedBundleSource(
        WireBundleSource(Wire(deployment.aws.url, signer), deployment.aws.bucket),
        cache.url,
        most_s,
        clock=lambda: now[0],
    )


now = [0.0]


def stored(deployment: Deployment) -> tuple[bytes, str]:
    """The pointer as S3 has it: its bytes and its ETag."""
    found = deployment.aws.s3().get_object(Bucket=deployment.aws.bucket, Key="live/pointer.json")
    return found["Body"].read(), found["ETag"]


def test_an_http_cache_of_the_object_itself_serves_with_its_age_and_is_asked_conditionally(
    deployment: Deployment, cache: Cache
) -> None:
    revision = deployment.publish(RULES)
    cache.body, tag = stored(deployment)
    cache.headers = {"etag": tag, "age": "1"}
    reader = source(deployment, cache)
    found = reader.read_pointer()
    assert found is not None
    assert (found.live.revision, found.tag, found.age_s) == (revision, tag, 1.0)
    cache.status, cache.headers = HTTPStatus.NOT_MODIFIED, {"age": "2"}
    again = reader.read_pointer(found)
    assert again is not None
    assert (again.tag, again.age_s) == (tag, 2.0)
    assert cache.asked[-1]["if-none-match"] == tag
    cache.headers = {}
    unknown = reader.read_pointer(found)
    assert unknown is not None
    assert unknown.age_s == 2.0, "one without an age may be as old as any that counts"


@pytest.mark.parametrize(
    "broken",
    [
        {"status": HTTPStatus.INTERNAL_SERVER_ERROR},
        {"status": HTTPStatus.NOT_FOUND},
        {"body": b"no pointer"},
        {"headers": {"age": "0"}},
        {"headers": {"etag": "x", "age": "soon"}},
        {"headers": {"etag": "x", "age": "-1"}},
    ],
)
def test_a_cache_that_answers_wrongly_is_left_alone_for_a_while_and_s3_is_read(
    deployment: Deployment, cache: Cache, broken: dict[str, Any]
) -> None:
    revision = deployment.publish(RULES)
    cache.body, tag = stored(deployment)
    cache.headers = {"etag": tag, "age": "0"}
    for name, value in broken.items():
        setattr(cache, name, value)
    now[0] = 0.0
    reader = source(deployment, cache)
    for _ in range(3):
        found = reader.read_pointer()
        assert found is not None
        assert (found.live.revision, found.tag, found.age_s) == (revision, tag, 0.0)
    assert len(cache.asked) == 1
    now[0] = 11.0
    reader.read_pointer()
    assert len(cache.asked) == 2


def test_an_answer_that_is_too_old_does_not_count(deployment: Deployment, cache: Cache, tmp_path: Path) -> None:
    deployment.publish(RULES)
    cache.body, tag = stored(deployment)
    second = deployment.publish(_other(tmp_path))
    cache.headers = {"etag": tag, "age": "3"}
    found = source(deployment, cache).read_pointer()
    assert found is not None
    assert found.live.revision == second


def test_a_cache_that_is_behind_does_not_bring_old_rules_back_and_a_pointer_that_was_set_back_does(
    deployment: Deployment, cache: Cache, tmp_path: Path
) -> None:
    first = deployment.publish(RULES)
    before, tag = stored(deployment)
    second = deployment.publish(_other(tmp_path))
    now[0] = 100.0
    reader = source(deployment, cache)
    cache.body, second_tag = stored(deployment)
    cache.headers = {"etag": second_tag, "age": "0"}
    found = reader.read_pointer()
    assert found is not None
    assert found.live.revision == second
    now[0] = 101.0
    # Another cache behind the same address, which has read S3 before.
    cache.body, cache.headers = before, {"etag": tag, "age": "2"}
    again = reader.read_pointer(found)
    assert again is not None
    assert (again.live.revision, again.age_s) == (second, 2.0)
    # Somebody restored an older version of the object.
    deployment.aws.s3().put_object(Bucket=deployment.aws.bucket, Key="live/pointer.json", Body=before)
    now[0] = 110.0
    back = reader.read_pointer(found)
    assert back is not None
    assert (back.live.revision, back.age_s) == (first, 0.0)


def test_many_that_ask_an_agent_cost_one_read_in_its_interval() -> None:
    async def work() -> None:
        store = MemoryBundleStore()
        clock = [0.0]
        reads = 0
        plain = store.pointer

        async def counted(known: Pointer | None = None) -> Pointer | None:
            nonlocal reads
            reads += 1
            return await plain(known)

        store.pointer = counted  # type: ignore[method-assign]
        kept = PointerCache(store, 1.0, clock=lambda: clock[0])
        assert await kept.reply() is None
        await store.flip(LiveEntry(await store.put_bundle(RULES), 1, "ann", 1.0, "a reason"), None)
        clock[0] = 1.0
        reads = 0
        answers = await asyncio.gather(*(kept.reply() for _ in range(50)))
        assert reads == 1
        assert all(answer is not None and answer[1]["Age"] == "0" for answer in answers)
        assert all(answer is not None and b"ann" not in answer[0] and b"reason" not in answer[0] for answer in answers)
        clock[0] = 1.9
        answer = await kept.reply()
        assert answer is not None
        assert (reads, answer[1]["Age"], answer[1]["Cache-Control"]) == (1, "1", "max-age=1")

    asyncio.run(work())


def test_a_store_that_fails_is_asked_once_in_the_interval_too() -> None:
    async def work() -> None:
        clock = [0.0]
        reads = 0
        failing = True
        plain = MemoryBundleStore()

        class Failing(MemoryBundleStore):
            async def pointer(self, known: Pointer | None = None) -> Pointer | None:
                nonlocal reads
                reads += 1
                await asyncio.sleep(0)
                # A time-out takes longer than the interval.
                clock[0] += 5.0
                if failing:
                    raise StoreError("S3 does not answer")
                return await plain.pointer(known)

        await plain.flip(LiveEntry(await plain.put_bundle(RULES), 1, "ann", 1.0, "a reason"), None)
        answer = pointer_answer(PointerCache(Failing(), 1.0, clock=lambda: clock[0]))
        statuses = {reply.status for reply in await asyncio.gather(*(answer("") for _ in range(50)))}
        assert (reads, statuses) == (1, {HTTPStatus.SERVICE_UNAVAILABLE})
        clock[0] += 0.9
        assert ((await answer("")).status, reads) == (HTTPStatus.SERVICE_UNAVAILABLE, 1)
        failing = False
        clock[0] += 0.2
        assert ((await answer("")).status, reads) == (HTTPStatus.OK, 2)

    asyncio.run(work())


def test_a_store_that_hangs_is_asked_once_though_those_who_ask_leave() -> None:
    async def work() -> None:
        reads = 0
        released = asyncio.Event()

        class Hanging(MemoryBundleStore):
            async def pointer(self, known: Pointer | None = None) -> Pointer | None:
                nonlocal reads
                reads += 1
                await released.wait()
                return None

        kept = PointerCache(Hanging(), 1.0)
        for _ in range(5):
            asked = [asyncio.create_task(kept.read()) for _ in range(5)]
            await asyncio.sleep(0)
            for each in asked:
                each.cancel()
            await asyncio.wait(asked)
        released.set()
        assert (await kept.read())[0] is None
        assert reads == 1

    asyncio.run(work())


def test_a_small_server_closes_what_comes_while_it_has_as_many_connections_as_it_may() -> None:
    async def work() -> None:
        async def well(_accepted: str) -> Reply:
            return Reply(body=b"well")

        server = await asyncio.start_server(answering({"/": well}, 60.0, most=1), "127.0.0.1", 0, limit=REQUEST_BYTES)
        port = server.sockets[0].getsockname()[1]
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            beside, closing = await asyncio.open_connection("127.0.0.1", port)
            assert await beside.read() == b""
            closing.close()
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read()).endswith(b"well")
            writer.close()
            again, writing = await asyncio.open_connection("127.0.0.1", port)
            writing.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await again.read()).endswith(b"well")
            writing.close()

    asyncio.run(work())
