"""Pushes a model again and again in processes that are killed at their first, second, third … request to S3.

    python -m tests.aws.killed_push URL BUCKET FOLDER OTHER_FOLDER PART_BYTES [over]

With `over` the other folder was pushed before, and is a draft that the killed push is to replace. After each kill it checks that no unit is there by half, and pushes anew: the same folder, or (every other time) one
with other files. Prints one JSON object per kill.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.errors import ImmutableError
from tidegate.model_units import read_units


def main(url: str, bucket: str, folder: str, other: str, part_bytes: str, over: str = "") -> None:
    """Kill at every request until a push comes through."""
    config = AwsConfig(endpoint_url=url, region="us-east-1", timeout_s=20)
    pusher, checker = (Objects(AwsClients(config), bucket) for _ in range(2))
    store = S3ModelStore(checker, int(part_bytes))
    # Made before the forks, which share nothing that was used.
    s3 = pusher._clients.client("s3")
    for point in itertools.count(1):
        model = f"m{point}"
        if over:
            asyncio.run(store.push(model, Path(other), lambda *_: None))
        child = os.fork()
        if child == 0:
            die_at(s3, point)
            asyncio.run(S3ModelStore(pusher, int(part_bytes)).push(model, Path(folder), lambda *_: None))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        again = [folder] if point % 2 else [other, folder]
        before = [folder, other] if over else [folder]
        found = asyncio.run(check(S3ModelStore(checker, int(part_bytes)), checker, model, before, again))
        sys.stdout.write(json.dumps({"point": point, **found}) + "\n")


def die_at(s3: Any, point: int) -> None:
    """Kill this process when it is about to send its `point`-th request."""
    requests = itertools.count(1)

    def count(**_: Any) -> None:
        if next(requests) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    s3.meta.events.register("before-send.s3", count)


async def check(
    store: S3ModelStore, objects: Objects, model: str, pushed: list[str], folders: list[str]
) -> dict[str, Any]:
    """See that each unit that is there of a model is whole, as in one of the folders that were pushed, then push the first
    folder that is not refused."""
    whole: dict[str, bytes | None] = {}
    for unit in (None, *await store.versions(model)):
        found = {file.path: await store.read(model, file.path) for file in await store.files(model, unit)}
        assert not found or found in [of_unit(each, unit) for each in pushed], unit
        whole |= found
    refusals = 0
    for folder in folders:
        try:
            outcome = await store.push(model, Path(folder), lambda *_: None)
        except ImmutableError:
            # Rightly, where the config or a version had been committed.
            refusals += 1
            continue
        break
    else:
        raise AssertionError("the push cannot be taken up")
    after = await contents(store, model)
    for path, content in after.items():
        assert content == on_disk(folder, path), path
    keys = {found.key for found in await objects.list(f"models/{model}/")}
    assert keys == {f"models/{model}/{path}" for path in after}, "something is left of the killed push"
    return {"whole": sorted(whole), "refusals": refusals, "sent": outcome.files, "after": sorted(after)}


async def contents(store: S3ModelStore, model: str) -> dict[str, bytes | None]:
    """Every file of every unit that the store says is there."""
    files = [file for unit in (None, *await store.versions(model)) for file in await store.files(model, unit)]
    return {file.path: await store.read(model, file.path) for file in files}


def of_unit(folder: str, unit: int | None) -> dict[str, bytes]:
    """The files of a unit of a folder."""
    return {each.file.path: each.read("m") for each in read_units("m", Path(folder)).units.get(unit, ())}


def on_disk(folder: str, path: str) -> bytes:
    """The content that a file should have."""
    return b"" if path.endswith("/.keep") else (Path(folder) / path).read_bytes()


if __name__ == "__main__":
    main(*sys.argv[1:])
