"""Which revision everything serves that decides: resolvers' processes, and the one in Envoy, which connects by itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tidegate.bootstrap import resolvers
from tidegate.bootstrap.resolver_places import reserved
from tidegate.bootstrap.resolvers import Resolvers
from tidegate.settings import Settings


@asynccontextmanager
async def heard(folder: Path) -> AsyncIterator[tuple[Resolvers, str]]:
    """What adds the reports up, without processes of its own; and the socket where it hears others."""
    with reserved([], is_shared=False) as places:
        found = Resolvers(Settings(), folder, places, 0)
        server = await asyncio.start_unix_server(found.hear, folder / "reports.sock")
        async with server:
            yield found, str(folder / "reports.sock")


async def report(writer: asyncio.StreamWriter, revision: str | None) -> None:
    writer.write(json.dumps({"revision": revision, "lag_s": 0.25, "routes": []}).encode() + b"\n")
    await writer.drain()


async def until(found: Resolvers, revision: str | None) -> None:
    async with asyncio.timeout(60):
        while found.revision != revision:
            await found.changed()


def test_what_connects_is_waited_for_until_it_serves_the_rules_or_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with heard(tmp_path) as (found, place):
            # A stream without a reference closes.
            held = await asyncio.open_unix_connection(place), await asyncio.open_unix_connection(place)
            first, second = (writer for _, writer in held)
            await report(first, "one")
            await report(second, "one")
            await until(found, "one")
            assert {name: (each.pid, each.lag_s) for name, each in found.workers.items()} == {
                "envoy": (os.getpid(), 0.25)
            }
            await report(second, "two")
            await until(found, None)
            await report(first, "two")
            await until(found, "two")
            second.close()
            await report(first, "three")
            await until(found, "three")
            first.close()
            await until(found, None)
            assert not found.workers

    asyncio.run(main())


def test_what_is_silent_or_says_nonsense_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "HUNG_S", 0.3)

    async def main() -> None:
        async with heard(tmp_path) as (found, place):
            for said in (b"", b"nonsense\n"):
                reader, writer = await asyncio.open_unix_connection(place)
                await report(writer, "one")
                await until(found, "one")
                writer.write(said)
                await until(found, None)
                assert not found.workers
                # It notices, and connects again.
                assert await reader.read() == b""

    asyncio.run(main())
