"""The validator under Lambda's own runtime client, on the S3 and DynamoDB of this machine."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import stat
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.lambdas.conftest import EVENTS, Deployment, Starter
from tests.support.lambda_runtime import Environment, FunctionError

FLEET = """\
shards: {a: {}}
models: {ranker: {shards: [a]}}
"""
OBJECTIVE = """\
objective: ranking
summary: Rank.
owner: tests
context:
  country: {type: string}
rules:
  - id: us
    when: {country: US}
    serve: ranker
  - id: default
    serve: ranker
"""
CASES = """\
- name: somebody in the US
  context: {country: US}
  expect: {rule: us}
"""
GOOD = {"fleet.yaml": FLEET, "objectives/ranking.yaml": OBJECTIVE, "cases/ranking.yaml": CASES}
KEY = "rules/homepage team.zip"
VERDICT = "verdicts/homepage team.json"


def archive(files: Mapping[str, str | bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return made.getvalue()


def with_link() -> bytes:
    made = io.BytesIO(archive(GOOD))
    with zipfile.ZipFile(made, "a") as opened:
        link = zipfile.ZipInfo("objectives/other.yaml")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    return made.getvalue()


def lying_about_size() -> bytes:
    """An archive whose directory says that a file is small which unpacks to 40 MB."""
    size = 40_000_000
    made = archive({**GOOD, "objectives/bomb.yaml": b"#" * size})
    return made.replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))


def put(deployment: Deployment, data: bytes, key: str = KEY) -> None:
    asyncio.run(deployment.aws.objects().put(key, data))


def verdict(deployment: Deployment, key: str = VERDICT) -> Any:
    stored = asyncio.run(deployment.aws.objects().get(key))
    return None if stored is None else json.loads(stored.data)


def event(name: str, bucket: str) -> dict[str, Any]:
    """A recorded event, of the stage's bucket."""
    text = (EVENTS / f"{name}.json").read_text().replace('"name": "tidegate"', f'"name": "{bucket}"')
    recorded: dict[str, Any] = json.loads(text)
    return recorded


def queued(*bodies: str) -> dict[str, Any]:
    (record,) = json.loads((EVENTS / "queue.json").read_text())["Records"]
    return {"Records": [record | {"messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]}


def judged(environment: Environment) -> int:
    """How many archives were judged."""
    return environment.log.count("rules were judged")


@pytest.fixture
def validator(deployment: Deployment, start: Starter) -> Environment:
    return start("validate_rules", deployment.variables({}))


@pytest.mark.parametrize("name", ["rules_uploaded", "rules_uploaded_by_s3"])
def test_an_uploaded_archive_is_judged_once(name: str, deployment: Deployment, validator: Environment) -> None:
    put(deployment, archive(GOOD))
    body = json.dumps(event(name, deployment.aws.bucket))
    assert validator.invoke(queued(body, body)) == {"batchItemFailures": []}
    assert validator.invoke(queued(body)) == {"batchItemFailures": []}
    found = verdict(deployment)
    assert (found["status"], found["errors"], found["failed_cases"]) == ("accepted", [], []), found
    assert found["counts"] | {"passed_cases": 1, "rules_without_case": 1} == found["counts"]
    assert len(found["revision"]) == 64
    assert judged(validator) == 1
    put(deployment, archive(GOOD | {"cases/ranking.yaml": CASES.replace("rule: us", "rule: default")}))
    assert validator.invoke(queued(body)) == {"batchItemFailures": []}
    assert judged(validator) == 2, "another content under the same key"
    assert verdict(deployment)["status"] == "refused"
    metrics = [json.loads(line) for line in validator.log.splitlines() if "RefusedRules" in line]
    assert [line["RefusedRules"] for line in metrics] == [[0.0], [1.0]]


def test_a_message_that_fails_comes_again_alone_and_others_are_none_of_its_business(
    deployment: Deployment, validator: Environment
) -> None:
    put(deployment, archive(GOOD))
    good = event("rules_uploaded", deployment.aws.bucket)
    gone = json.loads(json.dumps(good).replace(KEY, "rules/gone.zip"))
    test = json.dumps({"Event": "s3:TestEvent"})
    answer = validator.invoke(queued("{no json", json.dumps(good), json.dumps(gone), test, "[]", '{"key": 7}', "{}"))
    assert [each["itemIdentifier"] for each in answer["batchItemFailures"]] == ["m0", "m4", "m5", "m6"]
    assert validator.log.count('"IgnoredEvents":[1.0]') == 2, "the archive that is gone, and the test of S3"
    assert verdict(deployment)["status"] == "accepted"
    assert verdict(deployment, "verdicts/gone.json") is None
    assert validator.invoke(event("object_created", deployment.aws.bucket)) == {"status": "ignored"}


@pytest.mark.parametrize("name", ["rules_uploaded", "rules_uploaded_by_s3"])
def test_an_object_of_another_bucket_is_ignored_and_counted(
    name: str, deployment: Deployment, validator: Environment
) -> None:
    put(deployment, archive(GOOD))
    other = event(name, "another-bucket")
    assert validator.invoke(other) == {"status": "ignored"}
    assert validator.invoke(queued(json.dumps(other))) == {"batchItemFailures": []}
    assert validator.log.count('"IgnoredEvents":[1.0]') == validator.log.count("in another bucket") == 2
    assert (judged(validator), verdict(deployment)) == (0, None)


REFUSED: Mapping[str, tuple[Mapping[str, str], str, tuple[str, int, str]]] = {
    "a syntax error": (
        GOOD | {"objectives/ranking.yaml": OBJECTIVE.replace("serve: ranker", "serv: ranker", 1)},
        "errors",
        ("objectives/ranking.yaml", 9, "serv"),
    ),
    "a rule that no request reaches": (
        GOOD | {"objectives/ranking.yaml": OBJECTIVE + "  - {id: late, when: {country: CA}, serve: ranker}\n"},
        "errors",
        ("objectives/ranking.yaml", 12, "no request can reach"),
    ),
    "a context that no rule serves": (
        GOOD | {"objectives/ranking.yaml": OBJECTIVE.replace("  - id: default\n    serve: ranker\n", "")},
        "errors",
        ("objectives/ranking.yaml", 0, "no rule serves"),
    ),
    "a case that fails": (
        GOOD | {"cases/ranking.yaml": CASES.replace("rule: us", "rule: default")},
        "failed_cases",
        ("cases/ranking.yaml", 1, 'expected "default", got "us"'),
    ),
}


def test_rules_with_a_mistake_are_refused_where_it_stands(deployment: Deployment, validator: Environment) -> None:
    for name, (files, kind, (file, line, words)) in REFUSED.items():
        put(deployment, archive(files))
        found = validator.invoke({"key": KEY})
        assert found["status"] == "refused", name
        assert found == verdict(deployment), name
        (first, *_) = found[kind]
        assert (first["file"], first["line"]) == (file, line), first
        assert words in first["message"], first


HOSTILE: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"rules: []", "not a readable ZIP archive"),
    "a cut archive": (lambda: archive(GOOD)[:-40], "not a readable ZIP archive"),
    "a folder around it": (lambda: archive({f"rules/{name}": text for name, text in GOOD.items()}), "does not hold it"),
    "a path upwards": (lambda: archive({**GOOD, "../evil.yaml": "x"}), "plain one below"),
    "an absolute path": (lambda: archive({**GOOD, "/tmp/evil.yaml": "x"}), "plain one below"),
    "a Windows path": (lambda: archive({**GOOD, "objectives\\evil.yaml": "x"}), "plain one below"),
    "a link": (with_link, "a link or a special file"),
    "a bomb": (lambda: archive({**GOOD, "objectives/bomb.yaml": b"#" * 40_000_000}), "bytes, more than"),
    "a bomb that lies": (lying_about_size, "not a readable ZIP archive"),
    "many bombs": (
        lambda: archive({**GOOD, **{f"objectives/{n}.yaml": b"#" * 4_000_000 for n in range(20)}}),
        "larger than may be",
    ),
    "too many files": (lambda: archive({**GOOD, **{f"objectives/{n}.yaml": "" for n in range(2_001)}}), "files, more"),
    "a file that is a folder too": (lambda: archive({**GOOD, "objectives": "x"}), "cannot be unpacked"),
}


def test_an_archive_that_would_do_harm_is_refused(deployment: Deployment, validator: Environment) -> None:
    for name, (make, words) in HOSTILE.items():
        put(deployment, make())
        found = validator.invoke({"key": KEY, "bucket": deployment.aws.bucket})
        assert found["status"] == "refused", name
        assert words in found["errors"][0]["message"], (name, found["errors"])
    put(deployment, b"0" * (16 * 1024 * 1024 + 1))
    (error,) = validator.invoke({"key": KEY})["errors"]
    assert error["file"] == "the archive"
    assert "16777217 bytes, more" in error["message"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({}, "malformed"),
        ({"key": 1}, "malformed"),
        ([], "malformed"),
        (None, "malformed"),
        ({"source": "aws.cloudwatch"}, "not one of S3"),
        ({"key": KEY, "force": True}, "malformed"),
        ({"key": "live/pointer.json"}, "not that of an archive"),
        ({"key": KEY, "bucket": "another"}, "its own bucket"),
        ({"key": "rules/gone.zip"}, "there is no object rules/gone.zip"),
    ],
)
def test_a_call_that_names_no_archive_is_an_error_that_says_what_would_be_right(
    call: Any, words: str, validator: Environment
) -> None:
    with pytest.raises(FunctionError, match=words):
        validator.invoke(call)


def test_the_work_is_a_subsegment_of_the_invocations_trace(deployment: Deployment, start: Starter) -> None:
    put(deployment, archive(GOOD))
    trace_id = "1-65f0a0a0-0123456789abcdef01234567"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(20)
        address = f"127.0.0.1:{daemon.getsockname()[1]}"
        variables = deployment.variables({}) | {"AWS_XRAY_DAEMON_ADDRESS": address}
        traced = start("validate_rules", variables, trace=f"Root={trace_id};Parent=53995c3f42cd8ad8;Sampled=1")
        traced.invoke({"key": KEY})
        head, _, segment = daemon.recv(65_536).partition(b"\n")
    assert json.loads(head)["format"] == "json"
    told = json.loads(segment)
    assert (told["trace_id"], told["parent_id"], told["name"]) == (trace_id, "53995c3f42cd8ad8", "## validate_rules")
