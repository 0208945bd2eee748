"""A function that starts from a snapshot (SnapStart), under Lambda's own runtime client: what a snapshot would make old is new
after the restore."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tidegate.aws.container_credentials import ContainerCredentials
from tidegate.aws.http_function import HttpFunction
from tidegate.bootstrap.functions import PreparedFunction, build_http_function
from tidegate.errors import StoreError
from tidegate.gateway.follower import EngineFollower, KnownRules
from tidegate.rules import compile_directory
from tidegate.settings import Settings

from tests.lambdas.conftest import Deployment, Starter, ask
from tests.lambdas.test_gateway import PAIR, compile_with, metric_lines
from tests.web.conftest import AS_OPERATOR
from tests.web.conftest import HERE as WEB

RULES = compile_directory(WEB / "rules")


@dataclass(slots=True)
class Endpoint:
    """Lambda's endpoint for credentials; `lifetime` is how long those that it gives are valid."""

    url: str = ""
    lifetime: timedelta = timedelta(hours=1)
    status: int = 200
    given: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a-token"}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    served = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = served.status if self.headers["Authorization"] == "a-token" else 401
            expiration = (datetime.now(UTC) + served.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
            key = f"key{len(served.given)}"
            document = {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": expiration}
            body = json.dumps(document).encode()
            if status == 200:
                served.given.append(key)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1/credentials"
    yield served
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_restored_function_decides_by_the_rules_that_are_live_then(
    deployment: Deployment, start: Starter, shards: dict[str, int], endpoint: Endpoint, tmp_path: Path
) -> None:
    deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards) | endpoint.variables, snapshot=True)
    given = len(endpoint.given)
    assert given > 0, "the rules were read before the snapshot, with the endpoint's credentials"
    revision = deployment.publish(compile_with(tmp_path, "adding", "pair_sum/2"))
    gateway.restore()
    answer = ask(gateway, "/v2/models/adding/infer", PAIR)
    assert answer.status == 200, answer.body
    assert answer.headers["tidegate-revision"] == revision, "the first request already"
    assert len(endpoint.given) > given, "credentials of the snapshot may have expired"
    fleet = ask(gateway, "/v1/fleet", method="GET", headers=AS_OPERATOR).json
    assert 0 <= fleet["source"]["age_s"] < 60, "how old the rules are is counted from the restore"


def test_a_restored_function_has_a_name_and_random_numbers_of_its_own(
    deployment: Deployment, shards: dict[str, int], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.publish(RULES)
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr("snapshot_restore_py.register_after_restore", hooks.append)
    variables = deployment.variables(shards) | endpoint.variables | {"AWS_REGION": "us-east-1"}
    environment = variables | {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    wired: list[EngineFollower] = []

    def build(fallback: KnownRules | None) -> tuple[HttpFunction, EngineFollower]:
        settings = Settings.from_environment(variables)
        function, follower = build_http_function("gateway", settings, environment, fallback=fallback)
        wired.append(follower)
        return function, follower

    PreparedFunction(build, environment)
    (restored,) = hooks
    drawn = set()
    for _ in range(2):
        random.seed(7)  # the state that every copy of the snapshot has
        restored()
        drawn.add(random.random())
    assert len({each.gateway_id for each in wired}) == 3
    wired[-1].stop()
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(asyncio.sleep(0))
    assert len(drawn) == 2


def test_a_restored_function_serves_the_snapshots_rules_while_the_store_is_down(
    deployment: Deployment, start: Starter, shards: dict[str, int], endpoint: Endpoint
) -> None:
    revision = deployment.publish(RULES)
    gateway = start("gateway", deployment.variables(shards) | endpoint.variables, snapshot=True)
    taken_at = time.time()
    endpoint.status = 500
    time.sleep(0.3)
    gateway.restore()
    answer = ask(gateway, "/v2/models/adding/infer", PAIR)
    assert (answer.status, answer.headers["tidegate-revision"]) == (200, revision)
    age_s = ask(gateway, "/v1/fleet", method="GET", headers=AS_OPERATOR).json["source"]["age_s"]
    assert 0.3 <= age_s < time.time() - taken_at + 60, "counted from before the snapshot"
    first, second = [line["BundleAgeSeconds"][0] for line in metric_lines(gateway) if "BundleAgeSeconds" in line]
    assert 0.3 <= first <= second, "what the alarm on old rules looks at"


def test_credentials_are_asked_for_again_before_they_expire(endpoint: Endpoint) -> None:
    credentials = ContainerCredentials(endpoint.url, "a-token")
    assert [credentials().access_key for _ in range(3)] == ["key0"] * 3
    endpoint.lifetime = timedelta(minutes=4)
    short = ContainerCredentials(endpoint.url, "a-token")
    assert [short().access_key for _ in range(2)] == ["key1", "key2"]
    endpoint.status = 500
    assert short().access_key == "key2", "still valid"


def test_no_credentials_are_a_store_that_does_not_answer(endpoint: Endpoint) -> None:
    with pytest.raises(StoreError, match="the endpoint for credentials gave none"):
        ContainerCredentials(endpoint.url, "another-token")()
    late = datetime.now(UTC) + timedelta(days=1)
    times = iter([late, late])
    old = ContainerCredentials(endpoint.url, "a-token", now=lambda: next(times))
    assert old().access_key == "key0"
    endpoint.status = 500
    with pytest.raises(StoreError):
        old()
