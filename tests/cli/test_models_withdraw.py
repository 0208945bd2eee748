"""`tidegate models withdraw`: what was never live is removed, and its name is free again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.model_store import S3ModelStore
from tidegate.cli import main
from tidegate.ports import Claim, ModelLoad

from tests.support.aws import LocalAws
from tests.support.model_folders import seal_all, write_model

FILES = {"config.pbtxt": b"config", "1/model.py": b"one", "2/model.py": b"two", "samples/a.json": b"{}"}
Command = Callable[..., Result]


@pytest.fixture
def command(aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("TIDEGATE_AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("TIDEGATE_BUCKET", aws.bucket)
    folder = write_model(tmp_path / "m", FILES)
    asyncio.run(S3ModelStore(aws.objects()).push("m", folder, lambda *_: None))

    def run(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["models", "withdraw", *arguments])
        assert result.exit_code == exit_code, result.output
        return result

    return run


def versions(aws: LocalAws) -> list[int]:
    return list(asyncio.run(S3ModelStore(aws.objects()).versions("m")))


def test_a_version_is_removed_and_after_a_look_at_what_would_be(aws: LocalAws, command: Command) -> None:
    assert "version 1" in command("m/1", "--dry-run").stdout
    assert versions(aws) == [1, 2]
    document: Any = json.loads(command("m/1", "--json").stdout)
    assert document.pop("format_version") == 1
    assert document == {"ok": True, "bucket": aws.bucket, "dry_run": False, "model": "m", "removed": [1]}
    assert versions(aws) == [2]
    assert json.loads(command("m", "--json").stdout)["removed"] == ["config", 2]
    assert versions(aws) == []
    assert "no model" in command("m", exit_code=1).stderr


def test_what_was_live_stays(aws: LocalAws, command: Command) -> None:
    seal_all(S3ModelStore(aws.objects()), "m")
    for model in ("m", "m/1"):
        assert "was live" in command(model, exit_code=1).stderr
    assert versions(aws) == [1, 2]


def test_what_somebody_publishes_stays(aws: LocalAws, command: Command) -> None:
    bundles, revision = S3BundleStore(aws.objects()), "a" * 64
    asyncio.run(bundles.put_assignment(revision, {"main": (ModelLoad("m", (1,)),)}))
    asyncio.run(bundles.claim(Claim("1-x-1-x", revision, "eve", time.time() + 60)))
    assert "published by somebody else" in command("m/1", exit_code=1).stderr
    assert "version 2" in command("m/2").stdout
    asyncio.run(bundles.claim(Claim("1-x-1-x", "b" * 64, "eve", time.time() + 60)))
    assert "eve publishes revision bbbbbbbbbbbb" in command("m/1", exit_code=1).stderr
    asyncio.run(bundles.claim(Claim("1-x-1-x", revision, "eve", time.time() - 60)))
    assert "version 1" in command("m/1").stdout


@pytest.mark.parametrize("model", ["m/", "m/0", "m/x", "m/1/2", "../m", "m/²"])
def test_a_name_that_is_none_is_refused(aws: LocalAws, command: Command, model: str) -> None:
    assert CliRunner().invoke(main, ["models", "withdraw", model]).exit_code in (1, 2)
    assert versions(aws) == [1, 2]
