"""`tidegate envoy config`: what Envoy accepts, and what is wrong with what it is made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from .conftest import CALLERS, OPEN, RANKING, write_directory

SERVERS = {
    "alpha": [
        {"host": "10.0.0.1", "http_port": 8000, "grpc_port": 8001},
        {"host": "10.0.0.2", "http_port": 8000, "grpc_port": 8001},
    ],
    "beta": [{"host": "beta.internal", "http_port": 80}],
}
ODD = """\
objective: odd.name_x
context: {tier: {type: string}, kind: {type: string, from: "header:Content-Type"}}
limits: {rate_per_s: 5, concurrency: 2}
degraded: second/1
responses: stream
rules:
  - {id: copied, when: {tier: a}, serve: first/1, shadow: {second/1: 10}}
  - {id: hedged, when: {tier: b}, serve: first/1, hedge_at: p95, fault: {delay_ms: 5}}
  - {id: default, serve: second/1}
"""


def run(folder: Path, *arguments: str, servers: object = SERVERS) -> Result:
    (folder / "fleet.json").write_text(json.dumps(servers))
    given = ["--rules", str(folder / "rules"), "--fleet", str(folder / "fleet.json"), "--out", str(folder / "out")]
    # With the log, whose filters Envoy checks too.
    variables = {"TIDEGATE_ACCESS_LOG": str(folder / "access.log")}
    return CliRunner(env=variables).invoke(
        main, ["envoy", "config", *given, "--resolver", "127.0.0.1:8090", *arguments]
    )


def test_envoy_accepts_it_and_what_only_a_gateway_does_is_named(tmp_path: Path) -> None:
    write_directory(
        tmp_path / "rules", callers=CALLERS.replace("rate_per_s: 0.01", "concurrency: 1"), ranking=RANKING, open=OPEN
    )
    (tmp_path / "rules" / "objectives" / "odd.name_x.yaml").write_text(ODD)
    done = run(tmp_path, "--resolver", "unix:/run/resolver.sock", "--resolver", "resolver.internal:8090")
    assert done.exit_code == 1
    assert "Envoy looks up all or none of them" in " ".join(done.output.split())
    done = run(tmp_path, "--resolver", "unix:/run/resolver.sock")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "out" / "envoy.json")
    noted = [
        "has shadow",
        "has hedge_after_ms or hedge_at",
        "has fault",
        "has limits.concurrency",
        "has 'kind' from content-type, which resolvers do not get as it was sent",
        "caller 'slow' has a limit of concurrency",
    ]
    assert all(each in " ".join(done.stderr.split()) for each in noted), done.stderr
    assert "'ranking'" not in done.stderr
    clusters = json.loads((tmp_path / "out" / "cds" / "clusters.json").read_text())["resources"]
    found = {each["name"]: each["type"] for each in clusters}
    # Envoy looks up a name; addresses it follows in a file.
    assert found["beta"] == found["alpha+beta>beta"] == "STRICT_DNS"
    assert found.keys() == {
        prefix + name for prefix in ("", "grpc:") for name in ("alpha+beta", "beta", "alpha+beta>beta", "beta>beta")
    }


@pytest.mark.parametrize(
    ("servers", "text"),
    [
        ([], "must be a JSON object"),
        ({"alpha": [{"host": "a"}]}, "http_port"),
        ({"alpha": [{"host": "a", "http_port": 0}]}, "a port is not a number from 1 to 65535"),
        ({"alpha": [{"host": "a", "http_port": 80, "port": 1}]}, "unknown member 'port'"),
        ({"alpha": [{"host": "", "http_port": 80}]}, "host is not a text"),
    ],
)
def test_a_malformed_fleet_is_named(tmp_path: Path, servers: object, text: str) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    done = run(tmp_path, servers=servers)
    assert done.exit_code == 1
    assert text in " ".join(done.output.split())


@pytest.mark.parametrize("place", ["localhost", "127.0.0.1:x", "unix:relative", "127.0.0.1:99999"])
def test_a_malformed_resolver_is_named(tmp_path: Path, place: str) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    done = run(tmp_path, "--resolver", place)
    assert done.exit_code == 2
    assert "is neither HOST:PORT nor unix:/PATH" in " ".join(done.output.split())


def test_without_envoy_the_error_says_what_to_install(tmp_path: Path) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    done = run(tmp_path, "--envoy", "/nowhere/envoy")
    assert done.exit_code == 1
    assert "install Envoy" in " ".join(done.output.split())
