"""Which of many models a push has work with: the stores say so in a few calls."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tidegate.aws.layout import model_key
from tidegate.aws.model_store import FEW, S3ModelStore
from tidegate.aws.objects import Listed, Objects
from tidegate.ports import ModelStore

from tests.support.aws import LocalAws
from tests.support.model_folders import seal_all, write_model

NAMES = [f"ranker_{number}" for number in range(FEW + 4)]
FILES = {"config.pbtxt": b"config", "1/model.py": b"one", "2/": b"", "samples/first.json": b"{}"}


@pytest.fixture
def folders(tmp_path: Path) -> Mapping[str, Path]:
    return {name: write_model(tmp_path / name, FILES) for name in NAMES}


def push(store: ModelStore, folders: Mapping[str, Path]) -> None:
    async def work() -> None:
        await asyncio.gather(*(store.push(model, folder, lambda *_: None) for model, folder in folders.items()))

    asyncio.run(work())
    for model in folders:
        seal_all(store, model)


def unpushed(store: ModelStore, folders: Mapping[str, Path]) -> list[str]:
    return list(asyncio.run(store.unpushed(folders)))


def test_what_is_there_as_in_its_folder_is_left_out(
    stores: Callable[[], ModelStore], folders: Mapping[str, Path]
) -> None:
    assert unpushed(stores(), folders) == NAMES
    push(stores(), folders)
    assert unpushed(stores(), folders) == []

    changes: list[Callable[[Path], object]] = [
        lambda folder: write_model(folder, {"3/model.py": b"three"}),
        lambda folder: (folder / "config.pbtxt").write_bytes(b"Config"),
        lambda folder: (folder / "1" / "labels.txt").write_bytes(b"a"),
        lambda folder: (folder / "1" / "model.py").unlink(),
        lambda folder: (folder / "samples" / "first.json").write_bytes(b"[]"),
        lambda folder: (folder / "samples" / "first.json").unlink(),
        lambda folder: (folder / "samples" / "second.json").write_bytes(b"{}"),
        lambda folder: (folder / "labels.txt").symlink_to("/nowhere"),
        shutil.rmtree,
    ]
    for change, folder in zip(changes, folders.values(), strict=False):
        change(folder)
    assert unpushed(stores(), folders) == NAMES[: len(changes)]


def test_golden_requests_stay_where_the_folder_has_none(
    stores: Callable[[], ModelStore], folders: Mapping[str, Path]
) -> None:
    push(stores(), folders)
    shutil.rmtree(folders[NAMES[0]] / "samples")
    assert unpushed(stores(), folders) == []


def test_a_file_that_somebody_changed_in_the_bucket_is_sent_again(aws: LocalAws, folders: Mapping[str, Path]) -> None:
    objects = aws.objects()
    push(S3ModelStore(objects), folders)
    changed, gone, *_ = NAMES
    asyncio.run(objects.put(model_key(changed, "1/model.py"), b"ONE"))
    asyncio.run(objects.delete(model_key(gone, "1/model.py")))
    assert unpushed(S3ModelStore(objects), folders) == [changed, gone]
    push(S3ModelStore(objects), {name: folders[name] for name in (changed, gone)})
    assert unpushed(S3ModelStore(objects), folders) == []


def test_a_bucket_whose_etags_are_no_digests_has_every_model_asked_for(
    aws: LocalAws, folders: Mapping[str, Path]
) -> None:
    class Encrypted(Objects):
        async def list(self, prefix: str, start_after: str = "") -> list[Listed]:
            found = await super().list(prefix, start_after)
            return [Listed(each.key, f'"{each.etag[::-1]}"', each.size_bytes) for each in found]

    push(S3ModelStore(aws.objects()), folders)
    objects = Encrypted(aws.clients(), aws.bucket)
    assert unpushed(S3ModelStore(objects), folders) == NAMES


def test_many_models_cost_as_many_calls_as_few(aws: LocalAws, folders: Mapping[str, Path]) -> None:
    calls: list[str] = []

    class Counted(Objects):
        async def list(self, prefix: str, start_after: str = "") -> object:
            calls.append(prefix)
            return await super().list(prefix, start_after)

    push(S3ModelStore(aws.objects()), folders)
    store = S3ModelStore(Counted(aws.clients(), aws.bucket))
    assert unpushed(store, folders) == []
    assert len(calls) == 3
    assert asyncio.run(store.read(NAMES[0], "config.pbtxt")) == b"config"
    assert len(calls) == 3


def test_a_draft_may_have_been_replaced_and_is_looked_at(aws: LocalAws, folders: Mapping[str, Path]) -> None:
    push(S3ModelStore(aws.objects()), folders)
    draft = write_model(folders[NAMES[0]], {"3/model.py": b"three"})
    asyncio.run(S3ModelStore(aws.objects()).push(NAMES[0], draft, lambda *_: None))
    assert unpushed(S3ModelStore(aws.objects()), folders) == [NAMES[0]]
