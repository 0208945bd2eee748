"""The bundle stores, in memory and in S3, give the same guarantees."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.errors import BundleError, ConflictError, StoreError
from tidegate.ports import BadMark, BundleStore, Claim, ClaimStage, LiveEntry, ModelLoad, Pointer
from tidegate.ports.store_rules import BAD_MARKS, pointer_of
from tidegate.rules.bundle import revision_of
from tidegate.testing import MemoryBundleStore

from tests.support.aws import LocalAws, closed_port, failing_server, forgetful_proxy, silent_server

REVISION = revision_of(b"a bundle")
PLANS = {"main": (ModelLoad("step", (1, 3), '{"name": "step"}'), ModelLoad("all", (1,), steps=("step",))), "idle": ()}


@pytest.fixture(params=["memory", "s3"])
def stores(request: pytest.FixtureRequest) -> Callable[[], BundleStore]:
    """Makes a store: all that a test makes are of the same content, as several processes have it."""
    if request.param == "memory":
        store = MemoryBundleStore()
        return lambda: store
    aws: LocalAws = request.getfixturevalue("aws")
    return lambda: S3BundleStore(aws.objects())


@pytest.fixture
def store(stores: Callable[[], BundleStore]) -> BundleStore:
    return stores()


def entry(sequence: int, revision: str = REVISION, **fields: Any) -> LiveEntry:
    return LiveEntry(revision, sequence, **{"by": "ann", "at": 1.5 + sequence, **fields})


async def refusal(call: Awaitable[Any]) -> StoreError | BundleError:
    """The error that a call ends with."""
    with pytest.raises((StoreError, BundleError)) as caught:
        await call
    return caught.value


def test_what_a_command_line_had_that_is_no_text_is_stored_all_the_same(store: BundleStore) -> None:
    half = b"caf\xe9".decode("utf-8", "surrogateescape")

    async def work() -> None:
        await store.claim(Claim("1", REVISION, half, 99.0))
        assert [claim.by for claim in await store.claims()] == ["caf?"]
        await store.flip(entry(1, by=half, why=half), None)
        pointer = await store.pointer()
        assert pointer is not None
        assert (pointer.live.by, pointer.live.why) == ("caf?", "caf?")

    asyncio.run(work())


def test_a_bundle_comes_back_by_its_revision(store: BundleStore) -> None:
    async def work() -> None:
        assert await store.put_bundle(b"a bundle") == REVISION
        assert await store.put_bundle(b"a bundle") == REVISION
        assert await store.bundle(REVISION) == b"a bundle"
        missing = await refusal(store.bundle(revision_of(b"another")))
        assert isinstance(missing, BundleError)
        assert "there is no bundle of revision" in str(missing)

    asyncio.run(work())


def test_an_assignment_never_changes(store: BundleStore) -> None:
    async def work() -> None:
        assert isinstance(await refusal(store.assignment(REVISION)), BundleError)
        await store.put_assignment(REVISION, PLANS)
        await store.put_assignment(REVISION, {shard: list(plan) for shard, plan in PLANS.items()})
        assert await store.assignment(REVISION) == PLANS
        refused = await refusal(store.put_assignment(REVISION, {"main": ()}))
        assert "another assignment" in str(refused)
        assert await store.assignment(REVISION) == PLANS

    asyncio.run(work())


def test_the_pointer_moves_and_remembers_who_moved_it(store: BundleStore) -> None:
    async def work() -> None:
        assert await store.pointer() is None
        first = await store.flip(entry(1, why="a start"), None)
        assert (first.entries, await store.pointer()) == ((entry(1, why="a start"),), first)
        assert await store.pointer(first) is first, "what is known is not sent again"
        other = revision_of(b"another")
        second = await store.flip(entry(2, other, by="bob", action="rollback"), first)
        assert second.live == entry(2, other, by="bob", action="rollback")
        assert second.entries[1:] == first.entries
        assert await store.pointer(first) == second

    asyncio.run(work())


def test_a_flip_from_what_is_no_longer_live_is_refused_and_names_who_came_first(store: BundleStore) -> None:
    async def work() -> None:
        first = await store.flip(entry(1), None)
        second = await store.flip(entry(2, by="bob"), first)
        for expected, number in ((first, 2), (None, 1)):
            error = await refusal(store.flip(entry(number, by="eve"), expected))
            assert isinstance(error, ConflictError)
            assert "bob made revision" in str(error)
        assert await store.pointer() == second

    asyncio.run(work())


def test_an_entry_that_does_not_count_on_is_a_mistake_of_the_caller(store: BundleStore) -> None:
    async def work() -> None:
        with pytest.raises(ValueError, match="flip 2 cannot follow; it must be 1"):
            await store.flip(entry(2), None)
        assert await store.pointer() is None

    asyncio.run(work())


def test_of_many_flips_at_once_one_wins(stores: Callable[[], BundleStore]) -> None:
    async def work() -> None:
        pointer = None
        for sequence in (1, 2, 3):
            publishers = [f"publisher {number}" for number in range(6)]
            flips = [stores().flip(entry(sequence, by=name), pointer) for name in publishers]
            results = await asyncio.gather(*flips, return_exceptions=True)
            (winner,) = (result for result in results if not isinstance(result, BaseException))
            losers = [result for result in results if result is not winner]
            assert all(isinstance(loser, ConflictError) and winner.live.by in str(loser) for loser in losers)
            assert await stores().pointer() == winner
            pointer = winner

    asyncio.run(work())


def test_a_flip_marks_what_it_replaces_as_bad_until_a_later_one_clears_it(store: BundleStore) -> None:
    async def work() -> None:
        good, bad = REVISION, revision_of(b"bad")
        first = await store.flip(entry(1, good), None)
        second = await store.flip(entry(2, bad), first)
        rolled = await store.flip(entry(3, good, action="rollback", marked_bad=bad, why="errors"), second)
        assert rolled.bad == (BadMark(bad, "ann", 4.5, "errors"),)
        assert await store.pointer() == rolled
        assert (rolled.mark(bad), rolled.mark(good)) == (rolled.bad[0], None)
        with pytest.raises(ValueError, match="is marked bad"):
            await store.flip(entry(4, bad), rolled)
        assert await store.pointer() == rolled
        cleared = await store.flip(entry(4, bad, cleared=True), rolled)
        assert (await store.pointer(), cleared.bad) == (cleared, ())

    asyncio.run(work())


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"cleared": True}, "is not marked bad"), ({"marked_bad": "another"}, "is not replaced by the flip")],
)
def test_marks_that_do_not_belong_to_a_flip_are_a_mistake_of_the_caller(
    store: BundleStore, fields: dict[str, Any], message: str
) -> None:
    async def work() -> None:
        first = await store.flip(entry(1), None)
        with pytest.raises(ValueError, match=message):
            await store.flip(entry(2, revision_of(b"another"), **fields), first)
        assert await store.pointer() == first

    asyncio.run(work())


def test_the_marks_can_be_rebuilt_from_the_flips_and_are_bounded() -> None:
    async def work() -> None:
        store, pointer = MemoryBundleStore(), None
        for sequence in range(1, 2 * BAD_MARKS + 30, 2):
            pointer = await store.flip(entry(sequence, f"bad {sequence}"), pointer)
            pointer = await store.flip(
                entry(sequence + 1, REVISION, action="rollback", marked_bad=f"bad {sequence}"), pointer
            )
        assert pointer is not None
        assert len(pointer.bad) == BAD_MARKS
        assert all(pointer.mark(each.revision) for each in pointer.entries if each.revision != REVISION)
        rebuilt = pointer_of(store.history)
        assert rebuilt == Pointer(pointer.entries, "", pointer.bad)

    asyncio.run(work())


def test_the_pointer_remembers_the_last_fifty_flips(store: BundleStore) -> None:
    async def work() -> None:
        pointer = None
        for sequence in range(1, 53):
            pointer = await store.flip(entry(sequence), pointer)
        assert pointer is not None
        assert [each.sequence for each in pointer.entries] == list(range(52, 2, -1))

    asyncio.run(work())


def test_claims_are_renewed_and_released(store: BundleStore) -> None:
    async def work() -> None:
        assert list(await store.claims()) == []
        mine, other = Claim("host/1 é", REVISION, "ann", 20.5), Claim("b", None, "bob", 1.0)
        for claim in (mine, other, Claim("host/1 é", REVISION, "ann", 30.0, ClaimStage.PROVED)):
            await store.claim(claim)
        assert list(await store.claims()) == [other, Claim("host/1 é", REVISION, "ann", 30.0, ClaimStage.PROVED)]
        await store.release("host/1 é")
        await store.release("host/1 é")
        assert list(await store.claims()) == [other]

    asyncio.run(work())


def test_a_pointer_that_is_lost_is_restored_once_and_never_overwritten(stores: Callable[[], BundleStore]) -> None:
    async def work() -> None:
        store = stores()
        pointer = None
        for sequence in (1, 2, 3):
            pointer = await store.flip(entry(sequence), pointer)
            await store.record(pointer)
        assert pointer is not None
        assert list(await store.flips()) == [entry(1), entry(2), entry(3)]
        with pytest.raises(ConflictError):
            await store.restore(pointer)
        await lose_pointer(store)
        lost = pointer_of(await store.flips())
        assert lost is not None
        restored = await store.restore(lost)
        assert (restored.entries, await stores().pointer()) == (pointer.entries, restored)
        with pytest.raises(ConflictError):
            await stores().restore(lost)
        assert (await store.flip(entry(4), restored)).live == entry(4)

    asyncio.run(work())


async def lose_pointer(store: BundleStore) -> None:
    if isinstance(store, MemoryBundleStore):
        store.lose_pointer()
    else:
        assert isinstance(store, S3BundleStore)
        await store._objects.delete("live/pointer.json")


# What only the real store can have.


def test_older_versions_of_the_pointer_show_flips_that_the_history_lacks(aws: LocalAws) -> None:
    async def work() -> None:
        aws.s3().put_bucket_versioning(Bucket=aws.bucket, VersioningConfiguration={"Status": "Enabled"})
        store = S3BundleStore(aws.objects())
        await store.flip(entry(2), await store.flip(entry(1), None))
        aws.s3().put_object(Bucket=aws.bucket, Key="live/pointer.json", Body=b"{")
        aws.s3().delete_object(Bucket=aws.bucket, Key="live/pointer.json")
        assert list(await store.flips()) == []
        assert list(await store.flips(all_traces=True)) == [entry(1), entry(2)]

    asyncio.run(work())


def test_a_damaged_pointer_is_restored_in_its_place(aws: LocalAws) -> None:
    async def work() -> None:
        store = S3BundleStore(aws.objects())
        pointer = await store.flip(entry(1), None)
        await store.record(pointer)
        aws.s3().put_object(Bucket=aws.bucket, Key="live/pointer.json", Body=b"{")
        aws.s3().put_object(Bucket=aws.bucket, Key="history/0000000002.json", Body=b"{")
        assert (await store.restore(pointer)).entries == pointer.entries
        assert list(await store.flips()) == [entry(1)], "what is damaged is left out"

    asyncio.run(work())


def test_a_history_of_which_nothing_can_be_decoded_is_no_empty_one(aws: LocalAws) -> None:
    async def work() -> None:
        aws.s3().put_object(Bucket=aws.bucket, Key="history/0000000001.json", Body=b"{")
        store = S3BundleStore(aws.objects())
        with pytest.raises(StoreError, match="history/"):
            await store.flips()
        assert list(await store.flips(all_traces=True)) == []

    asyncio.run(work())


def test_a_damaged_claim_is_one_and_can_be_released(aws: LocalAws) -> None:
    async def work() -> None:
        store = S3BundleStore(aws.objects())
        mine = Claim("b", REVISION, "ann", 20.5)
        await store.claim(mine)
        now = time.time()
        lasting = json.dumps(
            {"id": "long", "revision": REVISION, "by": "eve", "expires_at": now + 1e9, "stage": "trying"}
        )
        for key, body in (
            ("a.json", b"{"),
            ("c%2f", b""),
            ("e.json", b"null"),
            ("f.json", b"5"),
            ("long.json", lasting.encode()),
            ("d.json", b'{"id": "b"}'),
        ):
            aws.s3().put_object(Bucket=aws.bucket, Key=f"claims/{key}", Body=body)
        damaged = [claim for claim in await store.claims() if claim.damaged]
        assert [claim.id for claim in damaged] == ["a", "claims/c%2f", "d", "e", "f", "long"]
        assert all(claim.publishes and abs(claim.expires_at - now) < 60 for claim in damaged)
        for claim in damaged:
            await store.release(claim.id)
        assert list(await store.claims()) == [mine]

    asyncio.run(work())


def test_every_flip_is_in_the_history_even_where_its_writer_died(aws: LocalAws) -> None:
    async def work() -> None:
        store = S3BundleStore(aws.objects())
        first = await store.flip(entry(1, why="why not"), None)
        await store.record(first)
        second = await store.flip(entry(2), first)
        await store.record(second)
        # As left by a publisher that was killed between the flip and the history.
        aws.s3().delete_object(Bucket=aws.bucket, Key="history/0000000002.json")
        await store.record(await store.flip(entry(3), second))
        objects = await aws.objects().list("history/")
        assert [each.key for each in objects] == [f"history/{number:010d}.json" for number in (1, 2, 3)]
        stored = await aws.objects().get("history/0000000001.json")
        assert stored is not None
        assert b'"why":"why not"' in stored.data

    asyncio.run(work())


def test_a_flip_whose_answer_was_lost_has_won(aws: LocalAws) -> None:
    calls = count()

    def loses(method: str, path: str) -> bool:
        return method == "PUT" and path.endswith("/live/pointer.json") and next(calls) == 0

    async def work() -> None:
        with forgetful_proxy(aws.url, loses) as url:
            flipped = await S3BundleStore(aws.objects(url)).flip(entry(1), None)
        assert next(calls) == 2, "the client tried again, and was told that the pointer had moved"
        assert await S3BundleStore(aws.objects()).pointer() == flipped

    asyncio.run(work())


FLIP = {"revision": "a" * 64, "sequence": 1, "by": "b", "at": 1.0, "why": "", "action": "c"}
FAR = json.dumps({"entries": [{**FLIP, "at": 1e300}]})
MARKED = json.dumps({"entries": [FLIP], "bad": [{"revision": "b" * 64}]})
MISMARKED = json.dumps({"entries": [{**FLIP, "marked_bad": None}]})


@pytest.mark.parametrize(
    "content",
    [
        FAR.encode(),
        MARKED.encode(),
        MISMARKED.encode(),
        b"",
        b"{",
        b"[]",
        b'{"entries": []}',
        b'{"entries": [{"revision": 1}]}',
        b"[" * 9999,
    ],
)
def test_a_damaged_pointer_is_said_to_be(aws: LocalAws, content: bytes) -> None:
    async def work() -> None:
        store = S3BundleStore(aws.objects())
        aws.s3().put_object(Bucket=aws.bucket, Key="live/pointer.json", Body=content)
        assert "the pointer to the live revision is damaged" in str(await refusal(store.pointer()))

    asyncio.run(work())


def test_damaged_objects_are_told_and_mended_by_storing_them_again(aws: LocalAws) -> None:
    async def work() -> None:
        store = S3BundleStore(aws.objects())
        await store.put_bundle(b"a bundle")
        await store.put_assignment(REVISION, PLANS)
        for key in (f"bundles/{REVISION}", f"assignments/{REVISION}.json"):
            body = aws.s3().get_object(Bucket=aws.bucket, Key=key)["Body"].read()
            aws.s3().put_object(Bucket=aws.bucket, Key=key, Body=body.replace(b"e", b"E", 1))
        for call in (store.bundle(REVISION), store.assignment(REVISION)):
            error = await refusal(call)
            assert isinstance(error, BundleError)
            assert "damaged" in str(error)
        await store.put_bundle(b"a bundle")
        await store.put_assignment(REVISION, PLANS)
        assert (await store.bundle(REVISION), await store.assignment(REVISION)) == (b"a bundle", PLANS)

    asyncio.run(work())


def test_a_pointer_to_no_revision_leads_nowhere(aws: LocalAws) -> None:
    async def work() -> None:
        error = await refusal(S3BundleStore(aws.objects()).bundle("../live/pointer.json"))
        assert isinstance(error, BundleError)

    asyncio.run(work())


@pytest.mark.parametrize(
    "server", [closed_port, silent_server, lambda: failing_server(500), lambda: failing_server(403)]
)
def test_a_store_that_is_down_is_an_error_in_bounded_time(aws: LocalAws, server: Callable[[], Any]) -> None:
    async def work() -> None:
        with server() as url:
            store = S3BundleStore(aws.objects(url, timeout_s=0.2))
            async with asyncio.timeout(30):
                for call in (store.pointer(), store.flip(entry(1), None)):
                    error = await refusal(call)
                    assert type(error) is StoreError
                    assert str(error).startswith(f"S3 at {url} ")
        assert await S3BundleStore(aws.objects()).pointer() is None

    asyncio.run(work())


def test_a_bucket_that_is_missing_is_named(aws: LocalAws) -> None:
    async def work() -> None:
        aws.s3().delete_bucket(Bucket=aws.bucket)
        for call in (S3BundleStore(aws.objects()).pointer(), S3BundleStore(aws.objects()).put_bundle(b"a bundle")):
            assert str(await refusal(call)) == f"there is no bucket '{aws.bucket}'; create it, or name another"

    asyncio.run(work())


def test_a_pointer_of_an_older_version_has_no_marks(aws: LocalAws) -> None:
    async def work() -> None:
        older = {"revision": REVISION, "sequence": 3, "by": "ann", "at": 4.5, "why": "", "action": "publish"}
        content = json.dumps({"entries": [older]}).encode()
        aws.s3().put_object(Bucket=aws.bucket, Key="live/pointer.json", Body=content)
        pointer = await S3BundleStore(aws.objects()).pointer()
        assert pointer is not None
        assert (pointer.entries, pointer.bad) == ((entry(3),), ())

    asyncio.run(work())
