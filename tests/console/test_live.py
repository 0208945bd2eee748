"""What happens to the stack is seen without a reload. The last tests of the stack: they harm it."""

from __future__ import annotations

import os
import signal

from tests.console.conftest import Open, Operated
from tests.support.stack import eventually


def test_a_killed_shard_is_seen_on_the_overview_and_in_the_fleet(stack: Operated, open_page: Open) -> None:
    assert eventually(lambda: stack.ask("/v1/fleet")["healthy"])
    overview = open_page("/console")
    shards = overview.get_by_role("table", name="Shards")
    shards.get_by_text("1 endpoint ready").first.wait_for()
    # The server may be back before the page is looked at.
    overview.evaluate(
        """new MutationObserver(() => { if (document.querySelector("table .status.error")) window.seen = true; })
          .observe(document.body, {subtree: true, childList: true, attributes: true})"""
    )
    endpoints = {each["name"]: each["endpoints"][0] for each in stack.ask("/v1/fleet")["shards"]}
    victim = endpoints["b"]

    def is_seen() -> bool:
        # Those that replace it, too: each is ready in seconds, which a busy machine may not look at.
        for server in stack.running.servers():
            if server.pid != endpoints["a"]["pid"]:
                os.killpg(server.pid, signal.SIGKILL)
        return bool(overview.evaluate("window.seen === true"))

    row = shards.get_by_role("row").filter(has=overview.get_by_role("rowheader", name="b"))
    assert eventually(is_seen)
    row.locator(".status.ok").wait_for()
    fleet = open_page("/console/fleet")
    fleet.get_by_text("1 of 1 endpoint ready").nth(1).wait_for()
    assert victim["url"].removeprefix("http://") not in fleet.locator("body").inner_text()
