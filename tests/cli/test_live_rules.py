"""`live:` names what is live in every command that takes rules, and the same files have one revision everywhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.cli import main
from tidegate.ports import LiveEntry
from tidegate.rules import compile_directory
from tidegate.rules.bundle import revision_of
from tidegate.rules.resolved import resolve_bundle

from tests.cli.rules_runner import RANKING, write
from tests.support.aws import LocalAws

CASES = "objective: ranking\ncases:\n  - {name: home, context: {member_id: '1', country: SE}, expect: {rule: home, version: null}}\n"
SE = ("--objective", "ranking", "--context", '{"member_id": "1", "country": "SE"}')


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write(tmp_path / "rules", {"cases/ranking.yaml": CASES})


@pytest.fixture
def live(rules: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rules are live in the stores that the settings name, and others were before."""

    async def publish() -> None:
        store, pointer = S3BundleStore(aws.objects()), None
        before = compile_directory(
            write(rules.parent / "before", {"objectives/ranking.yaml": RANKING.replace("SE", "NO")})
        )
        for number, bundle in enumerate((before, compile_directory(rules)), 1):
            revision = await store.put_bundle(resolve_bundle(bundle, {"base": 1, "base@champion": 1, "better": 2}, {}))
            pointer = await store.flip(LiveEntry(revision, number, "ann", float(number)), pointer)

    asyncio.run(publish())
    for name, text in (("BUCKET", aws.bucket), ("REGISTRY_TABLE", aws.table), ("AWS_ENDPOINT_URL", aws.url)):
        monkeypatch.setenv(f"TIDEGATE_{name}", text)
    return rules


def run(*arguments: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def run_json(*arguments: object, exit_code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", exit_code=exit_code).stdout)


def test_the_same_files_have_one_revision_everywhere(live: Path, tmp_path: Path) -> None:
    told = {
        "check": run_json("rules", "check", live)["revision"],
        "compile": run_json("rules", "compile", live, "-o", tmp_path / "bundle")["revision"],
        "compile live:": run_json("rules", "compile", "live:", "-o", tmp_path / "live")["revision"],
        "explain": run_json("rules", "explain", live, *SE)["decision"]["revision"],
        "explain live:": run_json("rules", "explain", "live:", *SE)["decision"]["revision"],
        "diff": run_json("rules", "diff", "live:", live)["new"]["revision"],
        "diff live:": run_json("rules", "diff", "live:", live)["old"]["revision"],
        "history": run_json("history")["history"][0]["revision"],
    }
    assert set(told.values()) == {revision_of(compile_directory(live))}, told
    assert run_json("history")["history"][0]["resolution"] is not None
    assert told["check"][:12] in run("history").stdout


def test_what_is_live_is_compared_with_files_as_these_are(live: Path) -> None:
    assert run_json("rules", "diff", "live:", live)["changes"] == []
    changed = run_json("rules", "diff", "live:~1", "live:", exit_code=1)
    assert [each["name"] for each in changed["changes"]] == ["home"]
    (live / "objectives/ranking.yaml").write_text(RANKING.replace("SE", "DK"))
    changed = run_json("rules", "diff", "live:", live, exit_code=1)
    assert [(each["name"], each["subject"]) for each in changed["changes"]] == [("home", "rule")], "and no version"


def test_what_is_live_is_explained_drawn_replayed_and_tested(live: Path, tmp_path: Path) -> None:
    assert run_json("rules", "explain", "live:", *SE)["decision"]["target"] == "better"
    assert run_json("rules", "explain", "live:~1", *SE)["decision"]["rule"] == "default"
    assert run("rules", "graph", "live:").stdout == run("rules", "graph", live).stdout
    log = tmp_path / "log"
    log.write_text('{"objective": "ranking", "context": {"member_id": "1", "country": "SE"}}\n')
    replayed = run_json("rules", "replay", "live:", "--log", log, "--against", live)
    assert (replayed["decided"], replayed["against"]["moved"]) == (1, 0)
    assert run_json("rules", "test", "live:", "--cases", live)["ok"]
    assert not run_json("rules", "test", "live:~1", "--cases", live, exit_code=1)["ok"]
    assert "--cases" in run("rules", "test", "live:", exit_code=2).output


@pytest.mark.parametrize(("name", "words"), [("live:~2", "before the first of 2 flips"), ("live:2", "live:~N")])
def test_what_was_never_live_is_wrong_usage(live: Path, name: str, words: str) -> None:
    assert words in " ".join(run("rules", "explain", name, *SE, exit_code=2).output.split())


@pytest.mark.parametrize("command", ["explain", "graph", "compile", "diff", "replay", "test"])
def test_a_stack_that_nothing_is_read_from_is_refused(command: str, rules: Path) -> None:
    more = {
        "explain": SE,
        "compile": ("-o", rules / "bundle"),
        "diff": (rules,),
        "replay": ("--log", rules / "fleet.yaml"),
    }
    result = run("rules", command, rules, *more.get(command, ()), "--stack", "http://127.0.0.1:9", exit_code=2)
    assert "--stack says where to find `live:`" in " ".join(result.output.split())


def test_a_stack_is_found_by_the_environment_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STACK", "http://127.0.0.1:9")
    result = run("rules", "explain", "live:", *SE, exit_code=1)
    assert result.stderr.count("using the stack http://127.0.0.1:9: from TIDEGATE_STACK\n") == 1
    assert "cannot read http://127.0.0.1:9/v1/fleet" in result.stderr
    monkeypatch.setenv("TIDEGATE_BUCKET", "a-bucket")
    assert "unset one of them" in " ".join(run("history", exit_code=2).output.split())


def test_what_does_not_answer_is_said_in_words() -> None:
    said = run("history", "--stack", "http://127.0.0.1:9", exit_code=1).stderr
    assert "Connection refused" in said
    assert "urlopen" not in said
    assert "`tidegate up` starts a stack" in said


def test_an_empty_variable_counts_as_unset_and_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate.stack_file.find", lambda _url: object())
    monkeypatch.setattr("tidegate.cli.stacks.read_fleet", lambda _url, **_: {"control": {}})
    monkeypatch.setenv("TIDEGATE_STACK", "")
    said = run("history", exit_code=1).stderr
    assert "it answers at the default port, as TIDEGATE_STACK is empty\n" in said


def test_without_a_stack_every_way_to_name_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", "http://127.0.0.1:9")
    for command in (("rules", "explain", "live:", *SE), ("history",), ("status",), ("publish", "--rules", ".")):
        output = " ".join(run(*command, exit_code=2).output.split())
        for way in ("tidegate up", "--stack", "TIDEGATE_STACK", "--bucket", "TIDEGATE_BUCKET", "http://127.0.0.1:9"):
            assert way in output, (command, output)
