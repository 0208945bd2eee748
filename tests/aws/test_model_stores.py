"""The model stores, in memory and in S3, give the same guarantees."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.errors import ImmutableError, ModelConfigError, StoreError, TidegateError
from tidegate.ports import ModelFile, ModelStore, PushOutcome
from tidegate.testing import MemoryModelStore

from tests.support.model_folders import seal_all, write_model

FILES = {
    "config.pbtxt": b'name: "ranker"\n',
    "configs/gpu.pbtxt": b"gpu",
    "labels.txt": b"a\nb\n",
    "1/model.py": b"class TritonPythonModel: ...",
    "1/parts/weights.bin": bytes(range(256)),
    "2/": b"",
    "samples/first.json": b"{}",
}


@pytest.fixture
def store(stores: Callable[[], ModelStore]) -> ModelStore:
    return stores()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "ranker", FILES)


def push(store: ModelStore, folder: Path, model: str = "ranker") -> PushOutcome:
    return asyncio.run(store.push(model, folder, lambda *_: None))


def refused(store: ModelStore, folder: Path, model: str = "ranker") -> TidegateError:
    with pytest.raises(TidegateError) as caught:
        push(store, folder, model)
    return caught.value


def held(store: ModelStore, model: str = "ranker") -> dict[str, bytes | None]:
    """Every file of a model that the store says is there, read back."""

    async def work() -> dict[str, bytes | None]:
        units = [None, *await store.versions(model)]
        files = [file for unit in units for file in await store.files(model, unit)]
        contents = {file.path: await store.read(model, file.path) for file in files}
        for file in files:
            content = contents[file.path]
            assert content is not None
            assert file == ModelFile(file.path, sha256(content).hexdigest(), len(content))
        return contents

    return asyncio.run(work())


def test_what_was_pushed_is_there_by_unit(store: ModelStore, folder: Path) -> None:
    assert push(store, folder) == PushOutcome("ranker", (1, 2), 7, sum(map(len, FILES.values())))

    async def paths(version: int | None) -> list[str]:
        return [file.path for file in await store.files("ranker", version)]

    async def work() -> None:
        assert {model: list(found) for model, found in (await store.models()).items()} == {"ranker": [1, 2]}
        assert list(await store.versions("ranker")) == [1, 2]
        assert await paths(None) == ["config.pbtxt", "configs/gpu.pbtxt", "labels.txt"]
        assert await paths(1) == ["1/model.py", "1/parts/weights.bin"]
        assert await paths(2) == ["2/.keep"], "a folder that is empty is not lost"
        assert await paths(3) == []
        assert await store.samples("ranker") == {"first.json": b"{}"}
        assert await store.read("ranker", "1/parts/weights.bin") == bytes(range(256))
        assert await store.read("ranker", "samples/first.json") is None, "golden requests are not served"

    asyncio.run(work())
    assert held(store) == {
        **{path: content for path, content in FILES.items() if path[0] != "s" and path[-1] != "/"},
        "2/.keep": b"",
    }


def test_an_unknown_model_has_nothing(store: ModelStore) -> None:
    async def work() -> None:
        assert await store.models() == {}
        assert list(await store.versions("ranker")) == []
        assert list(await store.files("ranker", None)) == []
        assert await store.read("ranker", "config.pbtxt") is None
        assert await store.samples("ranker") == {}

    asyncio.run(work())


def test_a_second_push_sends_nothing(stores: Callable[[], ModelStore], folder: Path) -> None:
    push(stores(), folder)
    assert push(stores(), folder) == PushOutcome("ranker")


def test_a_new_version_is_pushed_beside_the_others(store: ModelStore, folder: Path) -> None:
    push(store, folder)
    write_model(folder, {"3/model.py": b"three"})
    assert push(store, folder) == PushOutcome("ranker", (3,), 1, 5)
    assert asyncio.run(store.versions("ranker")) == [1, 2, 3]


def test_a_version_that_is_only_in_the_store_stays(store: ModelStore, folder: Path) -> None:
    push(store, folder)
    (folder / "2").rmdir()
    assert push(store, folder) == PushOutcome("ranker")
    assert asyncio.run(store.versions("ranker")) == [1, 2]


@pytest.mark.parametrize(
    ("change", "message", "paths"),
    [
        ({"1/model.py": b"else"}, "version 1 was live and never changes, but 1/model.py differs", ["1/model.py"]),
        ({"1/model.py": None}, "but 1/model.py is missing", ["1/model.py"]),
        ({"2/new": b""}, "version 2 was live and never changes, but 2/.keep is missing, 2/new is new", ["2/.keep", "2/new"]),
        ({"labels.txt": b"a\nc\n", "readme": b""}, "its config was live and never changes, but labels.txt differs, readme is new", ["labels.txt", "readme"]),
    ],
)  # fmt: skip
def test_what_was_sealed_never_changes(
    store: ModelStore, folder: Path, change: dict[str, bytes | None], message: str, paths: list[str]
) -> None:
    push(store, folder)
    seal_all(store, "ranker")
    before = held(store)
    for path in [path for path, content in change.items() if content is None]:
        (folder / path).unlink()
    write_model(folder, {path: content for path, content in change.items() if content is not None})
    write_model(folder, {"7/model.py": b"new"})
    error = refused(store, folder)
    assert isinstance(error, ImmutableError)
    assert (error.model, list(error.paths)) == ("ranker", paths)
    assert message in str(error)
    assert held(store) == before, "nothing of a refused push is there, its new version included"


def test_golden_requests_change_as_the_folder_does(store: ModelStore, folder: Path) -> None:
    write_model(folder, {"samples/second.json": b"[2]", "samples/notes.txt": b"not sent"})
    push(store, folder)
    assert asyncio.run(store.samples("ranker")) == {"first.json": b"{}", "second.json": b"[2]"}
    write_model(folder, {"samples/second.json": b"[3]"})
    (folder / "samples/first.json").unlink()
    assert push(store, folder) == PushOutcome("ranker", (), 1, 3)
    assert asyncio.run(store.samples("ranker")) == {"second.json": b"[3]"}


def test_golden_requests_stay_where_the_folder_has_none(store: ModelStore, folder: Path) -> None:
    push(store, folder)
    (folder / "samples/first.json").unlink()
    (folder / "samples").rmdir()
    push(store, folder)
    assert asyncio.run(store.samples("ranker")) == {"first.json": b"{}"}


def test_bytecode_is_never_pushed(store: ModelStore, folder: Path) -> None:
    write_model(
        folder, {"1/__pycache__/model.pyc": b"x", "1/old.pyc": b"x", "__pycache__/a": b"x", "4/__pycache__/a": b"x"}
    )
    push(store, folder)
    assert sorted(held(store)) == sorted([*(path for path in FILES if path[0] != "s" and path[-1] != "/"), "2/.keep", "4/.keep"])  # fmt: skip


def test_links_inside_the_folder_are_followed(store: ModelStore, folder: Path) -> None:
    (folder / "1/labels.txt").symlink_to("../labels.txt")
    (folder / "3").symlink_to("1")
    push(store, folder)
    contents = held(store)
    assert contents["1/labels.txt"] == contents["3/labels.txt"] == b"a\nb\n"
    assert contents["3/parts/weights.bin"] == bytes(range(256))
    assert asyncio.run(store.versions("ranker")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "1/w").symlink_to("/etc/hostname"), "ranker/1/w is a link out of the model's folder"),
        (lambda folder: (folder / "9").symlink_to(folder.parent), "ranker/9 is a link out of the model's folder"),
        (
            lambda folder: (folder / "samples/x.json").symlink_to("../../y"),
            "ranker/samples/x.json is a link to nothing",
        ),
        (lambda folder: (folder / "w").symlink_to("w"), "ranker/w is a link to nothing"),
        (lambda folder: (folder / "1/up").symlink_to(".."), "ranker/1/up is a link to a folder that holds it"),
        (lambda folder: os.mkfifo(folder / "1/pipe"), "ranker/1/pipe is neither a file nor a folder"),
        (lambda folder: (folder / "1/a\\b").write_text(""), r"the name is a path of another system; rename it"),
        (lambda folder: (folder / "1/a\nb").write_text(""), r"'ranker/1/a\nb': the name holds a control character"),
        (lambda folder: Path(os.fsdecode(bytes(folder) + b"/1/\xff")).write_text(""), "the name is not UTF-8"),
        (lambda folder: write_model(folder, {"/".join("n" * 200 for _ in range(3)): b""}), "is over 512 bytes"),
    ],
)
def test_a_folder_that_cannot_be_pushed_is_refused_whole(
    store: ModelStore, folder: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(folder)
    error = refused(store, folder)
    assert isinstance(error, ModelConfigError)
    assert message in str(error)
    assert asyncio.run(store.models()) == {}
    assert held(store) == {}


def test_a_folder_without_a_version_is_refused(store: ModelStore, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "ranker", {"config.pbtxt": b"", "01/model.py": b"", "v2/model.py": b""})
    assert str(refused(store, folder)) == "model 'ranker' has no version; put it into a folder named 1"
    assert "is not a folder" in str(refused(store, tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".hidden", "-x", "ü", "x" * 129, "a\n"])
def test_a_name_that_no_model_can_have_is_refused(store: ModelStore, folder: Path, name: str) -> None:
    assert "is not a name for a model" in str(refused(store, folder, name))


def test_progress_ends_with_everything(store: ModelStore, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    total = sum(map(len, FILES.values()))
    asyncio.run(store.push("ranker", folder, lambda *what: told.append(what)))
    assert {path for path, _, _ in told} == {*(path for path in FILES if path[-1] != "/"), "2/.keep"}
    assert [sent for _, sent, _ in told] == sorted(sent for _, sent, _ in told)
    assert (told[-1][1], {of for _, _, of in told}) == (total, {total})


def test_two_pushers_of_the_same_files_both_succeed(stores: Callable[[], ModelStore], folder: Path) -> None:
    async def work() -> None:
        pushes = [stores().push("ranker", folder, lambda *_: None) for _ in range(3)]
        await asyncio.gather(*pushes)

    asyncio.run(work())
    assert len(held(stores())) == 6


def test_of_pushers_of_different_files_one_wins_each_unit(
    stores: Callable[[], ModelStore], folder: Path, tmp_path: Path
) -> None:
    changed = ("config.pbtxt", "1/model.py", "2/only")
    folders = [
        write_model(tmp_path / f"other{n}" / "ranker", {**FILES, **dict.fromkeys(changed, b"%d" % n)}) for n in range(3)
    ]

    async def work() -> list[PushOutcome | BaseException]:
        pushes = [stores().push("ranker", each, lambda *_: None) for each in folders]
        return await asyncio.gather(*pushes, return_exceptions=True)

    results = asyncio.run(work())
    winners = [number for number, result in enumerate(results) if isinstance(result, PushOutcome)]
    assert all(isinstance(result, (PushOutcome, StoreError)) for result in results)
    contents = held(stores())
    for path in changed:
        assert contents[path] in [b"%d" % winner for winner in winners], "a draft is of one of those who succeeded"


NAMES = st.text("ab1._-é", min_size=1, max_size=4).filter(lambda name: name not in (".", "..") and name != "samples")
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=8), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_every_file_of_a_folder_is_in_the_store_once(tree: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = write_model(Path(base) / "m", {"9/model.py": b"nine"})
        written = {"9/model.py": b"nine"}
        for path, content in tree.items():
            try:
                write_model(folder, {path: content})
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            written[path] = content
        store = MemoryModelStore()
        push(store, folder, "m")
        assert held(store, "m") == written
