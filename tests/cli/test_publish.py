"""`tidegate publish | rollback | reconcile | status | history` as an operator uses them on a running stack."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_eighty_columns import assert_fits
from tests.support.commands import tidegate
from tests.support.processes import refusing_port
from tests.support.stack import ROOT, RunningStack, eventually, make_repository, running_stack, write_rules

TIMES = {"TIDEGATE_DRAIN_TIMEOUT_S": "0", "TIDEGATE_POLL_INTERVAL_S": "0.2", "TIDEGATE_KEEP_REVISIONS": "1"}
NOT_BY_ITSELF = {"TIDEGATE_RECONCILE_INTERVAL_S": "86400"}
"""The stack leaves reconciling to the command."""

MODELS = ("versioned", "simple", "simple_string", "refused")
PLACEMENT = {name: ["a"] for name in (*MODELS, "fails")}


class Cli:
    """`tidegate` on the stores of a stack."""

    def __init__(self, stack: RunningStack, rules: Path, models: Path) -> None:
        self.stack, self.rules, self.models = stack, rules, models
        self.base = ""

    def command(self, *arguments: str) -> list[str]:
        """For a process of its own."""
        return [sys.executable, "-m", "tidegate.cli", *arguments, "--stack", self.stack.url]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "--stack", self.stack.url, **variables)

    def write(self, **objectives: str) -> None:
        """Write the rules that are published next."""
        for path in (self.rules / "objectives").glob("*.yaml"):
            path.unlink()
        write_rules(self.rules, {"a": 2}, PLACEMENT, **objectives)

    def publish(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("publish", "--rules", str(self.rules), "--models", str(self.models), *arguments)

    def live(self) -> str:
        """The revision that the gateway serves."""
        revision: str = self.stack.get("/v1/fleet")["revision"]
        return revision

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("history", "--json").stdout)["history"]
        return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return own | TIMES | {"PYTHONPATH": str(ROOT / "functions")} | dict(extra or {})


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return tidegate(*arguments, variables=TIMES | variables)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One shard of two servers. The stack follows a folder that nobody edits; what is published is in another."""
    folder = tmp_path_factory.mktemp("stack")
    models = make_repository(folder / "models", *MODELS)
    followed = write_rules(folder / "followed", {"a": 2}, PLACEMENT, picked="versioned/1")
    with running_stack(followed, models, folder / "errors", variables=TIMES | NOT_BY_ITSELF) as stack:
        yield Cli(stack, folder / "rules", models)


@pytest.fixture
def published(cli: Cli) -> Cli:
    """A stack where `versioned/2` is live."""
    cli.write(picked="versioned/2")
    if cli.live() != cli.base:
        done = cli.publish("--why", "the test begins")
        assert done.returncode == 0, done.stderr
        cli.base = cli.live()
    return cli


@pytest.fixture
def served(cli: Cli, request: pytest.FixtureRequest) -> Cli:
    """A stack where something that was published is live, whatever it is: what the test before left."""
    if not cli.base:
        request.getfixturevalue("published")
    return cli


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_changed_rule_goes_live_step_by_step(published: Cli) -> None:
    published.write(picked="versioned/3", other="simple")
    done = published.publish("--why", "version 3 is better", "--by", "ana")
    assert done.returncode == 0, done.stderr
    marks = [line.split()[1] for line in done.stdout.splitlines() if line[0] in "✓-"]
    assert marks == [
        "check", "test", "assign", "push", "claim", "try", "load", "validate", "flip", "confirm", "drain",
        "unload",
    ]  # fmt: skip
    assert len(re.findall(r"loading versioned/\S*3 on http://127\.0\.0\.1:", done.stdout)) == 2
    assert "2 changes of the rules (1 × objective added, 1 × rule changed)" in done.stdout
    assert published.stack.version("picked") == 3
    newest = published.history()[0]
    assert (newest["action"], newest["by"], newest["why"]) == ("publish", "ana", "version 3 is better")
    assert (newest["live"], newest["loaded"], newest["revision"]) == (True, True, published.live())
    again = published.publish()
    assert (again.returncode, "is live already" in again.stdout) == (0, True)


def test_a_dry_run_shows_what_would_change_and_changes_nothing(published: Cli) -> None:
    before = published.history()

    def both() -> list[set[str]]:
        """What both servers hold. One that is too busy to answer for its health is left out for a moment."""
        found = published.stack.models("a")
        return found if len(found) == 2 and all(found) else []

    held = eventually(both)
    published.write(picked="[{id: us, when: {country: US}, serve: simple_string}, {id: default, serve: versioned/3}]")
    text = published.publish("--dry-run")
    assert text.returncode == 0, text.stderr
    assert "rules: 2 changes of the rules (1 × rule added, 1 × rule changed)" in text.stdout
    assert "picked: rule us added at place 1" in text.stdout
    assert re.search(r"shard a: load .*simple_string/1", text.stdout)
    done = lines(published.publish("--dry-run", "--json"))
    result = done[-1]
    assert (result["event"], result["ok"], result["status"]) == ("result", True, "planned")
    assert "simple_string/1" in result["loads"]["a"]
    assert result["pushed"][0]["model"] == "simple_string"
    assert {(each["subject"], each["kind"]) for each in result["changes"]} == {("rule", "added"), ("rule", "changed")}
    assert {each["step"] for each in done[:-1]} == {"check", "test", "push", "assign"}
    assert published.history() == before
    assert eventually(both) == held


def test_rules_that_do_not_compile_are_refused_with_their_place(served: Cli) -> None:
    live = served.live()
    served.write(picked="versionde/9")
    done = served.publish()
    assert done.returncode == 1
    assert "rule 'default'" in done.stderr
    assert "✗ check" in done.stdout
    result = lines(served.publish("--json"))[-1]
    assert (result["ok"], result["step"]) == (False, "check")
    assert "objectives/picked.yaml:6" in result["error"]
    assert served.live() == live


def test_a_dead_rule_and_a_failing_case_are_refused_with_their_place(served: Cli) -> None:
    live = served.live()
    served.write(picked="[{id: all, serve: versioned/2}, {id: late, when: {country: US}, serve: versioned/3}]")
    result = lines(served.publish("--json"))[-1]
    (finding,) = result["findings"]
    assert (result["step"], finding["file"], finding["rule"]) == ("check", "objectives/picked.yaml", "late")
    assert finding["line"] == 6
    served.write(picked="versioned/3")
    cases = served.rules / "cases" / "picked.yaml"
    cases.parent.mkdir()
    try:
        cases.write_text("objective: picked\ncases:\n  - {name: second, context: {}, expect: {target: versioned/2}}\n")
        result = lines(served.publish("--json"))[-1]
    finally:
        shutil.rmtree(cases.parent)
    (finding,) = result["findings"]
    assert (result["step"], finding["file"], finding["line"]) == ("test", "cases/picked.yaml", 3)
    assert served.live() == live


def test_auto_models_are_placed_by_what_was_pushed(served: Cli) -> None:
    """Nothing declares its memory, so that a compile finds room; a publish counts files, of 1 MB at least each."""
    served.write(picked="versioned/2", other="simple")
    fleet = served.rules / "fleet.yaml"
    text = "shards: {{a: {{replicas: 2, memory_mb: {}}}}}\nmodels: {{versioned: {{shards: [a]}}, simple: {{shards: auto}}}}\n"
    fleet.write_text(text.format(1))
    live = served.live()
    result = lines(served.publish("--json"))[-1]
    assert result["ok"] is False
    assert result["step"] == "assign"
    assert served.live() == live
    assert "the models do not fit on the shards" in result["error"]
    fleet.write_text(text.format(2))
    assert served.publish("--dry-run").returncode == 0


DIVIDES_BY_ZERO = """\
class TritonPythonModel:
    def execute(self, requests):
        return [request for request in requests if 1 / 0]
"""


def test_a_target_that_fails_behind_a_step_is_named_and_can_be_refused(served: Cli) -> None:
    """`simple` has no golden request; `fails` is an ensemble whose step divides by zero."""
    for name in ("fails", "fails_step"):
        source = "simple_pipeline" if name == "fails" else "simple"
        shutil.copytree(ROOT / "tests/repositories/small" / source, served.models / name, dirs_exist_ok=True)
        config = served.models / name / "config.pbtxt"
        text = config.read_text().replace(f'name: "{source}"', f'name: "{name}"', 1)
        config.write_text(text.replace('model_name: "simple"', 'model_name: "fails_step"'))
    (served.models / "fails_step/1/model.py").write_text(DIVIDES_BY_ZERO)
    served.write(picked="simple", other="fails")
    refused = served.publish("--require-samples")
    assert refused.returncode == 1
    assert "targets without a golden request: fails, simple" in refused.stderr
    done = served.publish()
    assert done.returncode == 0, done.stderr
    assert "targets are READY; unproved: fails, simple" in done.stdout
    told = {line.split("'")[1]: line for line in done.stderr.splitlines() if "went live unproved" in line}
    assert "a made-up one was answered" in told["simple"]
    assert "division by zero" in told["fails"]


def test_a_model_that_triton_refuses_leaves_live_untouched(published: Cli) -> None:
    live = published.live()
    published.write(picked="refused")
    done = published.publish("--json")
    result = lines(done)[-1]
    assert (done.returncode, result["step"]) == (1, "try")
    assert "damaged on purpose" in result["error"]
    assert "repair the model" in done.stderr
    assert published.live() == live
    assert published.stack.version("picked") == 2


def test_a_model_that_is_nowhere_is_named(served: Cli) -> None:
    served.write(picked="versioned/7")
    done = served.publish()
    assert done.returncode == 1
    assert "version 7 of model 'versioned'" in done.stderr and "versions there: 1, 2, 3" in done.stderr


def test_of_two_publishers_one_wins_and_the_other_is_told_by_whom(published: Cli, tmp_path: Path) -> None:
    folders = {"ana": "simple", "ben": "versioned/3"}
    started = {}
    for by, target in folders.items():
        rules = write_rules(tmp_path / by, {"a": 2}, PLACEMENT, picked=target)
        arguments = ["publish", "--rules", str(rules), "--models", str(published.models), "--by", by]
        started[by] = subprocess.Popen(
            published.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    ended = {by: process.communicate(timeout=300) for by, process in started.items()}
    codes = {by: process.returncode for by, process in started.items()}
    entries = [each["by"] for each in published.history()]
    if sorted(codes.values()) == [0, 0]:
        # The second read the pointer only after the first had moved it: it is a change on top of the other.
        assert set(entries[:2]) == {"ana", "ben"}
    else:
        (winner,) = (by for by, code in codes.items() if code == 0)
        (loser,) = (by for by, code in codes.items() if code == 1)
        assert entries[0] == winner
        assert loser not in entries[:1]
        assert winner in ended[loser][1]
        assert "publish again" in ended[loser][1]
    assert all("Traceback" not in errors for _, errors in ended.values())


def test_a_publish_onto_what_is_not_live_is_refused_before_anything_is_read(served: Cli) -> None:
    live = served.live()
    served.write(picked="versioned/1")
    done = served.publish("--onto", "none", "--json")
    assert (done.returncode, lines(done)[-1]["step"]) == (1, "check")
    assert f"made revision {live[:12]} live at" in lines(done)[-1]["error"]
    done = served.publish("--onto", live[:8], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert served.live() == live


def test_a_rollback_is_one_write_and_names_who_and_why(published: Cli) -> None:
    before = published.live()
    published.write(picked="versioned/3")
    assert published.publish().returncode == 0
    done = published.run("rollback", "--why", "version 3 is worse", "--by", "ben")
    assert done.returncode == 0, done.stderr
    assert "- load" in done.stdout
    assert f"revision {before[:12]} is live, in place of" in done.stdout
    assert "which is marked bad" in done.stdout
    assert eventually(lambda: published.stack.version("picked") == 2)
    newest = published.history()[0]
    assert (newest["action"], newest["by"], newest["why"]) == ("rollback", "ben", "version 3 is worse")
    other = published.run("rollback", "--by", "eve", "--json")
    assert (other.returncode, lines(other)[-1]["status"]) == (0, "already rolled back")
    assert lines(other)[-1]["rolled_back_by"] == "ben"
    assert published.live() == before


def test_what_was_rolled_back_is_published_again_only_if_told_so(published: Cli) -> None:
    published.write(picked="versioned/1")
    assert published.publish().returncode == 0
    bad = published.history()[0]["revision"]
    assert published.run("rollback", "--why", "wrong prices", "--by", "ben").returncode == 0
    marked = published.history()
    assert marked[0]["marked_bad"] == marked[1]["revision"] == bad
    assert (marked[1]["bad"]["by"], marked[1]["bad"]["why"]) == ("ben", "wrong prices")
    assert f"marked bad: {bad[:12]} by ben" in published.run("status").stdout
    refused = published.publish()
    assert (refused.returncode, "wrong prices" in refused.stderr) == (1, True)
    done = published.publish("--even-if-bad")
    assert (done.returncode, "is not marked bad any more" in done.stdout) == (0, True), done.stderr
    assert published.history()[0]["revision"] == bad
    assert published.run("rollback").returncode == 0


def test_the_same_rules_with_other_models_are_told_apart(published: Cli) -> None:
    published.write(picked="versioned", other="simple_string")
    assert published.publish().returncode == 0
    newest = published.models / "versioned" / "4"
    shutil.copytree(published.models / "versioned" / "3", newest)
    try:
        assert published.publish().returncode == 0
    finally:
        shutil.rmtree(newest)
    before, now = published.history()[1], published.history()[0]
    assert before["revision"] == now["revision"]
    done = published.run("rollback")
    names = [f"{each['revision'][:12]}.{each['resolution'][:6]}" for each in (before, now)]
    assert f"revision {names[0]} is live, in place of {names[1]}, which is marked bad" in done.stdout


def test_a_rollback_to_a_named_revision_loads_what_is_gone(published: Cli) -> None:
    wanted = published.live()
    for target in ("versioned/3", "simple"):
        published.write(picked=target)
        assert published.publish("--even-if-bad").returncode == 0
    assert eventually(lambda: all("versioned/2" not in held for held in published.stack.models("a")))
    done = published.run("rollback", wanted[:10], "--json")
    told = lines(done)
    assert (done.returncode, told[-1]["status"], told[-1]["revision"]) == (0, "rolled back", wanted)
    assert told[-1]["activated"]["loaded"] == {"versioned": 2}
    assert published.stack.version("picked") == 2
    again = published.run("rollback", wanted[:10])
    assert (again.returncode, "is live already" in again.stdout) == (0, True)


def test_a_revision_that_never_was_is_refused_with_those_that_were(served: Cli) -> None:
    done = served.run("rollback", "nothing")
    assert done.returncode == 1
    assert "no revision that was live begins with 'nothing'" in done.stderr
    assert served.live()[:12] in done.stderr


def unload(stack: RunningStack, model: str) -> str:
    url: str = stack.fleet()["a"][0]["url"]
    stack.unload(url, model)
    return url


def test_a_model_that_was_unloaded_by_hand_is_drift_until_a_reconcile(published: Cli) -> None:
    assert published.run("reconcile").returncode == 0
    assert published.run("status").returncode == 0
    url = unload(published.stack, "versioned")
    status = published.run("status")
    assert status.returncode == 1
    assert "NOT HEALTHY" in status.stdout
    assert re.search(rf"drift: load versioned/\S+ on {url} of shard a", status.stdout)
    plan = published.run("reconcile", "--dry-run", "--json")
    assert plan.returncode == 1
    (action,) = json.loads(plan.stdout)["actions"]
    assert (action["action"], action["model"], action["url"]) == ("load", "versioned", url)
    done = published.run("reconcile")
    assert (done.returncode, "load versioned" in done.stdout) == (0, True)
    assert published.run("reconcile").stdout == "2 servers hold what they must\n"
    assert json.loads(published.run("status", "--json").stdout)["drift"] == []


def test_status_reads_the_stores_as_it_reads_the_stack(published: Cli) -> None:
    control = published.stack.get("/v1/fleet")["control"]
    options = ["--bucket", control["bucket"], "--registry-table", control["registry_table"]]
    options += ["--endpoint-url", control["endpoint_url"]]
    of_stores = json.loads(run("status", *options, "--json").stdout)
    of_stack = json.loads(published.run("status", "--json").stdout)
    for key in ("healthy", "revision", "revisions", "history", "objectives", "drift", "problems"):
        assert of_stores[key] == of_stack[key], key
    assert of_stores["revisions"][0]["why"] == of_stack["history"][0]["why"]
    endpoints = [each["url"] for each in of_stores["shards"][0]["endpoints"]]
    table = run("status", *options).stdout
    assert all(url in table for url in endpoints)
    assert "2 of 2" in table
    assert "gateway local serves" in table
    models = run("status", *options, "--models").stdout
    assert re.search(r"versioned/2\s+READY, needed by live", models)


def interruptible() -> None:
    """Let a process be interrupted where the suite ignores SIGINT, as a shell's background job does and hands on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_watch_looks_again_until_it_is_interrupted(served: Cli) -> None:
    command = served.command("status", "--watch", "--interval-s", "0.2", "--json")
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
        preexec_fn=interruptible,
    ) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert first["revision"] == second["revision"] == served.live()
    assert (process.returncode, errors) == (0, "")


def test_a_watch_on_a_terminal_redraws(served: Cli) -> None:
    ours, theirs = pty.openpty()
    command = served.command("status", "--watch", "--interval-s", "0.2")
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, env=environment({"TERM": "xterm"}), preexec_fn=interruptible
    ) as process:
        os.close(theirs)
        shown = b""
        while shown.count(served.live()[:12].encode()) < 2:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while os.read(ours, 65536):
                pass
        assert process.wait(300) == 0
    os.close(ours)


def test_history_is_a_table(served: Cli) -> None:
    table = served.run("history", "--limit", "1").stdout
    assert served.live()[:12] in table
    assert "the test begins" in table or "live" in table


@pytest.mark.parametrize("command", ["rollback", "status"])
def test_without_stores_it_says_how_to_name_them(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user's own stack may be at the usual port.
    monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", "http://127.0.0.1:9")
    done = run(command)
    assert done.returncode == 2
    assert all(way in done.stderr for way in ("tidegate up", "--stack", "TIDEGATE_STACK"))


@pytest.mark.parametrize("command", ["publish", "rollback", "status"])
def test_stores_that_do_not_answer_are_an_error_that_names_them(command: str, served: Cli) -> None:
    url = f"http://127.0.0.1:{refusing_port()}"
    options = ["--bucket", "nowhere", "--registry-table", "nowhere", "--endpoint-url", url]
    more = ["--rules", str(served.rules), "--models", str(served.models)] if command == "publish" else []
    done = run(command, *more, *options)
    assert done.returncode == 1
    assert re.search(rf"(S3|DynamoDB) at {url} did not answer", done.stderr)


def test_a_table_or_bucket_that_is_missing_is_named(cli: Cli) -> None:
    control = cli.stack.get("/v1/fleet")["control"]
    base = ["status", "--endpoint-url", control["endpoint_url"]]
    table = run(*base, "--bucket", control["bucket"], "--registry-table", "nowhere")
    assert (table.returncode, "nowhere" in table.stderr) == (1, True)
    bucket = run(*base, "--bucket", "nowhere", "--registry-table", control["registry_table"])
    assert (bucket.returncode, "there is no bucket 'nowhere'" in bucket.stderr) == (1, True)


def test_the_same_files_have_one_revision_from_check_to_the_answers_header(served: Cli) -> None:
    served.write(picked="versioned", other="simple")
    rules = str(served.rules)
    checked = json.loads(run("rules", "check", rules, "--json").stdout)["revision"]
    planned = lines(served.publish("--dry-run", "--json"))[-1]
    done = lines(served.publish("--json"))[-1]
    assert planned["ok"] and done["ok"], (planned, done)
    assert checked == planned["revision"] == done["revision"] == done["activated"]["revision"]
    assert planned["resolution"] == done["resolution"] is not None
    assert eventually(lambda: served.live() == checked)
    assert json.loads(served.run("status", "--json").stdout)["revision"] == checked
    request = urllib.request.Request(
        f"{served.stack.url}/v1/objectives/other/resolve", b'{"context": {}}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["Tidegate-Revision"] == checked


OPERATOR = {
    "publish --dry-run": ["publish", "--rules", "{rules}", "--models", "{models}", "--dry-run"],
    "publish": ["publish", "--rules", "{rules}", "--models", "{models}", "--why", "it is better " * 9],
    "status": ["status"],
    "status --models": ["status", "--models"],
    "history": ["history"],
    "reconcile": ["reconcile", "--dry-run"],
    "models push": ["models", "push", "{models}", "simple", "--dry-run"],
}


@pytest.mark.parametrize("command", OPERATOR)
def test_what_an_operator_reads_fits_80_columns(command: str, served: Cli) -> None:
    served.write(picked="versioned/2", other="simple")
    places = {"{rules}": str(served.rules), "{models}": str(served.models)}
    arguments = [places.get(each, each) for each in OPERATOR[command]]
    done = served.run(*arguments, COLUMNS="80")
    assert done.stdout.strip()
    assert_fits(done.stdout + done.stderr, "")
    if command in ("publish", "status", "history"):
        assert served.live()[:12] in done.stdout
        if command == "publish":
            assert eventually(lambda: "it is better" in served.run("status").stdout)
