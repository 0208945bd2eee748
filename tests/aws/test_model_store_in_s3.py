"""What only the real model store can have: killed pushes, other writers, damage, big files, a store that is down."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.formats import decode_intent
from tidegate.aws.model_store import PushPlan, S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.errors import ImmutableError, ModelConfigError, StoreError
from tidegate.model_units import read_units
from tidegate.models.diagnosis import StoredDiagnosis
from tidegate.ports import PushOutcome

from tests.support.aws import LocalAws, closed_port, failing_server, forgetful_proxy, silent_server
from tests.support.model_folders import seal_all, write_model
from tests.support.stack import ROOT

PART_BYTES = 5 * 1024 * 1024
BIG = b"0123456789abcdef" * (PART_BYTES // 16) + b"the rest"
"""One part, and a little more."""

FILES = {"config.pbtxt": b"config", "labels.txt": b"labels", "1/model.py": b"one", "2/": b"", "samples/a.json": b"{}"}
OTHER = {"config.pbtxt": b"other", "1/model.py": b"other", "1/more.txt": b"more", "samples/a.json": b"[]"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m", FILES)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_model(tmp_path / "other" / "m", OTHER)


@pytest.fixture
def store(aws: LocalAws) -> S3ModelStore:
    return S3ModelStore(aws.objects(), PART_BYTES)


async def push(store: S3ModelStore, folder: Path) -> PushOutcome:
    return await store.push("m", folder, lambda *_: None)


async def contents(store: S3ModelStore, *paths: str) -> list[bytes | None]:
    return [await store.read("m", path) for path in paths]


def test_the_bucket_has_tritons_layout_with_the_rest_beside_it(
    aws: LocalAws, store: S3ModelStore, folder: Path
) -> None:
    asyncio.run(push(store, folder))
    keys = [found.key for found in asyncio.run(aws.objects().list(""))]
    assert keys == [
        "manifests/m/1.json",
        "manifests/m/2.json",
        "manifests/m/config.json",
        "models/m/1/model.py",
        "models/m/2/.keep",
        "models/m/config.pbtxt",
        "models/m/labels.txt",
        "pushes/m/1.json",
        "pushes/m/2.json",
        "pushes/m/config.json",
        "samples/m/a.json",
    ]


def test_a_push_that_is_killed_leaves_nothing_by_half_and_is_taken_up(aws: LocalAws, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", {**FILES, "1/big.bin": BIG})
    other = write_model(tmp_path / "other" / "m", {**OTHER, "2/model.py": b"two"})
    done = subprocess.run(
        [sys.executable, "-m", "tests.aws.killed_push", aws.url, aws.bucket, folder, other, str(PART_BYTES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) > 25
    assert kills[0]["whole"] == []
    assert kills[0]["sent"] == 6
    everything = ["1/big.bin", "1/model.py", "2/.keep", "config.pbtxt", "labels.txt"]
    assert kills[-1]["whole"] == everything, "the last kill was after the last version was committed"
    resumed = [kill["sent"] for kill in kills if kill["after"] == everything]
    assert {6, 0} < set(resumed), "what had been sent was not sent again"
    assert any(kill["after"] != everything for kill in kills), "other files took the place of a push that was killed"


@pytest.mark.slow
def test_a_push_that_is_killed_while_it_replaces_a_draft_leaves_nothing_by_half(aws: LocalAws, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", {"config.pbtxt": b"new", "1/model.py": b"new", "1/more.txt": b"more"})
    other = write_model(tmp_path / "other" / "m", {"config.pbtxt": b"old", "labels.txt": b"old", "1/model.py": b"old"})
    done = subprocess.run(
        [sys.executable, "-m", "tests.aws.killed_push", aws.url, aws.bucket, folder, other, str(PART_BYTES), "over"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) > 15
    assert {kill["refusals"] for kill in kills} == {0}, "what was never live is replaced, however its push ended"
    assert kills[0]["whole"] == ["1/model.py", "config.pbtxt", "labels.txt"]


def test_two_pushes_of_different_files_in_every_order(aws: LocalAws, folder: Path, other: Path) -> None:
    """One push stops before each of its writes in turn, while another one runs from start to end."""

    class Standing(Objects):
        def __init__(self, at: int) -> None:
            super().__init__(aws.clients(), aws.bucket)
            self.writes, self.at = count(1), at
            self.reached, self.go = asyncio.Event(), asyncio.Event()

        async def put(self, *arguments: Any, **options: Any) -> str:
            await self.stop()
            return await super().put(*arguments, **options)

        async def put_over(self, *arguments: Any, **options: Any) -> str | None:
            await self.stop()
            return await super().put_over(*arguments, **options)

        async def stop(self) -> None:
            if next(self.writes) == self.at:
                self.reached.set()
                await self.go.wait()

    async def once(at: int, model: str) -> bool:
        standing, plain = Standing(at), S3ModelStore(aws.objects())
        first = asyncio.create_task(S3ModelStore(standing).push(model, folder, lambda *_: None))
        reached = asyncio.create_task(standing.reached.wait())
        await asyncio.wait([first, reached], return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            reached.cancel()
            return False
        (second,) = await asyncio.gather(plain.push(model, other, lambda *_: None), return_exceptions=True)
        standing.go.set()
        (outcome,) = await asyncio.gather(first, return_exceptions=True)
        results = {folder: outcome, other: second}
        assert all(isinstance(result, (PushOutcome, StoreError)) for result in results.values())
        # One that was done with a unit before the other began has succeeded, and its draft was replaced.
        winners = [each for each, result in results.items() if isinstance(result, PushOutcome)]
        reader = S3ModelStore(aws.objects())
        for version in (None, *await reader.versions(model)):
            contents = {file.path: await reader.read(model, file.path) for file in await reader.files(model, version)}
            assert contents in [of_unit(winner, version) for winner in winners], (at, version, results)
        return True

    def of_unit(root: Path, version: int | None) -> dict[str, bytes]:
        units = read_units("m", root).units
        return {each.file.path: each.read("m") for each in units.get(version, ())}

    orders = 0
    while asyncio.run(once(orders + 1, f"m{orders}")):
        orders += 1
    assert orders >= 14


def test_damage_is_told_and_mended_by_the_next_push(aws: LocalAws, store: S3ModelStore, folder: Path) -> None:
    asyncio.run(push(store, folder))
    reader = S3ModelStore(aws.objects())
    aws.s3().put_object(Bucket=aws.bucket, Key="models/m/1/model.py", Body=b"two")
    aws.s3().delete_object(Bucket=aws.bucket, Key="models/m/labels.txt")
    for path, how in (("1/model.py", "is damaged"), ("labels.txt", "is gone")):
        with pytest.raises(StoreError, match=f"^m/{path} {how}.*push the model again"):
            asyncio.run(reader.read("m", path))
    assert asyncio.run(push(store, folder)) == PushOutcome("m", (), 2, 9)
    assert asyncio.run(contents(reader, "1/model.py", "labels.txt")) == [b"one", b"labels"]


BROKEN = b'{"model": "m", "version": %s, "files": [{"path": 1}]}'


@pytest.mark.parametrize(
    ("key", "there", "damage"),
    [
        ("manifests/m/1.json", BROKEN % b"1", "path is a int"),
        ("manifests/m/config.json", BROKEN % b"null", "path is a int"),
        ("manifests/m/1.json", "manifests/m/config.json", "it is another unit's"),
        ("manifests/m/config.json", "manifests/m/1.json", "it is another unit's"),
    ],
)
def test_a_damaged_manifest_is_named_and_replaced_by_the_next_push(
    aws: LocalAws, folder: Path, key: str, there: bytes | str, damage: str
) -> None:
    asyncio.run(push(S3ModelStore(aws.objects()), folder))
    files = asyncio.run(S3ModelStore(aws.objects()).files("m", 1))
    if isinstance(there, str):
        there = aws.s3().get_object(Bucket=aws.bucket, Key=there)["Body"].read()
    aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=there)
    units = {("m", None), ("m", 1)}
    assert asyncio.run(S3ModelStore(aws.objects()).damage(units)) == [f"{key} is damaged"]
    with pytest.raises(StoreError, match=f"^the manifest {key} is damaged: {damage}; push model 'm' again"):
        asyncio.run(S3ModelStore(aws.objects()).files("m", None if "config" in key else 1))
    asyncio.run(push(S3ModelStore(aws.objects()), folder))
    assert asyncio.run(S3ModelStore(aws.objects()).files("m", 1)) == files


@pytest.mark.parametrize(
    ("manifest", "intent"), [(b"null", b"null"), (b"{", None), (None, b"{}"), (b"[]", b"committed")], ids=str
)
def test_what_may_have_been_live_stays_immutable_however_its_records_are_damaged(
    aws: LocalAws, folder: Path, other: Path, manifest: bytes | None, intent: bytes | None
) -> None:
    store = S3ModelStore(aws.objects())
    asyncio.run(push(store, folder))
    seal_all(store, "m")
    for key, damage in (("manifests/m/1.json", manifest), ("pushes/m/1.json", intent)):
        if damage is None:
            aws.s3().delete_object(Bucket=aws.bucket, Key=key)
        elif damage != b"committed":
            aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=damage)
    if manifest is not None:
        with pytest.raises(ImmutableError, match="was live, so that it stays"):
            asyncio.run(S3ModelStore(aws.objects()).withdraw("m", 1))
    asyncio.run(push(S3ModelStore(aws.objects()), folder))
    with pytest.raises(ImmutableError):
        asyncio.run(push(S3ModelStore(aws.objects()), other))
    with pytest.raises(ImmutableError, match="was live, so that it stays"):
        asyncio.run(S3ModelStore(aws.objects()).withdraw("m", 1))


OUTSIDE = [
    "/etc/x.py",
    "../../x.py",
    "1/../../../x.py",
    "..",
    "1//x.py",
    "./x.py",
    "",
    "1/",
    "1\\x.py",
    "1/\0.py",
    "c:\\x.py",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_manifest_that_names_a_place_outside_its_model_is_refused(
    aws: LocalAws, folder: Path, tmp_path: Path, path: str
) -> None:
    """Whoever may write to the bucket must not write on the machine of a publisher whose load is refused."""
    asyncio.run(push(S3ModelStore(aws.objects()), folder))
    key = "manifests/m/1.json"
    absolute = str(tmp_path / "planted.py") if path.startswith("/") else path
    file = {"path": absolute, "sha256": "0" * 64, "size_bytes": 1}
    content = json.dumps({"model": "m", "version": 1, "files": [{**file, "etag": ""}]}).encode()
    aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=content)
    store = S3ModelStore(aws.objects())
    with pytest.raises(StoreError, match=f"^the manifest {key} is damaged: .*path below a model's folder"):
        asyncio.run(store.files("m", 1))
    asyncio.run(StoredDiagnosis(store)("m"))
    assert not (tmp_path / "planted.py").exists()
    with pytest.raises(StoreError, match="path below a model's folder"):
        decode_intent("pushes/m/1.json", json.dumps({"files": [file], "by": "b", "committed": True}).encode())


def test_a_big_file_goes_in_parts_and_is_checked_as_a_whole(aws: LocalAws, store: S3ModelStore, folder: Path) -> None:
    write_model(folder, {"1/big.bin": BIG})
    asyncio.run(push(store, folder))
    got = aws.s3().get_object(Bucket=aws.bucket, Key="models/m/1/big.bin", ChecksumMode="ENABLED")
    assert got["ETag"].endswith('-2"')
    assert got["ChecksumSHA256"].endswith("-2"), "S3 has checked every part"
    assert asyncio.run(contents(store, "1/big.bin")) == [BIG]
    assert asyncio.run(push(S3ModelStore(aws.objects(), PART_BYTES), folder)) == PushOutcome("m")


@pytest.mark.parametrize("path", ["1/big.bin", "1/model.py"])
def test_a_file_that_changes_during_its_push_is_not_committed(aws: LocalAws, store: S3ModelStore, folder: Path, path: str) -> None:  # fmt: skip
    write_model(folder, {"1/big.bin": BIG})

    def change(sent_path: str, *_: int) -> None:
        if sent_path == "config.pbtxt":
            (folder / path).write_bytes((folder / path).read_bytes()[::-1])

    with pytest.raises(ModelConfigError, match=f"^m/{path} changed while it was being pushed"):
        asyncio.run(store.push("m", folder, change))
    assert asyncio.run(store.versions("m")) == []
    if path == "1/big.bin":
        assert aws.s3().list_multipart_uploads(Bucket=aws.bucket).get("Uploads", []) == []
    assert asyncio.run(push(store, folder)).versions == (1, 2), "it can be pushed once it stands still"


def test_answers_that_are_lost_do_no_harm(aws: LocalAws, folder: Path) -> None:
    """Every write is done, and its answer lost the first time: the client asks again, and meets its own work."""
    seen: set[tuple[str, str]] = set()

    def loses(method: str, path: str) -> bool:
        is_new = (method, path) not in seen
        seen.add((method, path))
        return method == "PUT" and is_new

    with forgetful_proxy(aws.url, loses) as url:
        assert asyncio.run(push(S3ModelStore(aws.objects(url)), folder)).versions == (1, 2)
    assert asyncio.run(contents(S3ModelStore(aws.objects()), "config.pbtxt", "1/model.py")) == [b"config", b"one"]


def test_a_dry_run_says_what_a_push_would_send_and_changes_nothing(aws: LocalAws, folder: Path, other: Path) -> None:
    store = S3ModelStore(aws.objects())
    plan = asyncio.run(store.plan("m", folder))
    assert [file.path for file in plan.files] == [
        "1/model.py",
        "2/.keep",
        "config.pbtxt",
        "labels.txt",
        "samples/a.json",
    ]
    assert (plan.versions, plan.size_bytes, plan.is_done) == ((1, 2), 17, False)
    assert list(asyncio.run(aws.objects().list(""))) == []
    asyncio.run(push(store, folder))
    assert asyncio.run(store.plan("m", folder)) == PushPlan("m", (), (), is_done=True)
    replacing = asyncio.run(S3ModelStore(aws.objects()).plan("m", other))
    assert (replacing.replaced, replacing.versions, replacing.is_done) == ((None, 1), (), False)
    seal_all(store, "m")
    with pytest.raises(ImmutableError):
        asyncio.run(store.plan("m", other))


@pytest.mark.parametrize("server", [closed_port, silent_server, lambda: failing_server(503)])
def test_a_store_that_is_down_is_an_error_in_bounded_time(aws: LocalAws, folder: Path, server: Callable[[], Any]) -> None:  # fmt: skip
    async def work() -> None:
        with server() as url:
            async with asyncio.timeout(30):
                with pytest.raises(StoreError, match=f"^S3 at {url} "):
                    await push(S3ModelStore(aws.objects(url, timeout_s=0.2)), folder)

    asyncio.run(work())


async def _nothing(_objects: Objects) -> None:
    return


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_nothing, []),
        (lambda objects: objects.delete("models/m/1/model.py"), ["m/1/model.py is gone"]),
        (lambda objects: objects.put("models/m/1/model.py", b"other"), ["m/1/model.py has other bytes"]),
        (lambda objects: objects.put("models/m/labels.txt", b""), ["m/labels.txt has other bytes"]),
        (lambda objects: objects.delete("manifests/m/1.json"), ["m/1 is gone"]),
        (lambda objects: objects.put("manifests/m/1.json", b"null"), ["manifests/m/1.json is damaged"]),
        (lambda objects: objects.delete("manifests/m/config.json"), ["m/config.pbtxt is gone"]),
    ],
)
def test_damage_is_found_without_reading_a_file(
    aws: LocalAws, store: S3ModelStore, folder: Path, spoil: Callable[[Objects], Any], found: list[str]
) -> None:
    async def work() -> list[str]:
        await push(store, folder)
        assert not await store.damage({("m", None), ("m", 1), ("m", 2)})
        await spoil(aws.objects())
        fresh = S3ModelStore(aws.objects(), PART_BYTES)
        units = {("m", None), ("m", 1), ("m", 2)}
        assert list(await fresh.damage(units)) == list(await store.damage(units))
        return list(await store.damage(units))

    assert asyncio.run(work()) == found


def test_a_model_that_was_never_pushed_is_gone(store: S3ModelStore) -> None:
    assert asyncio.run(store.damage({("unknown", 3)})) == ["unknown/3 is gone"]
