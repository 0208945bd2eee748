"""The directions that a proxy gets from a resolver's code in its own process."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tidegate.gateway import Dispatcher
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.in_process import FRESH_S, HeadLimits, InProcess, LiveEngine, Told

FLEET = "{shards: {alpha: {}}, models: {first: {shards: [alpha]}, second: {shards: [alpha]}}}"
OBJECTIVE = """\
objective: ranking
context: {country: {type: string}}
fallback: [second/1]
rules: [{id: north, when: {country: "NO"}, serve: second/2}, {id: default, serve: first/1, parameters: {top_k: 3}}]
"""
CALLERS = "callers: {web: {objectives: [ranking]}, slow: {objectives: [ranking], rate_per_s: 1000}, many: {objectives: [ranking], concurrency: 9}}"
WEB = (b"tidegate-caller", b"web")
TARGET = b"/v2/models/ranking/infer"


class Proxy:
    """A proxy that runs `InProcess`."""

    def __init__(self, folder: Path) -> None:
        for name, text in {"fleet": FLEET, "callers": CALLERS, "objectives/ranking": OBJECTIVE}.items():
            file = folder / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        engine = load_bundle(compile_directory(folder))
        dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
        self.live = LiveEngine()
        app = create_app(engines=self.live, dispatcher=dispatcher, authorizes=True, counts_limits=False)
        self.counted: Counter[tuple[str, str, object]] = Counter()
        self._inner = InProcess(app.authorization, self.live, HeadLimits(65_536, 256, 8_192), self._count)
        self.engine = engine

    def _count(self, method: str, route: str, status: int | str | None, took_s: float) -> None:
        assert took_s > 0
        self.counted[method, route, status] += 1

    def decide(
        self, *headers: tuple[bytes, bytes], method: bytes = b"POST", target: bytes = TARGET, head_bytes: int = 100
    ) -> Told | None:
        return self._inner.decide(method, target, list(headers), head_bytes)


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    found = Proxy(tmp_path)
    found.live.seen(found.engine)
    return found


def test_a_decision_says_what_goes_to_the_server_and_what_to_the_caller(proxy: Proxy) -> None:
    found = proxy.decide(WEB, (b"tidegate-timeout-ms", b"70"))
    assert found is not None
    to_server, to_caller, plan = (
        {name.lower(): value for name, value in each} if isinstance(each, list) else each for each in found
    )
    assert to_server[b"x-tidegate-shard"] == b"alpha>alpha"
    assert to_server[b"x-tidegate-path"] == b"/v2/models/first/versions/1/infer"
    assert to_server[b"x-envoy-upstream-rq-timeout-ms"] == b"70"
    assert to_server[b"tidegate-param-top_k"] == b"3"
    assert to_server[b"tidegate-param-tidegate_caller"] == to_server[b"x-tidegate-caller"] == b"web"
    assert (to_caller[b"tidegate-rule"], to_caller[b"tidegate-model"]) == (b"default", b"first")
    assert not {name for name in to_caller if name.startswith((b"x-", b"tidegate-param"))}
    assert plan == b"/v2/models/first/versions/1/infer|first|1;/v2/models/second/versions/1/infer|second|1"
    assert proxy.counted == {("POST", "/authorize/v2/models/{objective}/infer", 200): 1}


def test_a_context_decides(proxy: Proxy) -> None:
    found = proxy.decide(WEB, (b"tidegate-context", b'{"country": "NO"}'), target=TARGET + b"?query=%20")
    assert found is not None
    assert (b"tidegate-rule", b"north") in found[1]


@pytest.mark.parametrize(
    ("headers", "method", "target"),
    [
        ((), b"POST", TARGET),
        (((b"tidegate-caller", b"nobody"),), b"POST", TARGET),
        ((WEB, (b"tidegate-context", b"[]")), b"POST", TARGET),
        ((WEB,), b"GET", TARGET),
        ((WEB,), b"post", TARGET),
        ((WEB,), b"POST", b"/v2/models/%72anking/infer"),
        ((WEB,), b"POST", b"/v2/models/ranking/infer\xff"),
        ((WEB,), b"POST", b"/v2/models/ranking/infer\n"),
        ((WEB,), b"POST", b"*"),
        ((WEB,), b"DELETE", TARGET),
        ((WEB,), b"POST", b"/v2/models/other/infer"),
        ((WEB,), b"POST", b"/v2/models/ranking/versions/9/infer"),
        # Another process counts these.
        (((b"tidegate-caller", b"slow"),), b"POST", TARGET),
        (((b"tidegate-caller", b"many"),), b"POST", TARGET),
    ],
)
def test_a_resolver_is_to_be_asked_about_every_other_request(
    proxy: Proxy, headers: tuple[tuple[bytes, bytes], ...], method: bytes, target: bytes
) -> None:
    assert proxy.decide(*headers, method=method, target=target) is None
    assert not proxy.counted


def test_a_head_that_is_near_a_limit_of_resolvers_is_theirs_to_judge(proxy: Proxy) -> None:
    assert proxy.decide(WEB, head_bytes=65_000) is not None
    assert proxy.decide(WEB, head_bytes=65_500) is None
    many = [(b"x-%d" % number, b"") for number in range(250)]
    assert proxy.decide(WEB, *many[:200]) is not None
    assert proxy.decide(WEB, *many) is None
    assert proxy.decide(WEB, target=TARGET + b"?" + 7_000 * b"a") is not None
    assert proxy.decide(WEB, target=TARGET + b"?" + 8_000 * b"a") is None


def test_rules_that_are_forgotten_decide_nothing(proxy: Proxy) -> None:
    proxy.live.forget()
    assert proxy.decide(WEB) is None


def test_rules_that_were_not_live_lately_decide_nothing(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    later_s = time.monotonic() + FRESH_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert proxy.decide(WEB) is None
    proxy.live.seen(proxy.engine)
    assert proxy.decide(WEB) is not None


def test_without_rules_nothing_is_decided(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path)
    assert proxy.decide(WEB) is None
    assert not proxy.counted


def test_several_threads_at_once(proxy: Proxy) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(lambda number: proxy.decide(WEB, (b"tidegate-timeout-ms", b"%d" % (number + 1))), range(2000))
        )
    timeouts = [dict(each[0])[b"x-envoy-upstream-rq-timeout-ms"] for each in found if each is not None]
    assert timeouts == [b"%d" % (number + 1) for number in range(2000)]
    assert sum(proxy.counted.values()) == 2000
