"""What was never live can be replaced and withdrawn; what was live, or may have been, never changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.model_store import S3ModelStore
from tidegate.errors import ConflictError, ImmutableError, StoreError, TidegateError
from tidegate.ports import ModelStore, PushOutcome, Unit

from tests.support.aws import LocalAws
from tests.support.model_folders import seal_all, write_model

FILES = {"config.pbtxt": b"config", "labels.txt": b"labels", "1/model.py": b"one", "2/": b"", "samples/a.json": b"{}"}
UNITS: list[Unit] = [("m", None), ("m", 1), ("m", 2)]


@pytest.fixture
def store(stores: Callable[[], ModelStore]) -> ModelStore:
    return stores()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m", FILES)


def push(store: ModelStore, folder: Path, held: tuple[Unit, ...] = ()) -> PushOutcome:
    return asyncio.run(store.push("m", folder, lambda *_: None, held))


def refusal(work: Awaitable[Any]) -> TidegateError:
    async def run() -> None:
        await work

    with pytest.raises(TidegateError) as caught:
        asyncio.run(run())
    return caught.value


def contents(store: ModelStore) -> dict[str, bytes | None]:
    async def work() -> dict[str, bytes | None]:
        files = [file for unit in (None, *await store.versions("m")) for file in await store.files("m", unit)]
        return {file.path: await store.read("m", file.path) for file in files}

    return asyncio.run(work())


def test_a_draft_is_replaced_by_the_next_push(stores: Callable[[], ModelStore], folder: Path) -> None:
    push(stores(), folder)
    (folder / "labels.txt").unlink()
    write_model(folder, {"config.pbtxt": b"mended", "1/more.txt": b"more", "3/model.py": b"three"})
    outcome = push(stores(), folder)
    assert (outcome.replaced, outcome.versions) == ((None, 1), (3,))
    assert contents(stores()) == {
        "config.pbtxt": b"mended",
        "1/model.py": b"one",
        "1/more.txt": b"more",
        "2/.keep": b"",
        "3/model.py": b"three",
    }
    assert push(stores(), folder) == PushOutcome("m")


def test_what_one_reader_kept_of_a_draft_is_read_again_once_it_forgets(
    stores: Callable[[], ModelStore], folder: Path
) -> None:
    reader = stores()
    push(stores(), folder)
    assert contents(reader)["1/model.py"] == b"one"
    write_model(folder, {"1/model.py": b"two"})
    push(stores(), folder)
    reader.forget_drafts()
    assert contents(reader)["1/model.py"] == b"two"


def test_only_what_is_sealed_never_changes(stores: Callable[[], ModelStore], folder: Path) -> None:
    store = stores()
    push(store, folder)
    asyncio.run(store.seal(asyncio.run(store.pin([("m", None), ("m", 1)]))))
    assert asyncio.run(stores().pin(UNITS)).keys() == {("m", 2)}
    write_model(folder, {"2/model.py": b"two"})
    assert push(stores(), folder).replaced == (2,)
    write_model(folder, {"1/model.py": b"else"})
    error = refusal(stores().push("m", folder, lambda *_: None))
    assert isinstance(error, ImmutableError)
    assert "tidegate models version m" in str(error)
    assert contents(stores())["1/model.py"] == b"one"


def test_a_draft_that_was_replaced_is_not_sealed(stores: Callable[[], ModelStore], folder: Path) -> None:
    publisher = stores()
    push(stores(), folder)
    pins = asyncio.run(publisher.pin(UNITS))
    for content in (b"two", b"one"):
        write_model(folder, {"1/model.py": content})
        push(stores(), folder)
    assert isinstance(refusal(publisher.seal(pins)), ConflictError), "not even by the same files"
    assert ("m", 1) in asyncio.run(stores().pin(UNITS))
    asyncio.run(stores().withdraw("m"))
    publisher.forget_drafts()
    assert isinstance(refusal(publisher.pin(UNITS)), ConflictError)
    assert isinstance(refusal(publisher.seal(pins)), ConflictError)


def test_sealing_twice_is_no_error(stores: Callable[[], ModelStore], folder: Path) -> None:
    store, other = stores(), stores()
    push(store, folder)
    pins = asyncio.run(other.pin(UNITS))
    asyncio.run(store.seal(asyncio.run(store.pin(UNITS))))
    asyncio.run(other.seal(pins))
    assert asyncio.run(store.pin(UNITS)) == {}


def test_a_draft_that_somebody_needs_is_left_alone(store: ModelStore, folder: Path) -> None:
    push(store, folder)
    write_model(folder, {"1/model.py": b"two", "9/model.py": b"nine"})
    assert isinstance(refusal(store.push("m", folder, lambda *_: None, [("m", 1)])), ConflictError)
    assert isinstance(refusal(store.withdraw("m", 1, held=[("m", 1)])), ConflictError)
    assert contents(store)["1/model.py"] == b"one"
    assert asyncio.run(store.versions("m")) == [1, 2]
    assert push(store, folder, (("m", 2),)).replaced == (1,), "what is held and has the same files is in nobody's way"


def test_of_several_models_none_is_sent_where_one_is_refused(store: ModelStore, folder: Path, tmp_path: Path) -> None:
    push(store, folder)
    seal_all(store, "m")
    write_model(folder, {"1/model.py": b"else"})
    folders = {"a": write_model(tmp_path / "a", FILES), "m": folder, "z": write_model(tmp_path / "z", FILES)}
    assert isinstance(refusal(store.push_all(folders, lambda _: lambda *_: None)), ImmutableError)
    assert asyncio.run(store.models()).keys() == {"m"}
    del folders["m"]
    outcomes = asyncio.run(store.push_all(folders, lambda _: lambda *_: None))
    assert [(each.model, each.versions) for each in outcomes] == [("a", (1, 2)), ("z", (1, 2))]


def test_a_withdrawn_version_is_gone_and_its_number_free(stores: Callable[[], ModelStore], folder: Path) -> None:
    push(stores(), folder)
    assert asyncio.run(stores().withdraw("m", 1, dry_run=True)) == [1]
    assert asyncio.run(stores().versions("m")) == [1, 2]
    assert asyncio.run(stores().withdraw("m", 1)) == [1]
    assert asyncio.run(stores().versions("m")) == [2]
    assert asyncio.run(stores().withdraw("m", 1)) == [], "it is gone already"
    write_model(folder, {"1/model.py": b"other"})
    assert push(stores(), folder).versions == (1,)
    assert contents(stores())["1/model.py"] == b"other"


def test_a_withdrawn_model_leaves_nothing(stores: Callable[[], ModelStore], folder: Path) -> None:
    push(stores(), folder)
    assert asyncio.run(stores().withdraw("m")) == [None, 1, 2]
    assert asyncio.run(stores().models()) == {}
    assert contents(stores()) == {}
    assert asyncio.run(stores().samples("m")) == {}
    assert push(stores(), folder).versions == (1, 2)


def test_a_model_of_which_something_was_live_is_not_withdrawn(store: ModelStore, folder: Path) -> None:
    push(store, folder)
    asyncio.run(store.seal(asyncio.run(store.pin([("m", None), ("m", 1)]))))
    before = contents(store)
    for version in (None, 1):
        assert isinstance(refusal(store.withdraw("m", version)), ImmutableError)
    assert contents(store) == before
    assert asyncio.run(store.withdraw("m", 2)) == [2]
    assert asyncio.run(store.withdraw("unknown")) == []


LOST = ["manifests/m/1.json", "pushes/m/1.json"]


@pytest.mark.parametrize("lost", LOST)
def test_what_was_live_never_changes_whatever_else_is_lost(aws: LocalAws, folder: Path, lost: str) -> None:
    store = S3ModelStore(aws.objects())
    push(store, folder)
    seal_all(store, "m")
    aws.s3().delete_object(Bucket=aws.bucket, Key=lost)
    write_model(folder, {"1/model.py": b"else"})
    assert isinstance(refusal(S3ModelStore(aws.objects()).push("m", folder, lambda *_: None)), ImmutableError)
    assert isinstance(refusal(S3ModelStore(aws.objects()).withdraw("m", 2)), ImmutableError)
    write_model(folder, {"1/model.py": b"one"})
    push(S3ModelStore(aws.objects()), folder)
    assert asyncio.run(S3ModelStore(aws.objects()).pin(UNITS)) == {}, "the push that mended it made no draft of it"


def test_what_an_older_version_pushed_never_changes(aws: LocalAws, folder: Path) -> None:
    push(S3ModelStore(aws.objects()), folder)
    # It wrote no token into the manifest.
    seal_all(S3ModelStore(aws.objects()), "m")
    assert asyncio.run(S3ModelStore(aws.objects()).pin(UNITS)) == {}


def test_a_draft_whose_files_are_damaged_is_not_sealed(aws: LocalAws, folder: Path) -> None:
    store = S3ModelStore(aws.objects())
    push(store, folder)
    pins = asyncio.run(store.pin(UNITS))
    aws.s3().put_object(Bucket=aws.bucket, Key="models/m/1/model.py", Body=b"two")
    error = refusal(store.seal(pins))
    assert isinstance(error, StoreError)
    assert "m/1/model.py" in str(error)


def test_a_withdrawn_model_is_gone_from_tritons_repository(aws: LocalAws, folder: Path) -> None:
    push(S3ModelStore(aws.objects()), folder)
    asyncio.run(S3ModelStore(aws.objects()).withdraw("m"))
    assert not [
        each.key for each in asyncio.run(aws.objects().list("")) if each.key.startswith(("models/", "samples/"))
    ]
