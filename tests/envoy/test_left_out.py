"""How long Envoy waits for a resolver that is slow, which resolvers it leaves out, and which servers it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from tidegate.bootstrap.envoy_server import Admin, find_envoy
from tidegate.cli import main
from tidegate.envoy.config import ADMIN

from tests.support.processes import end, refusing_port, reserve_port
from tests.support.stack import eventually

from .conftest import OPEN, ask, write_directory

RESOLVER_MS = 3000
SLOW_S = 0.5
"""More than a tenth of that, and less than a third."""


class Refusing(BaseHTTPRequestHandler):
    """A resolver that refuses each request, after a while: callers see by whom they are answered."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        time.sleep(float(self.headers["X-Pause"]))
        self.send_response(429)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Run a server; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    with serving(Refusing) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def envoy(folder: Path, *resolvers: str, fleet: object = None) -> Iterator[int]:
    """Run Envoy with some resolvers, and servers by shard; its port."""
    write_directory(folder / "rules", open=OPEN.replace("degraded: second/1\n", ""))
    (folder / "fleet.json").write_text(json.dumps(fleet or {}))
    port = reserve_port()
    arguments = ["--rules", str(folder / "rules"), "--fleet", str(folder / "fleet.json"), "--port", str(port)]
    named = [part for each in resolvers for part in ("--resolver", each)]
    environment = {"TIDEGATE_RESOLVER_TIMEOUT_MS": str(RESOLVER_MS)}
    done = CliRunner().invoke(
        main, ["envoy", "config", *arguments, *named, "--out", str(folder / "out")], env=environment
    )
    assert done.exit_code == 0, done.output
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(find_envoy(None)), "-c", done.stdout.strip(), "--disable-hot-restart", "--concurrency", "1"],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:

        def listens() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            return False

        assert eventually(listens, most_s=0.1), (folder / "log").read_text()
        yield port
    finally:
        end(process, 60)


def status(port: int, pause_s: float) -> int:
    return ask(port, "/v2/models/open/infer", {"X-Pause": str(pause_s)}).status


def test_one_that_is_slow_is_waited_for(tmp_path: Path) -> None:
    with refusing() as resolver, envoy(tmp_path, resolver) as port:
        assert status(port, SLOW_S) == 429


def test_another_is_asked_in_place_of_one_that_hangs(tmp_path: Path) -> None:
    with refusing() as resolver, hanging() as hung, envoy(tmp_path, hung, resolver) as port:
        assert {status(port, 0) for _ in range(2)} == {429}


def test_another_is_asked_in_place_of_one_that_has_ended(tmp_path: Path) -> None:
    ended = f"127.0.0.1:{refusing_port()}"
    with refusing() as resolver, envoy(tmp_path, ended, resolver) as port, ThreadPoolExecutor(8) as callers:
        # Long enough that the one that has ended is left out and asked again.
        found = set(callers.map(lambda _: status(port, 0.05), range(500)))
    assert found == {429}


class Unready(BaseHTTPRequestHandler):
    """A server that is not ready once on each connection, as Triton is while it unloads a model. Each cluster has one to check it."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        self.asked += 1
        self.send_response(400 if self.asked == 2 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_is_not_ready_once_is_not_left_out(tmp_path: Path) -> None:
    with serving(Unready) as port:
        fleet = {"beta": [{"host": "127.0.0.1", "http_port": port}]}
        with envoy(tmp_path, f"127.0.0.1:{refusing_port()}", fleet=fleet):
            filtered = "/stats?format=json&filter=^cluster.beta.health_check"

            def checked() -> dict[str, int] | None:
                found = ask(tmp_path / "out" / ADMIN, filtered, method="GET").json["stats"]
                figures = {each["name"].rpartition(".")[2]: each["value"] for each in found}
                return figures if figures.get("failure") else None

            figures = eventually(checked, most_s=0.1)
            assert figures["failure"] == 1
            assert figures["healthy"] == 1


class Ready(Unready):
    """A server that is ready."""

    asked = 2


def test_a_cluster_is_healthy_if_a_server_of_its_first_shard_is(tmp_path: Path) -> None:
    with serving(Ready) as port:
        fleet = {
            "alpha": [{"host": "127.0.0.1", "http_port": refusing_port()}],
            "beta": [{"host": "127.0.0.1", "http_port": port}],
        }
        with envoy(tmp_path, f"127.0.0.1:{refusing_port()}", fleet=fleet):
            admin = tmp_path / "out" / ADMIN

            def both_are_checked() -> bool:
                found = ask(admin, "/clusters?format=json", method="GET").json["cluster_statuses"]
                hosts = next(each["host_statuses"] for each in found if each["name"] == "alpha+beta")
                failed = [bool(host["health_status"].get("failed_active_health_check")) for host in hosts]
                return sorted(failed) == [False, True]

            assert eventually(both_are_checked)
            found = asyncio.run(Admin(admin).clusters())
    assert (found["beta"], found["alpha+beta"]) == (True, False)


class Sending(Refusing):
    """A resolver that sends each request to the shards that it names."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("x-tidegate-shard", self.headers["X-Shards"])
        self.send_header("x-tidegate-path", "/x")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.mark.parametrize(
    ("shards", "text"),
    [
        ("gamma", "the proxy does not know these shards: its configuration is that of other rules"),
        ("beta", "no server of the model's shards is healthy"),
    ],
)
def test_an_error_says_what_is_missing(tmp_path: Path, shards: str, text: str) -> None:
    with serving(Sending) as number, envoy(tmp_path, f"127.0.0.1:{number}") as port:
        found = ask(port, "/v2/models/open/infer", {"X-Shards": shards})
        assert (found.status, found.json) == (503, {"error": text})
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                infer(b"", metadata=[("x-shards", f"grpc:{shards}")], timeout=60)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, text)


class Pretending(BaseHTTPRequestHandler):
    """A resolver, and a server that says something else than what was decided."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        decided = {
            "x-tidegate-shard": "alpha+beta",
            "x-tidegate-path": "/x",
            "tidegate-rule": "default",
            "tidegate-reason": "serve",
        }
        said = {
            "tidegate-rule": "other",
            "tidegate-reason": "degraded",
            "Tidegate-Variant": "other",
            "x-tidegate-step": "7",
        }
        self._answer(decided if self.path.startswith("/authorize/") else said)

    def _answer(self, headers: dict[str, str]) -> None:
        self.send_response(200)
        for each in headers.items():
            self.send_header(*each)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_does_not_say_what_was_decided(tmp_path: Path) -> None:
    with serving(Pretending) as number:
        fleet = {"alpha": [{"host": "127.0.0.1", "http_port": number}]}
        with envoy(tmp_path, f"127.0.0.1:{number}", fleet=fleet) as port:
            found = eventually(lambda: (reply := ask(port, "/v2/models/open/infer")).status == 200 and reply)
    shown = {name: value for name, value in found.headers.items() if "tidegate" in name}
    assert shown == {"tidegate-rule": "default", "tidegate-reason": "serve", "tidegate-shard": "alpha"}


def test_a_name_with_addresses_of_both_families_is_reached_where_the_server_listens(tmp_path: Path) -> None:
    # The resolver of names knows ::1 for localhost, too, whatever the machine's files say.
    with serving(Pretending) as number:
        fleet = {"alpha": [{"host": "localhost", "http_port": number}]}
        with envoy(tmp_path, f"localhost:{number}", fleet=fleet) as port:
            assert eventually(lambda: ask(port, "/v2/models/open/infer").status == 200, most_s=0.1)
