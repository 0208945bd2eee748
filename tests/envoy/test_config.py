"""`tidegate envoy config`: what Envoy accepts, and what is wrong with what it is made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from .conftest import CALLERS, FLEET, OPEN, RANKING, write_directory

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


def test_an_rpc_about_the_server_may_go_to_every_shard(tmp_path: Path) -> None:
    rules = write_directory(tmp_path / "rules", ranking=RANKING)
    (rules / "fleet.yaml").write_text(FLEET.replace("[alpha, beta]", "[alpha]"))
    assert run(tmp_path).exit_code == 0
    (found,) = json.loads((tmp_path / "out" / "rds" / "routes.json").read_text())["resources"]
    routes = {each["match"].get("prefix", ""): each for each in found["virtual_hosts"][0]["routes"]}
    # If one has no server, the others are not down.
    assert routes["/inference.GRPCInferenceService/Server"]["route"]["cluster"] == "grpc:alpha>beta"


def server(host: str = "10.0.0.1", http_port: object = 8000, **members: object) -> dict[str, object]:
    return {"host": host, "http_port": http_port, **members}


@pytest.mark.parametrize(
    ("servers", "text"),
    [
        ([], "must be a JSON object"),
        ({"alpha": server()}, "shard 'alpha' must have a list of servers"),
        ({"alpha": ["10.0.0.1:8000"]}, "shard 'alpha', server 1 must be an object with host, http_port and grpc_port"),
        ({"alpha": [{"host": "a"}]}, "shard 'alpha', server 1: http_port is missing"),
        ({"alpha": [server(), server(http_port=0)]}, "server 2: http_port must be a number from 1 to 65535, not 0"),
        ({"alpha": [server(http_port="8000")]}, "http_port must be a number from 1 to 65535, not '8000'"),
        ({"alpha": [server(grpc_port=70_000)]}, "grpc_port must be a number from 1 to 65535, not 70000"),
        ({"alpha": [server(port=1)]}, "unknown member 'port'"),
        *(
            (
                {"alpha": [server(host)]},
                f"host must be an IP address or a name, without a scheme or a port, not {host!r}",
            )
            for host in ("", "http://a", "a:80", "a b", "[::1]", "10.0.0.300")
        ),
        ({"alpha": [server()], "beta": [server()]}, "shard 'beta', server 1: http_port 8000 at 10.0.0.1 is taken by"),
        (
            {"alpha": [server(grpc_port=8000)]},
            "grpc_port 8000 at 10.0.0.1 is taken by shard 'alpha', server 1: http_port",
        ),
    ],
)
def test_a_malformed_fleet_is_named(tmp_path: Path, servers: object, text: str) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    done = run(tmp_path, servers=servers)
    assert done.exit_code == 1
    assert text in " ".join(done.output.split())


def test_a_shard_that_a_fleet_has_twice_is_named(tmp_path: Path) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    (tmp_path / "twice.json").write_text('{"alpha": [], "alpha": []}')
    done = run(tmp_path, "--fleet", str(tmp_path / "twice.json"))
    assert done.exit_code == 1
    assert "'alpha' is there twice" in " ".join(done.output.split())


def test_a_shard_without_servers_and_one_that_is_misspelt_are_named(tmp_path: Path) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    done = run(tmp_path, servers={"alhpa": SERVERS["alpha"], "beta": SERVERS["beta"]})
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stderr.split())
    assert "shard 'alpha' has no server in the fleet" in shown
    assert "shard 'alhpa' of the fleet is not a shard of the rules; did you mean 'alpha'?" in shown
    assert "'beta'" not in shown


@pytest.mark.parametrize("arguments", [("--host", "localhost"), ("--envoy", "/bin/false"), ("--envoy", "/bin/true")])
def test_nothing_is_written_that_envoy_has_not_accepted(tmp_path: Path, arguments: tuple[str, str]) -> None:
    write_directory(tmp_path / "rules", open=OPEN)
    assert run(tmp_path).exit_code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.json")}
    done = run(tmp_path, *arguments, "--port", "9")
    assert done.exit_code == 1
    assert {"--host": "--host must be an IP address", "--envoy": arguments[1]}[arguments[0]] in done.output
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.json")} == before


@pytest.mark.parametrize(
    "place",
    ["localhost", "127.0.0.1:x", "127.0.0.1:0", "unix:relative", "127.0.0.1:99999", "http://127.0.0.1:8090", ":8090"],
)
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
