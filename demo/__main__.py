"""`python -m demo [--svg FILE]`: start the stack, send a request for each kind of rule, kill a shard, stop.

Each step is a line of at most 80 columns, printed when it happens; all of them fit a screen. `--svg` records them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.status import Status

from demo import publishing, recording
from demo.caller import Answered, Refused, ask, ask_for_stream, ask_with_tritonclient, fleet, resolve

WIDTH = 80
MEMBER = {"member_id": "196"}
ORDERS = {"ORDER_DAY": [[10, 140, 300]], "ORDER_UNITS": [[2, 1, 4]], "ORDER_VALUE": [[28.0, 13.5, 61.0]], "AS_OF": 365}


class Demonstration:
    """Prints a line for each request to the running stack, and counts the promises that were not kept."""

    def __init__(self, url: str, console: Console) -> None:
        self.url, self.failed = url, 0
        self._console = console

    def show(self, what: str, objective: str, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Send one request to `/v1` and print its line."""
        self.add(what, ask(self.url, objective, context, inputs))

    def add(self, what: str, answer: Answered | Refused) -> None:
        """Print the line of one request."""
        if isinstance(answer, Refused):
            self._print(f"{what:<27} {answer.status}: {answer.detail}")
            return
        headers = answer.headers
        place = " @ ".join(headers[name] for name in ("tidegate-model", "tidegate-shard") if name in headers)
        self._print(f"{what:<27} {headers.get('tidegate-reason', ''):<11}{place:<33}{answer.took_ms:>5.0f} ms")

    def show_stream(self, what: str, objective: str, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Have the answer to one request streamed, and print its line and the titles that came."""
        answer = ask_for_stream(self.url, objective, context, inputs)
        self.add(what, answer)
        titles = answer.outputs.get("TITLE", []) if isinstance(answer, Answered) else []
        self._print(f"    {' → '.join(titles)}")
        self.expect(len(titles) > 1, f"several titles are streamed, not {len(titles)}")

    def expect(self, holds: bool, what: str) -> None:
        """Report a promise that was not kept."""
        if not holds:
            self.failed += 1
            self._console.print(f"[bold red]not as promised:[/] {what}")

    def _print(self, line: str) -> None:
        self._console.print(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…", markup=False)


class Reports:
    """Reads what the stack reports: keeps the last lines, and shows the latest on a terminal until it is ready."""

    def __init__(self, stream: IO[str], status: Status) -> None:
        self.last: deque[str] = deque(maxlen=30)
        self._status = status
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.last.append(line.rstrip())
            _, _, text = line.rstrip().partition(" INFO    ")
            if text:
                self._status.update(text[: WIDTH - 4])


def main() -> int:
    """Run the demonstration. The exit code is 0 if every request was answered as promised."""
    parser = argparse.ArgumentParser(prog="python -m demo")
    parser.add_argument("--svg", type=Path, help="record the output into this file")
    svg: Path | None = parser.parse_args().svg
    console = Console(width=WIDTH, highlight=False) if svg is None else recording.console(WIDTH)
    exit_code = run(console)
    if svg is not None and exit_code == 0:
        recording.save(console, svg, title="make demo")
    return exit_code


def run(console: Console) -> int:
    """Start the stack, show everything on the console, and stop the stack."""
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name("tidegate")), "up", "--port", "0"]
    command += ["--rules", "routing_rules", "--models", "triton_models"]
    console.print("Starting Triton servers for two shards, and loading what the rules can reach …")
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert stack.stdout is not None and stack.stderr is not None
        with console.status("") as status:
            reports = Reports(stack.stderr, status)
            ready = stack.stdout.readline().split()
        if len(ready) != 2:
            console.print("[bold red]the stack did not start:[/]")
            console.print("\n".join(reports.last), markup=False, soft_wrap=True)
            return 1
        console.print(f"{ready[1]} is ready after {time.monotonic() - start:.1f} s\n")
        demonstration = Demonstration(ready[1], console)
        _tour(demonstration)
        for promise in publishing.show(ready[1], console):
            demonstration.expect(False, promise)
        _kill_a_shard(demonstration, console)
        return 1 if demonstration.failed else 0
    finally:
        stack.send_signal(signal.SIGTERM)
        stack.wait(15)
        console.print(f"Stopped; the whole demonstration took {time.monotonic() - start:.1f} s.")


def _tour(demo: Demonstration) -> None:
    member = {"MEMBER_ID": MEMBER["member_id"]}
    demo.show("a rule's default", "title_ranking", MEMBER, member)
    demo.show("a condition: kids, 5 titles", "title_ranking", {**MEMBER, "is_kids": True}, member)
    for number in (22, 1, 7):
        who = {"member_id": str(number), "country": "US", "device": "tv"}
        demo.show(f"an A/B test, member {number}", "title_ranking", who, {"MEMBER_ID": who["member_id"]})
    demo.show("a sticky canary, new apps", "title_ranking", {**MEMBER, "app_version": "8.10"}, member)
    nobody = {"member_id": "a new member"}
    demo.show("a member without history", "title_ranking", nobody, {"MEMBER_ID": nobody["member_id"]})
    demo.show("lexical search", "title_search", {}, {"QUERY": "toy stori"})
    demo.show("semantic, by the context", "title_search", {"intent": "theme"}, {"QUERY": "cowboys in the wild west"})
    allocated = {"allocations": {"search-2026": "semantic"}}
    demo.show("a cell that callers set", "title_search", allocated, {"QUERY": "a shark in the sea"})
    demo.add(
        "an unmodified tritonclient",
        ask_with_tritonclient(demo.url, "title_search", {"intent": "theme"}, "robots and space ships"),
    )
    demo.show_stream("a stream, title by title", "title_playlist", {**MEMBER, "mood": "surprise"}, member)
    customer = {"customer_id": "c-7", "tier": 3, "lifetime_value": 900.5}
    demo.show("another domain, pinned", "purchase_propensity", customer, ORDERS)
    demo.show("a wrong type is refused", "title_ranking", {"member_id": 196}, member)


def _kill_a_shard(demo: Demonstration, console: Console) -> None:
    console.print("\nEvery server of shard alpha is [bold]killed[/]:")
    member = {"MEMBER_ID": MEMBER["member_id"]}
    alpha = next(shard for shard in fleet(demo.url)["shards"] if shard["name"] == "alpha")
    for endpoint in alpha["endpoints"]:
        os.kill(endpoint["pid"], signal.SIGKILL)
    answer = ask(demo.url, "title_ranking", MEMBER, member)
    demo.add("the next shard answers", answer)
    survived = isinstance(answer, Answered) and answer.headers.get("tidegate-shard") == "beta"
    demo.expect(survived, "a request is answered by the other shard right after the first is killed")
    canary = {**MEMBER, "app_version": "9.0"}
    candidates = ({**canary, "member_id": str(number)} for number in range(1, 10_000))
    who = next(
        each for each in candidates if resolve(demo.url, "title_ranking", each)["variant"] == "title_ranking_svd"
    )
    answer = ask(demo.url, "title_ranking", who, {"MEMBER_ID": who["member_id"]})
    demo.add("no copy there: the fallback", answer)
    reason = answer.headers.get("tidegate-reason") if isinstance(answer, Answered) else str(answer.status)
    demo.expect(reason == "fallback", f"the rule's fallback answers, not {reason}")


if __name__ == "__main__":
    sys.exit(main())
