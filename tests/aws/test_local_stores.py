"""Filling a stack's own stores again: what is missing or malformed in the folder costs itself alone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.model_store import S3ModelStore
from tidegate.bootstrap.local_stores import LocalStores, Snapshot, StoredRevision, fill_stores
from tidegate.ports import LiveEntry, ModelLoad, Pointer, Unit
from tidegate.settings import Settings
from tidegate.tasks import cancel

from tests.control.plane import Plane
from tests.support.aws import LocalAws, names
from tests.support.model_folders import write_model

FILES = {
    "scorer/config.pbtxt": b'name: "scorer"\n',
    "scorer/1/model.onnx": b"first",
    "scorer/facts/likes.jsonl": b"no fact\n",
}
LIVE: list[Unit] = [("scorer", None), ("scorer", 1)]


def test_a_model_that_is_gone_and_malformed_facts_keep_no_live_model_from_being_sealed(
    aws_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    aws: LocalAws = names(aws_url)
    settings = Settings(
        aws_endpoint_url=aws.url,
        aws_region="us-east-1",
        bucket=aws.bucket,
        registry_table=aws.table,
        facts_table=f"{aws.table}-facts",
    )
    write_model(tmp_path, FILES)

    async def work() -> None:
        bundles = Plane().process().ports.bundles
        live, earlier = "a" * 64, "b" * 64
        revisions = {
            live: StoredRevision(b"live", {"a": (ModelLoad("scorer", (1,)),)}),
            earlier: StoredRevision(b"earlier", {"a": (ModelLoad("gone", (1,)), ModelLoad("scorer", (1, 2)))}),
        }
        snapshot = Snapshot(Pointer((LiveEntry(live, 2, "ana", 0.0),), "tag"), revisions)
        await fill_stores(bundles, settings, tmp_path, snapshot)
        models = S3ModelStore(aws.objects())
        assert await models.versions("scorer") == [1]
        assert await models.pin(LIVE) == {}, "what is live is no draft"
        pointer = await bundles.pointer()
        assert pointer is not None
        assert pointer.live.revision == live

    asyncio.run(work())
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert all(each in said for each in ("'gone'", "version 2", "likes.jsonl:1")), said


class RunningAws:
    """One that never ends by itself, and remembers whether it was ended."""

    stopped = False

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped = True


def test_the_stores_outlive_who_fills_them_again_for_the_servers_that_stop_later(tmp_path: Path) -> None:
    aws: Any = RunningAws()

    async def work() -> None:
        running = asyncio.create_task(LocalStores(aws, Settings(), tmp_path, Plane().process()).run())
        await asyncio.sleep(0.01)
        await cancel(running)

    asyncio.run(work())
    assert not aws.stopped
