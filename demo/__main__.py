"""`python -m demo`: start the stack, send a request for each kind of rule, kill a shard in the middle, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo import publishing
from demo.caller import Answered, Refused, ask, ask_with_tritonclient, fleet, resolve

MEMBER = {"member_id": "196"}
ORDERS = {"ORDER_DAY": [[10, 140, 300]], "ORDER_UNITS": [[2, 1, 4]], "ORDER_VALUE": [[28.0, 13.5, 61.0]], "AS_OF": 365}


class Demonstration:
    """The running stack's address, and the table of what was asked and answered."""

    def __init__(self, url: str, console: Console) -> None:
        self.url, self.failed = url, 0
        self._console = console
        self._table = Table(title="What the rules decided, and what the models answered", show_lines=True)
        for column in ("what is shown", "asked", "rule · variant · reason", "model @ shard", "answer", "ms"):
            self._table.add_column(column, overflow="fold", justify="right" if column == "ms" else "left")

    def show(self, what: str, objective: str, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Send one request by the JSON door and add its row."""
        self.add(what, f"{objective} {_words(context)}", ask(self.url, objective, context, inputs))

    def add(self, what: str, asked: str, answer: Answered | Refused) -> None:
        """Add the row of one request."""
        if isinstance(answer, Refused):
            self._table.add_row(what, asked, f"refused with {answer.status}", "", answer.detail, "")
            return
        headers = answer.headers
        decided = [headers.get(f"tidegate-{name}") for name in ("rule", "variant", "reason")]
        place = f"{headers.get('tidegate-model', '')} @ {headers.get('tidegate-shard', '?')}"
        cells = (" · ".join(part for part in decided if part), place, _answer(answer.outputs), f"{answer.took_ms:.1f}")
        self._table.add_row(what, asked, *cells)

    def expect(self, holds: bool, what: str) -> None:
        """Note a promise of the demonstration that was not kept."""
        if not holds:
            self.failed += 1
            self._console.print(f"[bold red]not as promised:[/] {what}")

    def print(self) -> None:
        """Print the table."""
        self._console.print(self._table)


def main() -> int:
    """Run the demonstration; the exit code is 0 where every request was answered as promised."""
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 160)
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name("tidegate")), "up", "--port", "0"]
    command += ["--rules", "routing_rules", "--models", "triton_models"]
    console.print("Starting Triton servers for two shards, loading the ensembles that the rules can reach …")
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert stack.stdout is not None
        ready = stack.stdout.readline().split()
        if len(ready) != 2:
            console.print("[bold red]the stack did not start[/]: its own words are above")
            return 1
        console.print(f"{ready[1]} is ready after {time.monotonic() - start:.1f} s")
        demonstration = Demonstration(ready[1], console)
        _tour(demonstration)
        for promise in publishing.show(ready[1], console):
            demonstration.expect(False, promise)
        _kill_a_shard(demonstration)
        demonstration.print()
        return 1 if demonstration.failed else 0
    finally:
        stack.send_signal(signal.SIGTERM)
        stack.wait(15)
        console.print(f"Stopped; the whole demonstration took {time.monotonic() - start:.1f} s.")


def _tour(demo: Demonstration) -> None:
    member = {"MEMBER_ID": MEMBER["member_id"]}
    demo.show("a rule's default", "title_ranking", MEMBER, member)
    demo.show(
        "a condition, and a parameter for the model (top_k 5)", "title_ranking", {**MEMBER, "is_kids": True}, member
    )
    for number in (22, 1, 7):
        who = {"member_id": str(number), "country": "US", "device": "tv"}
        demo.show("an A/B test: the cell by hash of a layer", "title_ranking", who, {"MEMBER_ID": who["member_id"]})
    demo.show("a canary: 5 % of new apps, sticky", "title_ranking", {**MEMBER, "app_version": "8.10"}, member)
    nobody = {"member_id": "a new member"}
    demo.show("no history: popularity", "title_ranking", nobody, {"MEMBER_ID": nobody["member_id"]})
    demo.show("lexical search", "title_search", {}, {"QUERY": "toy stori"})
    demo.show(
        "semantic search, by the context", "title_search", {"intent": "theme"}, {"QUERY": "cowboys in the wild west"}
    )
    allocated = {"allocations": {"search-2026": "semantic"}}
    demo.show("an experiment that the caller allocates", "title_search", allocated, {"QUERY": "a shark in the sea"})
    demo.add(
        "an unmodified tritonclient",
        "title_search (header) intent=theme",
        ask_with_tritonclient(demo.url, "title_search", {"intent": "theme"}, "robots and space ships"),
    )
    customer = {"customer_id": "c-7", "tier": 3, "lifetime_value": 900.5}
    demo.show("another domain; a pinned version", "purchase_propensity", customer, ORDERS)
    demo.show("a wrong type, named", "title_ranking", {"member_id": 196}, member)


def _kill_a_shard(demo: Demonstration) -> None:
    member = {"MEMBER_ID": MEMBER["member_id"]}
    alpha = next(shard for shard in fleet(demo.url)["shards"] if shard["name"] == "alpha")
    for endpoint in alpha["endpoints"]:
        os.kill(endpoint["pid"], signal.SIGKILL)
    answer = ask(demo.url, "title_ranking", MEMBER, member)
    demo.add("shard alpha killed: the next shard answers", f"title_ranking {_words(MEMBER)}", answer)
    survived = isinstance(answer, Answered) and answer.headers.get("tidegate-shard") == "beta"
    demo.expect(survived, "a request is answered by the other shard right after the first is killed")
    canary = {**MEMBER, "app_version": "9.0"}
    candidates = ({**canary, "member_id": str(number)} for number in range(1, 10_000))
    who = next(
        each for each in candidates if resolve(demo.url, "title_ranking", each)["variant"] == "title_ranking_svd"
    )
    answer = ask(demo.url, "title_ranking", who, {"MEMBER_ID": who["member_id"]})
    demo.add("… and where it held the only copy, the fallback", f"title_ranking {_words(who)}", answer)
    reason = answer.headers.get("tidegate-reason") if isinstance(answer, Answered) else str(answer.status)
    demo.expect(reason == "fallback", f"the rule's fallback answers, not {reason}")


def _words(context: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in context.items())


def _answer(outputs: Mapping[str, Any]) -> str:
    if "TITLES" in outputs:
        titles = outputs["TITLES"][0]
        return f"{'; '.join(titles[:3])} … ({len(titles)})"
    return ", ".join(f"{name} {values[0][0]}" for name, values in outputs.items())


if __name__ == "__main__":
    sys.exit(main())
