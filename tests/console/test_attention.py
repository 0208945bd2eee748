"""What needs a person, of a status of the fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.console.attention import LATE_S, attention
from tidegate.console.sources import ConsoleSources
from tidegate.control.status import LATE
from tidegate.ports.bundle_store import iso_time

from tests.control.plane import Plane


@pytest.mark.parametrize(("age_s", "shown"), [(1.0, False), (LATE_S + 5.0, True), (None, True)])
def test_a_report_that_is_late_once_in_a_while_is_none_of_it(age_s: float | None, shown: bool) -> None:
    text = f"{LATE} 2 s"
    as_of = None if age_s is None else iso_time(time.time() - age_s)
    status: dict[str, Any] = {key: [] for key in ("shards", "drift", "waiting", "bad")}
    status |= {"problems": [text, "something else"], "as_of": as_of}

    async def found() -> list[str]:
        async def read() -> Mapping[str, Any]:
            return status

        sources = ConsoleSources(status=read, plane=Plane().process())
        return [each["text"] for each in await attention(sources, status, None, None)]

    assert asyncio.run(found()) == [text, "something else"][not shown :]
