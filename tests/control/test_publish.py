"""Publishing on servers in memory: what is live stays untouched until everything that the new rules can reach is READY."""

from __future__ import annotations

import pytest
from tidegate.errors import PublishError

from tests.control.plane import Plane
from tests.support.virtual_time import run


async def started() -> Plane:
    plane = Plane()
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    return plane


def test_a_publish_loads_the_closures_everywhere_flips_and_says_each_step() -> None:
    async def work() -> None:
        plane = await started()
        result = await plane.publish(main="pipeline", other="popular")
        assert result.status == "published"
        assert plane.live() == result.revision
        assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
        assert plane.held("b") == [{"popular/1"}]
        assert plane.steps() == [
            "check done", "test done", "push done", "assign done", "claim done", "load done", "validate done", "flip done",
            "confirm done", "drain skipped", "unload done",
        ]  # fmt: skip
        assert await plane.bundles.claims() == []

    run(work())


def test_a_second_publish_keeps_what_can_be_rolled_back_to_and_a_rollback_is_one_write() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        await plane.publish(main="scorer/2")
        assert plane.held("a") == [{"scorer/1,2"}] * 2
        changes = plane.changes()
        back = await plane.roll_back()
        assert back.revision == first.revision == plane.live()
        assert plane.changes() == changes

    run(work())


def test_a_model_that_is_refused_leaves_live_untouched() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.faults.refused["fresh"] = "the artefact is damaged"
        with pytest.raises(
            PublishError, match=r"model 'fresh' on http://memory:1 of shard 'a'.*the artefact is damaged"
        ):
            await plane.publish(main="fresh", other="scorer/2")
        assert plane.live() == first.revision
        assert plane.held("a") == [{"scorer/1"}] * 2
        assert await plane.bundles.claims() == []

    run(work())


def test_nothing_is_done_in_steady_state() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="pipeline", other="popular")
        changes = plane.changes()
        result = await plane.reconcile()
        assert result.converged
        assert result.endpoints == 3
        assert plane.changes() == changes

    run(work())
