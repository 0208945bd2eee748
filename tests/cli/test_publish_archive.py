"""`tidegate publish --archive`: exactly the archive that was validated, or a reason why not. Nothing is live before, and
nothing after."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.aws.layout import POINTER, verdict_key
from tidegate.cli import main
from tidegate.control.rules_archive import validate_archive

from tests.support.aws import LocalAws
from tests.support.stack import ROOT, write_rules

KEY = "rules/homepage.zip"


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """An archive of rules that are right."""
    rules = tmp_path / "rules"
    rules.mkdir()
    return packed(write_rules(rules, {"a": 1}, {"versioned": ["a"]}, picked="versioned/1"))


def packed(rules: Path) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for file in sorted(rules.rglob("*.*")):
            opened.write(file, file.relative_to(rules))
    return made.getvalue()


def put(aws: LocalAws, data: bytes, verdict: Mapping[str, Any] | bytes | None = None, key: str = KEY) -> None:
    """Upload an archive, with the verdict that the validator writes, or another."""
    aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=data)
    document = validate_archive(data, at=0).as_dict() if verdict is None else verdict
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    aws.s3().put_object(Bucket=aws.bucket, Key=verdict_key(key), Body=body)


def publish(aws: LocalAws, *arguments: str) -> Result:
    stores = ["--bucket", aws.bucket, "--registry-table", aws.table, "--endpoint-url", aws.url]
    return CliRunner().invoke(main, ["publish", *arguments, *stores, "--json"])


def refusal(aws: LocalAws, digest: str, key: str = KEY) -> str:
    """Why a publish ends in its first step, before which nothing was changed."""
    done = publish(aws, "--archive", key, "--sha256", digest)
    assert done.exit_code == 1, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["ok"], result["step"]) == (False, "check"), result
    assert "Contents" not in aws.s3().list_objects_v2(Bucket=aws.bucket, Prefix=POINTER)
    return f"{result['error']} {json.dumps(result['findings'])}"


def test_an_archive_is_published_only_with_a_verdict_that_accepts_exactly_its_content(
    aws: LocalAws, data: bytes
) -> None:
    digest = sha256(data).hexdigest()
    assert "no such object" in refusal(aws, digest)
    aws.s3().put_object(Bucket=aws.bucket, Key=KEY, Body=data)
    assert "it has no verdict" in refusal(aws, digest)
    accepted = validate_archive(data, at=0).as_dict()
    put(aws, data, b"{no json")
    assert "it is not a verdict" in refusal(aws, digest)
    put(aws, data, b"[" * 100_000)
    assert "it is not a verdict" in refusal(aws, digest)
    put(aws, data, accepted | {"sha256": "0" * 64})
    assert "its verdict is on another archive" in refusal(aws, digest)
    put(aws, data, accepted | {"status": "refused", "summary": "refused: 1 error, 0 failed cases"})
    assert "refused: 1 error" in refusal(aws, digest)
    put(aws, data, accepted | {"revision": "0" * 64})
    assert "different versions of Tidegate" in refusal(aws, digest)
    put(aws, data)
    assert "another archive than was asked for" in refusal(aws, "0" * 64)
    assert "not the key of an archive of rules" in refusal(aws, digest, "live/pointer.json")


def test_an_accepted_archive_gets_as_far_as_a_directory_does(aws: LocalAws, data: bytes, tmp_path: Path) -> None:
    put(aws, data)
    done = publish(aws, "--archive", KEY, "--sha256", sha256(data).hexdigest())
    other = publish(aws, "--rules", str(tmp_path / "rules"))
    first, second = ([json.loads(line) for line in each.stdout.splitlines()] for each in (done, other))
    assert first[-1]["step"] == "assign", "its model was never pushed"
    assert first[-1]["error"] == second[-1]["error"]


def test_models_are_judged_by_the_images_of_the_archives_shards(aws: LocalAws, data: bytes, tmp_path: Path) -> None:
    """Not by the publisher's machine, which has neither the packages of the serving image nor its backends."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "tests/repositories/small/versioned", models / "versioned")
    for code in models.glob("versioned/*/model.py"):
        code.write_text(f"import package_of_the_image\n{code.read_text()}")
    put(aws, data)
    archive = ("--archive", KEY, "--sha256", sha256(data).hexdigest())
    done = publish(aws, *archive, "--models", str(models), "--dry-run")
    other = publish(aws, "--rules", str(tmp_path / "rules"), "--models", str(models), "--dry-run")
    first, second = ([json.loads(line) for line in each.stdout.splitlines()] for each in (done, other))
    assert first[-1] == second[-1]
    assert first[-1]["status"] == "planned"
    assert "package_of_the_image" in json.dumps(first), "it is a warning, as nothing is known of the image"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the rules"),
        (("--rules", "routing_rules", "--archive", KEY, "--sha256", "0"), "name the rules"),
        (("--archive", KEY), "--archive and --sha256 go together"),
        (("--rules", "routing_rules", "--sha256", "0"), "--archive and --sha256 go together"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments: tuple[str, ...], words: str, aws: LocalAws) -> None:
    done = publish(aws, *arguments)
    assert done.exit_code == 2
    assert words in done.output
