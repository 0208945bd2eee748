"""`tidegate models push` as a user runs it: one command after another against a bucket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.model_store import S3ModelStore

from tests.models.lint.base import write_base
from tests.support.aws import LocalAws, closed_port, failing_server, forgetful_proxy
from tests.support.commands import tidegate
from tests.support.model_folders import seal_all

TIMEOUT_S = 300


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An ensemble and what it calls, without a finding."""
    return write_base(tmp_path / "models")


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")} | variables


def command(repository: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tidegate.cli", "models", "push", str(repository), *arguments]


def push(
    aws: LocalAws, repository: Path, *arguments: str, exit_code: int = 0, url: str = ""
) -> subprocess.CompletedProcess[str]:
    stores = (f"--endpoint-url={url or aws.url}", f"--bucket={aws.bucket}")
    done = tidegate("models", "push", str(repository), *stores, *arguments)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def push_json(aws: LocalAws, repository: Path, *arguments: str, exit_code: int = 0) -> Any:
    return json.loads(push(aws, repository, *arguments, "--json", exit_code=exit_code).stdout)


def keys(aws: LocalAws, prefix: str = "models/") -> list[str]:
    return [found.key for found in asyncio.run(aws.objects().list(prefix))]


def on_disk(repository: Path) -> list[str]:
    """The keys that the models' files have in the bucket; golden requests stand elsewhere."""
    files = [path.relative_to(repository) for path in repository.rglob("*") if path.is_file()]
    return sorted(f"models/{path}" for path in files if path.parts[1] != "samples")


def test_a_push_sends_everything_once(aws: LocalAws, repository: Path) -> None:
    first = push_json(aws, repository)
    assert first["ok"] and first["findings"] == first["refused"] == []
    order = [model["name"] for model in first["models"]]
    assert sorted(order) == sorted(path.name for path in repository.iterdir())
    assert order.index("picker") < order.index("ranker"), "an ensemble comes after what it calls"
    assert all(model["versions_added"] for model in first["models"])
    assert keys(aws) == on_disk(repository)
    etags = {found.key: found.etag for found in asyncio.run(aws.objects().list(""))}
    second = push(aws, repository).stdout.splitlines()
    assert second == [f"bucket {aws.bucket}: 0 files of 0 models sent, 0 bytes; {len(order)} there already"]
    assert {found.key: found.etag for found in asyncio.run(aws.objects().list(""))} == etags


def test_a_named_model_is_pushed_with_what_it_calls_and_no_more(aws: LocalAws, repository: Path) -> None:
    pushed = push_json(aws, repository, "picker")
    assert [model["name"] for model in pushed["models"]] == ["picker"]
    assert {key.split("/")[1] for key in keys(aws)} == {"picker"}
    new = repository / "picker" / "2"
    new.mkdir()
    (new / "model.py").write_bytes((repository / "picker" / "1" / "model.py").read_bytes())
    (model,) = push_json(aws, repository, "picker")["models"]
    assert (model["versions_added"], model["files_sent"]) == ([2], ["2/model.py"])


def test_what_was_live_never_changes_and_nothing_else_is_sent_then(aws: LocalAws, repository: Path) -> None:
    push(aws, repository, "picker")
    seal_all(S3ModelStore(aws.objects()), "picker")
    before = keys(aws, "")
    with (repository / "picker" / "1" / "model.py").open("a") as file:
        file.write("# changed\n")
    (repository / "picker" / "1" / "table.txt").write_text("new")
    refused = push(aws, repository, exit_code=1)
    assert "model 'picker': version 1 was live and never changes" in refused.stderr
    assert "1/model.py differs, 1/table.txt is new" in refused.stderr
    assert "tidegate models version picker" in refused.stderr
    document = push_json(aws, repository, exit_code=1)
    (reason,) = document["refused"]
    assert (document["ok"], reason["model"], reason["files"]) == (False, "picker", ["1/model.py", "1/table.txt"])
    assert keys(aws, "") == before


def test_a_dry_run_says_what_would_be_sent_or_refused(aws: LocalAws, repository: Path) -> None:
    planned = push_json(aws, repository, "--dry-run")
    assert keys(aws, "") == []
    assert push_json(aws, repository)["models"] == planned["models"]
    (repository / "picker" / "1" / "model.py").write_text((repository / "picker" / "1" / "model.py").read_text() + "\n")
    (model,) = (each for each in push_json(aws, repository, "--dry-run")["models"] if each["files_sent"])
    assert (model["name"], model["versions_added"], model["replaced"]) == ("picker", [], [1])
    seal_all(S3ModelStore(aws.objects()), "picker")
    assert "1/model.py differs" in push(aws, repository, "--dry-run", exit_code=1).stderr


def test_models_with_errors_are_not_pushed(aws: LocalAws, repository: Path) -> None:
    (repository / "picker" / "1" / "model.py").unlink()
    refused = push(aws, repository, exit_code=1)
    assert "picker/1: error[" in refused.stdout
    assert refused.stderr.splitlines()[-1] == "nothing was pushed: the models have errors"
    document = push_json(aws, repository, exit_code=1)
    assert (document["ok"], document["models"]) == (False, [])
    assert {finding["model"] for finding in document["findings"]} >= {"picker"}
    assert keys(aws, "") == []


@pytest.mark.parametrize("point", [1, 3])
def test_a_killed_push_is_taken_up(aws: LocalAws, repository: Path, point: int) -> None:
    (repository / "picker" / "1" / "table.bin").write_bytes(os.urandom(100_000))
    for samples in repository.glob("*/samples"):
        shutil.rmtree(samples)
    files = len(on_disk(repository))
    reached, release = threading.Event(), threading.Event()
    sent: list[str] = []

    def hold(method: str, path: str) -> bool:
        if method == "PUT" and "/models/" in path:
            sent.append(path)
            if len(sent) == point:
                reached.set()
            if len(sent) >= point:
                release.wait(TIMEOUT_S)
                return True
        return False

    with forgetful_proxy(aws.url, hold) as url:
        stores = (f"--endpoint-url={url}", f"--bucket={aws.bucket}")
        process = subprocess.Popen(command(repository, *stores), env=environment(), stderr=subprocess.DEVNULL)
        try:
            assert reached.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            release.set()
    there = len(keys(aws))
    assert point <= there < files
    document = push_json(aws, repository)
    assert sum(len(model["files_sent"]) for model in document["models"]) == files - there
    assert keys(aws) == on_disk(repository)
    store = S3ModelStore(aws.objects())
    for path in on_disk(repository):
        _, model, file = path.split("/", 2)
        assert asyncio.run(store.read(model, file)) == (repository / model / file).read_bytes()


def test_empty_folders_links_and_bytecode(aws: LocalAws, repository: Path) -> None:
    (repository / "picker" / "1" / "assets").mkdir()
    cache = repository / "picker" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"compiled")
    assert "picker/1/__pycache__: warning[stray-bytecode]" in push(aws, repository).stdout
    assert "models/picker/1/assets/.keep" in keys(aws)
    assert not [key for key in keys(aws, "") if "pycache" in key or key.endswith(".pyc")]
    outside = repository.parent / "outside.txt"
    outside.write_text("outside")
    (repository / "scorer" / "1" / "outside.txt").symlink_to(outside)
    refused = push(aws, repository, "scorer", exit_code=1)
    assert "scorer/1/outside.txt" in refused.stderr


def test_a_store_that_is_down_or_not_there_is_told(aws: LocalAws, repository: Path) -> None:
    with closed_port() as url:
        assert f"S3 at {url} did not answer" in push(aws, repository, exit_code=1, url=url).stderr
    with failing_server(500) as url:
        assert f"S3 at {url} refused" in push(aws, repository, exit_code=1, url=url).stderr
    nowhere = LocalAws(aws.url, "nowhere-at-all", "t")
    assert "there is no bucket 'nowhere-at-all'" in push(nowhere, repository, exit_code=1).stderr


def test_a_push_tells_how_much_is_sent(aws: LocalAws, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, float, float | None]] = []
    monkeypatch.setattr(
        "tidegate.cli.progress.note", lambda text, done=0, total=None: noted.append((text, done, total))
    )
    push(aws, repository)
    sent = [each for each in noted if each[0].startswith("pushing ")]
    assert sent[-1][1] == sent[-1][2]
    assert [done for _, done, _ in sent] == sorted(done for _, done, _ in sent)


def test_wrong_usage_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user's own stack may be at the usual port.
    monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", "http://127.0.0.1:9")

    def usage(*arguments: str) -> str:
        done = tidegate("models", "push", *arguments)
        assert done.returncode == 2, done.stderr
        return " ".join(done.stderr.replace("│", " ").split())

    assert "unknown model 'pickr'" in usage(str(repository), "pickr", "--bucket=some")
    assert "is a model, not a model repository" in usage(str(repository / "picker"), "--bucket=some")
    assert "--stack names all stores" in usage(str(repository), "--stack=http://127.0.0.1:9", "--bucket=some")
    assert "is not an http:// or https:// address" in usage(str(repository), "--stack=localhost")
    assert "must be the name of a bucket" in usage(str(repository), "--bucket=X")
    message = usage(str(repository), "--region=eu-west-1")
    assert all(way in message for way in ("tidegate up", "--stack", "TIDEGATE_STACK", "--bucket", "TIDEGATE_BUCKET"))
