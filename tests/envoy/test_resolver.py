"""`tidegate resolve-server`: what it answers to a proxy, and what it survives."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tidegate.aws.provision import provision
from tidegate.errors import RequestError
from tidegate.rules import compile_directory, load_bundle

from tests.support.aws import forgetful_proxy, names
from tests.support.processes import children_running
from tests.support.stack import eventually

from .conftest import CALLERS, OPEN, RANKING, Store, ask, context, resolver, write_directory

INFER = "/authorize/v2/models/ranking/infer"
MODULE = "tidegate.bootstrap.resolver_process"


def test_a_request_gets_where_it_goes_in_headers(store: Store, tmp_path: Path) -> None:
    store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
    with resolver(tmp_path, store.variables()) as (_, port):
        found = ask(port, INFER, context(member_id="7") | {"Tidegate-Timeout-Ms": "900"})
        assert found.status == 200
        assert found.body == b""
        wanted = {
            "x-tidegate-shard": "alpha+beta>beta",
            "x-tidegate-path": "/v2/models/first/versions/1/infer",
            "x-tidegate-plan": "/v2/models/first/versions/1/infer|first|1;/v2/models/second/versions/1/infer|second|1",
            "x-envoy-upstream-rq-timeout-ms": "900",
            "x-envoy-max-retries": "5",
            "tidegate-param-tidegate_traffic": "real",
            "tidegate-rule": "default",
            "tidegate-model": "first",
            "tidegate-model-version": "1",
            "tidegate-reason": "serve",
        }
        assert wanted.items() <= found.headers.items()
        # Without a limit of the caller it is the rule's.
        other = ask(tmp_path / "resolver.sock", INFER, context(member_id="7"))
        assert other.headers["x-envoy-upstream-rq-timeout-ms"] == "1500"
        split = ask(port, INFER, context(member_id="7") | {"X-Country": "NO"})
        assert split.headers["tidegate-param-top_k"] == "20"
        assert split.headers["tidegate-variant"] in ("first/1", "second/2")
        read = ask(port, "/authorize/v2/models/ranking/config", method="GET")
        assert read.headers["x-tidegate-path"] == "/v2/models/first/versions/1/config"


def test_decisions_are_those_of_the_engine(store: Store, tmp_path: Path) -> None:
    rules = write_directory(tmp_path / "rules", ranking=RANKING)
    store.publish(rules)
    engine = load_bundle(compile_directory(rules))
    chance = random.Random(5)
    with resolver(tmp_path, store.variables(), workers=1) as (_, port):
        for _ in range(200):
            values = {
                name: chance.choice(choices)
                for name, choices in {
                    "member_id": ["1", "22", "a", 3, ""],
                    "country": ["NO", "US", 1],
                    "x": [1],
                }.items()
                if chance.random() < 0.8
            }
            found = ask(port, INFER, context(**values))
            resolved = ask(
                port, "/v1/objectives/ranking/resolve", {"Content-Type": "application/json"}, body=_body(values)
            )
            try:
                decision = engine.decide("ranking", values)
            except RequestError as error:
                assert found.status == resolved.status == 400
                assert str(error) in found.json["error"]
                continue
            assert resolved.json["decision"] == decision.as_dict()
            assert found.headers["tidegate-rule"] == decision.rule
            assert found.headers.get("tidegate-variant") == decision.variant
            assert found.headers["x-tidegate-path"] == f"/v2/models/{decision.model}/versions/{decision.version}/infer"


def _body(values: object) -> bytes:
    return json.dumps({"context": values}).encode()


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/v2/models/ranking/infer", {}, 400, "Tidegate-Context and declared headers alone"),
        ("/v2/models/ranking/infer", {"Tidegate-Context": "[]"}, 400, "must be one JSON object"),
        ("/v2/models/rankin/infer", {}, 403, "may not use 'rankin'"),
        ("/v2/models/ranking/infer", {"Tidegate-Caller": "nobody"}, 403, "not one of the callers"),
        (
            "/v2/models/ranking/infer",
            context(member_id="1") | {"Tidegate-Override": "first/1"},
            403,
            "may not pin 'first/1'",
        ),
        ("/v2/models/ranking/versions/9/infer", context(member_id="1"), 403, "does not serve version 9"),
        ("/v2/models/ranking/infer", context(member_id="1") | {"Tidegate-Sequence": "s"}, 400, "ask a gateway"),
        ("/v2/models/ranking/infer", context(member_id="1") | {"X-Long": "x" * 9000}, 431, "longer than 8000"),
        ("/v2/models/ranking/load", {}, 404, "Not Found"),
        ("/v2/repository/index", {}, 404, "Not Found"),
        ("/v2/models/%72anking/infer", {}, 404, "the path holds '%'"),
        ("/inference.GRPCInferenceService/ModelInfer", {}, 400, "tidegate-objective must be sent once"),
        ("/inference.GRPCInferenceService/ModelStreamInfer", {}, 400, "ask a gateway"),
    ],
)
def test_what_may_not_pass_is_refused_as_the_gateway_does(
    refusing: int, path: str, headers: dict[str, str], status: int, text: str
) -> None:
    found = ask(refusing, f"/authorize{path}", {"Tidegate-Caller": "web", **headers})
    assert found.status == status
    # Of an RPC, Envoy makes the body the text of its status.
    assert text in (found.body.decode() if path.startswith("/inference") else found.json["error"])


@pytest.fixture(scope="module")
def refusing(aws_url: str, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The port of a resolver whose rules have callers."""
    local, folder = names(aws_url), tmp_path_factory.mktemp("refusing")
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    store = Store(local)
    store.publish(write_directory(folder / "rules", callers=CALLERS, ranking=RANKING, open=OPEN))
    with resolver(folder, store.variables(), workers=1) as (_, port):
        yield port


def test_a_pin_and_a_limit_of_a_caller(refusing: int) -> None:
    pinned = ask(refusing, INFER, context(member_id="1") | {"Tidegate-Caller": "web", "Tidegate-Override": "second/1"})
    assert pinned.headers["x-tidegate-path"] == "/v2/models/second/versions/1/infer"
    assert pinned.headers["tidegate-reason"] == "override"
    assert pinned.headers["tidegate-param-tidegate_caller"] == "web"
    slow = [ask(refusing, INFER, context(member_id="1") | {"Tidegate-Caller": "slow"}) for _ in range(2)]
    assert [each.status for each in slow] == [200, 429]
    assert slow[1].headers["ratelimit-policy"] == '"caller-rate";q=1;w=100'
    assert int(slow[1].headers["retry-after"]) > 0


def test_metrics_and_health(store: Store, tmp_path: Path) -> None:
    # One process: of several, each has the rules at its own moment.
    with resolver(tmp_path, store.variables(), workers=1) as (_, port):
        assert ask(port, "/v2/health/live", method="GET").json == {"live": True}
        # Without rules it is not ready, and a proxy fails open.
        assert ask(port, "/v2/health/ready", method="GET").status == 503
        assert ask(port, INFER).status == 503
        revision = store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
        assert eventually(lambda: ask(port, "/v2/health/ready", method="GET").status == 200)
        assert ask(port, "/v2", method="GET").json["name"] == "tidegate"
        for _ in range(5):
            assert ask(port, INFER, context(member_id="1")).status == 200

        def counted() -> bool:
            text = ask(port, "/metrics", method="GET").body.decode()
            samples = {
                (each.name, each.labels.get("http_route"), each.labels.get("http_response_status_code")): each
                for family in text_string_to_metric_families(text)
                for each in family.samples
            }
            rules = samples.get(("tidegate_rules_info", None, None))
            asked = samples.get(
                ("http_server_request_duration_seconds_count", "/authorize/v2/models/{objective}/infer", "200")
            )
            return rules is not None and rules.labels["revision"] == revision and asked is not None and asked.value >= 5

        assert eventually(counted)
        refused = ask(port, "/v1/fleet", method="GET")
        assert refused.status == 404
        for path in ("/v1/objectives", "/v1/bundle", "/v1/shards", "/openapi.json", "/v2"):
            assert path in refused.json["detail"]
            assert ask(port, path, method="GET").status != 404, path


def test_rules_change_and_a_process_that_is_killed_or_hangs_is_replaced(store: Store, tmp_path: Path) -> None:
    store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
    with resolver(tmp_path, store.variables()) as (running, port):
        first, hung = children_running(MODULE, running.process.pid)
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: len(set(children_running(MODULE, running.process.pid)) - {first}) == 2)
        assert all(ask(port, INFER, context(member_id="1")).status == 200 for _ in range(20))
        os.kill(hung, signal.SIGSTOP)
        assert eventually(lambda: len(set(children_running(MODULE, running.process.pid)) - {first, hung}) == 2)
        assert all(ask(port, INFER, context(member_id="1")).status == 200 for _ in range(20))
        store.publish(
            write_directory(tmp_path / "rules", ranking=RANKING.replace("timeout_ms: 1500", "timeout_ms: 777"))
        )

        def changed() -> bool:
            found = [ask(port, INFER, context(member_id="1")) for _ in range(8)]
            assert {each.status for each in found} == {200}
            return {each.headers["x-envoy-upstream-rq-timeout-ms"] for each in found} == {"777"}

        assert eventually(changed)
        assert running.stop() == 0
        assert children_running(MODULE, running.process.pid) == []


def test_the_last_rules_are_served_without_the_store_also_after_a_restart(store: Store, tmp_path: Path) -> None:
    store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
    answering = forgetful_proxy(store.aws.url, lambda _method, _path: False)
    with answering as url, resolver(tmp_path, store.variables(url)) as (_, port):
        assert ask(port, INFER, context(member_id="1")).status == 200
        assert eventually((tmp_path / "state" / "live.bundle").exists)
    # Nothing answers at that address now.
    with resolver(tmp_path, {**store.variables(url), "TIDEGATE_STORE_TIMEOUT_S": "0.5"}) as (running, port):
        assert ask(port, INFER, context(member_id="1")).status == 200
        assert "cannot be followed" in running.errors


def test_a_damaged_saved_bundle_is_not_served(store: Store, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "live.bundle").write_bytes(b"no bundle\n")
    store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
    with resolver(tmp_path, store.variables()) as (_, port):
        assert eventually(lambda: ask(port, INFER, context(member_id="1")).status == 200)
