"""What goes wrong in a running stack without anything ending is found out and healed, and no caller of anything else notices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import Callers
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules
from tests.triton.dying import EXIT, HANG, SOUND, request, write_mortal
from tests.triton.misbehaving import write_chain, write_model

SETTINGS = {
    "hung_after_s": 10,
    # A hung model is asked for so long before it is reloaded.
    "load_timeout_s": 12,
    "self_test_interval_s": 1,
    "reconcile_interval_s": 0.5,
}
VARIABLES = {f"TIDEGATE_{name.upper()}": f"{value:g}" for name, value in SETTINGS.items()}
SILENT = "answers nothing; it is sent no requests meanwhile"


@dataclass(frozen=True, slots=True)
class Healing:
    """A running stack, and the file that has the model `fatal` end at every request while it is there."""

    stack: RunningStack
    fatal: Path

    def ready(self, shard: str = "a") -> set[int]:
        """The servers of a shard that are ready, by process id."""
        return {each["pid"] for each in self.stack.fleet()[shard] if each["state"] == "ready"}

    def url(self, victim: int) -> str:
        """The address of a server, which is named by its process id."""
        (url,) = [each["url"] for shard in self.stack.fleet().values() for each in shard if each["pid"] == victim]
        return str(url)

    def said(self, url: str, words: str) -> bool:
        """Whether the log says something of a server."""
        return any(url in line and words in line for line in self.stack.errors.splitlines())

    def restarts(self, shard: str) -> list[dict[str, Any]]:
        """Servers of a shard that were replaced."""
        return [each for each in self.stack.get("/v1/fleet")["since_start"]["restarts"] if each["shard"] == shard]

    def ask(self, objective: str, first: float = SOUND, timeout_ms: int = 4000) -> int:
        """The status of an answer."""
        headers = {"Content-Type": "application/json", "Tidegate-Timeout-Ms": str(timeout_ms)}
        # No two objectives get the same request: one that has ended two processes is refused everywhere.
        return self.stack.post(f"/v2/models/{objective}/infer", request(first, sum(objective.encode())), headers)[0]

    def reloads(self) -> dict[str, dict[str, Any]]:
        """The models that were reloaded on a server, by name."""
        return {each["model"]: each for each in self.stack.get("/v1/fleet")["since_start"]["reloads"]}

    def answers(self, objective: str, times: int = 4) -> bool:
        """Whether it answers, several times in a row."""
        return all(self.ask(objective) == 200 for _ in range(times))


@pytest.fixture(scope="module")
def healing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing]:
    root = tmp_path_factory.mktemp("stack")
    models = make_repository(root / "models", "versioned")
    fatal = root / "die"
    write_mortal(models, "alone")
    write_mortal(models, "step")
    write_mortal(models, "last")
    write_mortal(models, "pair", instances=2)
    write_chain(models, "chained", "step", "last")
    write_model(models, "fatal", check=f"os.path.exists({str(fatal)!r}) and os._exit(3)")
    on_b = ("versioned", "alone", "chained", "pair", "fatal")
    rules = write_rules(
        root / "rules",
        {"a": 2, "b": 1},
        {"versioned": ["a", "b"]} | {name: ["b"] for name in on_b[1:]},
        main="versioned/3",
        **{name: name for name in on_b[1:]},
    )
    with running_stack(rules, models, root / "errors", variables=VARIABLES) as running:
        yield Healing(running, fatal)
        assert "Traceback" not in running.errors


def test_a_stopped_server_that_goes_on_in_time_comes_back_by_itself(healing: Healing) -> None:
    before = healing.ready()
    victim = min(before)
    # Asked for now: a look at the fleet waits for a stopped server, which may be replaced meanwhile.
    url = healing.url(victim)
    with Callers(healing.stack, "main", per_s=10) as callers:
        assert eventually(lambda: len(callers.answers) > 5)
        os.killpg(victim, signal.SIGSTOP)
        try:
            assert eventually(lambda: healing.said(url, SILENT), most_s=0.1)
        finally:
            os.killpg(victim, signal.SIGCONT)
        assert eventually(lambda: healing.said(url, "answers again"))
        assert eventually(lambda: healing.ready() == before)
    assert callers.failures == []
    assert healing.restarts("a") == []


def test_a_stopped_server_is_replaced_and_nobody_fails_meanwhile(healing: Healing) -> None:
    victim = min(healing.ready())
    server = next(each for each in healing.stack.servers() if each.pid == victim)
    with Callers(healing.stack, "main", per_s=10) as callers:
        assert eventually(lambda: len(callers.answers) > 5)
        os.killpg(victim, signal.SIGSTOP)
        assert eventually(lambda: len(now := healing.ready()) == 2 and victim not in now)
    assert callers.failures == []
    assert eventually(lambda: not server.leftovers()), server.leftovers()
    (restarts,) = healing.restarts("a")
    assert restarts["count"] == 1
    assert restarts["reason"].startswith("answered nothing for ")
    assert eventually(lambda: healing.stack.models("a") == [{"versioned/3"}] * 2)


@pytest.mark.parametrize(("objective", "step"), [("alone", "alone"), ("chained", "step"), ("pair", "pair")])
def test_a_process_that_ended_is_started_anew_while_the_other_models_of_its_server_serve(
    healing: Healing, objective: str, step: str
) -> None:
    before = healing.ready("b")
    with Callers(healing.stack, "main", per_s=20) as callers:
        assert eventually(lambda: len(callers.answers) > 5)
        began = time.monotonic()
        assert healing.ask(objective, EXIT) >= 500
        assert eventually(lambda: step in healing.reloads())
        assert eventually(lambda: healing.answers(objective))
        print(f"{objective} was healed in {time.monotonic() - began:.1f} s")
    assert callers.failures == []
    assert healing.ready("b") == before, "its server goes on"
    assert eventually(lambda: healing.reloads()[step]["failing"] is None)
    found = healing.reloads()[step]
    assert (found["shard"], found["reason"]) == ("b", "its process had ended")
    assert [each for each in healing.stack.get("/v1/fleet")["degraded"] if f"model {step} on" in each]


def test_a_model_that_never_answers_is_reloaded(healing: Healing) -> None:
    began = time.monotonic()
    assert healing.ask("alone", HANG, 1000) >= 500
    assert eventually(lambda: healing.reloads().get("alone", {}).get("reason") == "it did not answer")
    assert eventually(lambda: healing.answers("alone"))
    print(f"healed in {time.monotonic() - began:.1f} s")


def test_a_model_that_ends_at_its_golden_request_is_reloaded_more_and_more_rarely(healing: Healing) -> None:
    healing.fatal.touch()
    with Callers(healing.stack, "main", per_s=20) as callers:
        assert eventually(lambda: healing.reloads().get("fatal", {}).get("count", 0) >= 3)
        began, before = time.monotonic(), healing.reloads()["fatal"]["count"]
        assert eventually(lambda: healing.reloads()["fatal"]["count"] > before)
        assert eventually(lambda: healing.reloads()["fatal"]["failing"] == "fatal/1 ended it again")
        # After the third reload it rests for 4 s; in a loop it would have been reloaded ten times.
        assert healing.reloads()["fatal"]["count"] == before + 1
        print(f"the reload after {before} came after {time.monotonic() - began:.1f} s")
    assert callers.failures == []
    healing.fatal.unlink()
    assert eventually(lambda: healing.answers("fatal"))
    assert eventually(lambda: healing.reloads()["fatal"]["failing"] is None)
