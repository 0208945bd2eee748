"""Tokens of callers, which Envoy verifies as the HTTP API's authorizer does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.aws.provision import provision
from tidegate.cli import main

from tests.support.aws import names
from tests.support.issuer import Issuer, issuer, new_key
from tests.support.processes import reserve_port
from tests.support.running_command import command
from tests.support.stack import eventually

from .conftest import CALLERS, RANKING, Reply, Store, ask, context, write_directory

RESOLVE = "/v1/objectives/ranking/resolve"
INFER = "/v2/models/ranking/infer"
SCOPED = "infer:ranking"
WANTED = {"JWT_ISSUER": "https://issuer.example.com/", "JWT_AUDIENCE": "a", "JWKS_URI": "https://a.example.com/k"}


@dataclass(frozen=True, slots=True)
class Plane:
    """Envoy and its resolvers, over an empty fleet: what is decided gets a 503."""

    issuer: Issuer
    port: int
    folder: Path

    def ask(self, path: str = INFER, token: str | None = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        if path != RESOLVE:
            named |= context(member_id="1")
        return ask(self.port, path, named, body=b'{"context": {"member_id": "1"}}')


@pytest.fixture(scope="module")
def plane(aws_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("tokens")
    aws = names(aws_url)
    asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
    store = Store(aws)
    store.publish(write_directory(folder / "rules", callers=CALLERS, ranking=RANKING))
    port = reserve_port()
    with issuer(folder) as found:
        variables = {
            **store.variables(),
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/a-path-of-the-test",
            "TIDEGATE_JWT_ISSUER": found.name,
            "TIDEGATE_JWT_AUDIENCE": "other tidegate",
            "TIDEGATE_JWT_SCOPES": f"{SCOPED} all",
            "TIDEGATE_JWKS_URI": found.keys,
            "TIDEGATE_JWKS_CA_FILE": str(found.ca_file),
        }
        arguments = ["--port", str(port), "--state", str(folder / "state"), "--workers", "1"]
        with command(folder / "envoy.log", "envoy", "run", *arguments, variables=variables) as running:
            running.wait_ready()
            assert eventually(lambda: ask(port, "/v2/health/ready", method="GET").status == 200), running.errors
            yield Plane(found, port, folder)


def scoped(**claims: Any) -> dict[str, Any]:
    return {"client_id": "web", "scope": f"openid {SCOPED}", **claims}


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": ["a", "other"]},
        {"client_id": None, "sub": "web"},
        {"client_id": "web", "sub": "nobody"},
        {"scope": None, "scp": ["all"]},
    ],
    ids=str,
)
def test_a_token_names_its_caller(plane: Plane, claims: dict[str, Any]) -> None:
    reply = plane.ask(token=plane.issuer.token(**scoped(**claims)))
    assert reply.status == 503, reply
    assert reply.headers["tidegate-rule"] == "default"
    # The resolver itself gets the name too.
    assert plane.ask(RESOLVE, plane.issuer.token(**scoped(**claims))).status == 200


def test_an_audience_is_the_client_of_a_token_without_one(plane: Plane) -> None:
    token = plane.issuer.token(**scoped(aud=None, client_id="tidegate", sub="web"))
    assert plane.ask(token=token).status == 403, "the caller is `tidegate`, which has no grant"
    assert plane.ask(token=plane.issuer.token(**scoped(aud=None))).status == 401


@pytest.mark.parametrize(
    "path", [RESOLVE, INFER, "/v2", "/v1/objectives", "/v2/health/ready/x", "/", "/v2/health%2Fready"]
)
def test_without_a_token_nothing_is_answered(plane: Plane, path: str) -> None:
    reply = plane.ask(path, tidegate_caller="web")
    assert reply.status == 401, reply
    assert reply.json == {"error": "the token in Authorization is missing or not accepted"}
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": []},
        {"aud": None},
        {"iss": "https://issuer.example.com"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
def test_a_token_for_others_or_of_another_time_is_refused(plane: Plane, claims: dict[str, Any]) -> None:
    assert plane.ask(token=plane.issuer.token(**scoped(**claims))).status == 401


def test_a_token_that_another_key_has_signed_is_refused(plane: Plane) -> None:
    assert plane.ask(token=plane.issuer.token(new_key(), **scoped())).status == 401
    head, payload, _ = plane.issuer.token(**scoped()).split(".")
    assert plane.ask(token=f"{head}.{payload}.").status == 401
    assert plane.ask(token="no token").status == 401


@pytest.mark.parametrize("scope", [None, "", "infer", f"{SCOPED}x", "ALL"])
def test_a_token_without_a_scope_is_refused(plane: Plane, scope: str | None) -> None:
    reply = plane.ask(token=plane.issuer.token(**scoped(scope=scope)))
    assert (reply.status, reply.json) == (403, {"error": "the token lacks the scope"})


def test_a_caller_is_who_the_token_says_whatever_a_header_says(plane: Plane) -> None:
    for name in ("nobody", "web\r\nx: y", "wéb", 7):
        token = plane.issuer.token(**scoped(client_id=name))
        for path in (INFER, RESOLVE):
            reply = plane.ask(path, token, Tidegate_Caller="web")
            assert reply.status == 403, (name, reply)


def test_a_load_balancer_needs_no_token(plane: Plane) -> None:
    for path in ("/v2/health/ready", "/v2/health/live", "/v2/health/ready?x"):
        assert ask(plane.port, path, method="GET").status == 200, path


def test_envoy_gets_no_credentials_and_no_settings(plane: Plane) -> None:
    started = str(plane.folder / "state" / "envoy.json").encode()
    (found,) = [
        each for each in Path("/proc").glob("[0-9]*") if read(each / "cmdline").split(b"\0")[1:3] == [b"-c", started]
    ]
    names_of = {each.partition(b"=")[0].decode() for each in read(found / "environ").split(b"\0")}
    assert "PATH" in names_of
    assert not [name for name in names_of if name.startswith(("AWS_", "TIDEGATE_"))]


def read(file: Path) -> bytes:
    """The content of a file of a process, which may have ended."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *((name, None, f"to verify tokens, Envoy needs TIDEGATE_{name} too") for name in WANTED),
        (
            "JWKS_CA_FILE",
            "/nowhere.pem",
            "TIDEGATE_JWKS_CA_FILE must name a file of certificates: /nowhere.pem is none",
        ),
    ],
)
def test_settings_that_are_missing_or_wrong_are_an_error(
    tmp_path: Path, name: str, value: str | None, text: str
) -> None:
    given = {f"TIDEGATE_{each}": found for each, found in (WANTED | {name: value}).items() if found is not None}
    write_directory(tmp_path / "rules", ranking=RANKING)
    (tmp_path / "fleet.json").write_text("{}")
    arguments = [
        "--rules",
        str(tmp_path / "rules"),
        "--fleet",
        str(tmp_path / "fleet.json"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(main, ["envoy", "config", *arguments, "--resolver", "127.0.0.1:1"], env=given)
    assert done.exit_code == 1
    assert text in " ".join(done.output.split())
