"""The console's backend over HTTP, on a running stack with real model servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.commands import tidegate
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules
from tests.web.conftest import Reply

OBJECTIVE = """\
objective: main
summary: A test.
owner: tests
timeout_ms: 60000
sticky_key: member
context:
  member: {type: string}
  country: {type: string, values: [US, CA, NO, SE]}
rules:
  # The first one is on line 11.
  - id: abroad
    when: {country: [US, CA]}
    split: {versioned/2: 90, versioned/3: 10}
    shadow: {versioned/1: 50}
  - id: test
    when: {country: SE}
    experiment: {id: "7", layer: home, cells: {1: versioned/1, 2: {serve: versioned/2, weight: 3}}}
  - id: past
    when: {country: SE}
    active: {until: "2020-01-01T00:00:00Z"}
    serve: versioned/1
  - id: rest
    serve: versioned/3
    fallback: [versioned/2]
"""
LAYERS = "home: {key: member, experiments: {'7': [0, 9999]}}\n"
CASES = "cases:\n- {name: at home, context: {country: 'NO'}, expect: {rule: rest}}\n"
ODD_TOKEN = "of-the&tests%41#only"
SHARES = {"abroad": 0.4, "test": 0.1, "past": 0.0, "rest": 0.5}
"""The countries are five cases with the absent one, and members two, of which the absent one is in no experiment."""


BEFORE = 100
"""Requests before a change of the rules."""


def write_project(root: Path) -> tuple[Path, Path]:
    """Rules with every kind of action, and a model with an ensemble that calls it."""
    models = make_repository(root / "models", "versioned", "versioned_pipeline")
    placed = {"versioned": ["a"], "versioned_pipeline": ["a"]}
    rules = write_rules(root / "rules", {"a": 2}, placed, piped="versioned_pipeline")
    for name, text in {"objectives/main.yaml": OBJECTIVE, "layers.yaml": LAYERS, "cases/main.yaml": CASES}.items():
        (rules / name).parent.mkdir(exist_ok=True)
        (rules / name).write_text(text)
    return rules, models


def ask(
    stack: RunningStack,
    path: str,
    body: Any = None,
    token: str | None = "",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask as an operator does; `token` None: without one."""
    sent = {} if token is None else {"Authorization": f"Bearer {token or stack.known.operator_token}"}
    data = None
    if body is not None:
        data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(stack.url + path, data=data, headers={**sent, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Reply(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    rules, models = write_project(root)
    variables = {"TIDEGATE_OPERATOR_TOKEN": ODD_TOKEN}
    with running_stack(rules, models, root / "errors", "--follow", "unchecked", variables=variables) as running:
        yield running


def test_everything_of_operators_needs_their_token(stack: RunningStack) -> None:
    objective = [f"/v1/objectives/main/{name}" for name in ("traffic", "cases", "source")]
    others = ("overview", "events", "graph", "revisions", "revisions/diff", "models", "models/versioned", "placement")
    for path in ("/metrics", *objective, *(f"/v1/{name}" for name in others)):
        for token in (None, "wrong"):
            answer = ask(stack, path, token=token)
            assert answer.status == 401, path
            assert answer.json["type"] == "urn:tidegate:problem:operators-only"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "`tidegate console` prints a link with it" in answer.json["detail"]
    for path in ("/v1/drafts", "/v1/rollback"):
        assert ask(stack, path, {}, token=None).status == 401, path


def test_the_overview_shows_the_whole_stack(stack: RunningStack) -> None:
    answer = ask(stack, "/v1/overview")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    # A server that is too busy to answer for its health is left out for a moment.
    found = eventually(lambda: (seen := ask(stack, "/v1/overview").json)["shards"][0]["ready"] == 2 and seen)
    assert found["stack"]["writes"] is False
    assert found["live"]["flip"] == 1
    assert found["live"]["why"] == "the stack was started"
    assert found["publishing"] == []
    assert [each["name"] for each in found["objectives"]] == ["main", "piped"]
    (shard,) = found["shards"]
    assert {key: shard[key] for key in ("name", "endpoints", "ready", "problem")} == {
        "name": "a", "endpoints": 2, "ready": 2, "problem": None,
    }  # fmt: skip
    ended = [each for each in found["attention"] if each["kind"] == "window-expiring"]
    assert [(each["severity"], each["page"]) for each in ended] == [("info", "/console/objectives/main")]


def traffic(stack: RunningStack) -> dict[str, Any]:
    found = ask(stack, "/v1/objectives/main/traffic")
    assert found.status == 200
    return {each["id"]: each for each in found.json["rules"]}


def test_the_rules_of_an_objective_show_what_they_decided(stack: RunningStack) -> None:
    before = traffic(stack)
    for number in range(40):
        country = ("US", "SE", "NO")[number % 3]
        stack.version("main", country=country, member=f"m{number}")
    counted = eventually(
        lambda: (found := traffic(stack))["rest"]["requests"] >= before["rest"]["requests"] + 13 and found
    )
    assert list(counted) == ["abroad", "test", "past", "rest"]
    assert {name: each["line"] for name, each in eventually(lambda: _whole(stack)).items()} == {
        "abroad": 11, "test": 15, "past": 18, "rest": 22,
    }  # fmt: skip
    assert {name: each["space_share"] for name, each in _whole(stack).items()} == pytest.approx(SHARES)
    abroad, test, rest = counted["abroad"], counted["test"], counted["rest"]
    assert abroad["when"] == "country must be one of CA, US"
    assert [(each["name"], each["configured_share"]) for each in abroad["variants"]] == [
        ("versioned/2", 0.9), ("versioned/3", 0.1),
    ]  # fmt: skip
    assert sum(each["requests"] for each in abroad["variants"]) == abroad["requests"]
    low, high = abroad["variants"][0]["ci95"]
    assert 0 < low < abroad["variants"][0]["share"] <= high
    assert (test["experiment"]["layer"], test["experiment"]["verdict"]) == ("home", "too-few")
    assert [each["configured_share"] for each in test["variants"]] == [0.25, 0.75]
    assert (rest["action"], rest["target"], rest["fallback"]) == ("serve", "versioned/3", ["versioned/2"])
    assert rest["p50_ms"] > 0
    assert counted["past"]["active"] == {"from": None, "until": "2020-01-01T00:00:00+00:00"}
    assert eventually(lambda: traffic(stack)["abroad"]["shadows"][0]["compared"] > 0), "its pairs come from the stores"
    report = traffic(stack)["abroad"]["shadows"][0]["report"]
    assert (report["shadow"], report["objective"]) == ("versioned/1", "main")


def _whole(stack: RunningStack) -> dict[str, Any]:
    """The rules once the children have computed what the first answers lack."""

    def complete() -> dict[str, Any] | None:
        found = traffic(stack)
        return found if all(each["line"] and each["space_share"] is not None for each in found.values()) else None

    found: dict[str, Any] = eventually(complete)
    return found


def test_an_objective_that_does_not_exist_and_a_window_that_is_none(stack: RunningStack) -> None:
    answer = ask(stack, "/v1/objectives/mian/traffic")
    assert (answer.status, answer.json["did_you_mean"]) == (404, "main")
    for window in ("0", "901", "-1", "nan", "x", "1e3"):
        assert ask(stack, f"/v1/objectives/main/traffic?window_s={window}").status == 400, window
    assert ask(stack, "/v1/objectives/main/traffic?windows=1").status == 400


def test_cases_and_source_are_those_of_the_directory(stack: RunningStack) -> None:
    cases = ask(stack, "/v1/objectives/main/cases").json["cases"]
    assert cases == [{"name": "at home", "context": {"country": "NO"}, "at": None, "expect": {"rule": "rest"}}]
    found = ask(stack, "/v1/objectives/main/source").json
    assert (found["as_written"], found["matches_live"]) == (True, True)
    texts = {each["path"]: each["text"] for each in found["files"]}
    assert texts["objectives/main.yaml"] == OBJECTIVE
    assert texts["layers.yaml"] == LAYERS
    assert "objectives/piped.yaml" not in texts


def test_the_graph_leads_from_rules_to_shards(stack: RunningStack) -> None:
    found = ask(stack, "/v1/graph?objective=main").json
    (objective,) = found["objectives"]
    edges = {
        rule["id"]: [(each["role"], each["target"], each["share"]) for each in rule["targets"]]
        for rule in objective["rules"]
    }
    assert edges["abroad"] == [
        ("variant", "versioned/2", 0.9),
        ("variant", "versioned/3", 0.1),
        ("shadow", "versioned/1", 0.5),
    ]
    assert edges["rest"] == [("serve", "versioned/3", 1.0), ("fallback", "versioned/2", None)]
    assert {each["target"]: (each["version"], each["shards"]) for each in found["targets"]}["versioned/1"] == (1, ["a"])
    assert len(ask(stack, "/v1/graph").json["objectives"]) == 2
    assert ask(stack, "/v1/graph?revision=nothing").json["type"] == "urn:tidegate:problem:unknown-revision"


def test_a_model_has_its_closure_its_times_and_what_it_touches(stack: RunningStack) -> None:
    stack.version("piped")
    models = {each["name"]: each for each in ask(stack, "/v1/models").json["models"]}
    assert list(models) == ["versioned", "versioned_pipeline"]
    assert (models["versioned"]["backend"], models["versioned"]["versions"]) == ("python", [1, 2, 3])
    assert models["versioned"]["used_by"] == ["versioned_pipeline"]
    assert models["versioned"]["objectives"] == ["main", "piped"]
    ensemble = eventually(
        lambda: (found := ask(stack, "/v1/models/versioned_pipeline").json)["dag"]["nodes"][0]["time_ms"] and found
    )
    assert ensemble["closure"] == ["versioned", "versioned_pipeline"]
    assert ensemble["blast_radius"] == {"objectives": ["piped"], "rules": ["piped/default"]}
    (node,) = ensemble["dag"]["nodes"]
    assert (node["model"], node["version"], node["share"]) == ("versioned", 2, 1.0)
    assert [(each["from"], each["to"]) for each in ensemble["dag"]["edges"]] == [
        ("inputs", "step0"),
        ("step0", "outputs"),
    ]
    assert len(ensemble["loaded"]) == 2
    assert {each["state"] for each in ensemble["loaded"]} == {"READY"}
    unknown = ask(stack, "/v1/models/versione")
    assert (unknown.status, unknown.json["type"]) == (404, "urn:tidegate:problem:unknown-model")
    assert "did you mean 'versioned'" in unknown.json["detail"]


def test_the_placement_is_the_plan_of_the_fleet(stack: RunningStack) -> None:
    found = ask(stack, "/v1/placement").json
    assert (found["fits"], found["moves"], found["placement"]["versioned"]) == (True, [], ["a"])


def draft(
    stack: RunningStack,
    text: str,
    context: Any = None,
    path: str = "objectives/main.yaml",
    objective: str = "main",
) -> Reply:
    return ask(
        stack, "/v1/drafts", {"objective": objective, "files": [{"path": path, "text": text}], "context": context}
    )


def test_a_draft_is_judged_and_changes_nothing(stack: RunningStack) -> None:
    edited = OBJECTIVE.replace("country: [US, CA]", "country: [US, CA, NO]")
    found = draft(stack, edited, {"country": "NO", "member": "m1"})
    assert found.status == 200
    assert found.json["ok"] is False, "the case that it breaks says so"
    assert "at home" in found.json["cases"]["failed"][0]["message"]
    assert found.json["decision"]["rule"] == "abroad"
    assert [each["rule"] for each in found.json["explanation"]["rules"]] == ["abroad", "test", "past", "rest"]
    (moves,) = found.json["moves"]["objectives"]
    assert moves["objective"] == "main"
    assert moves["moved"] == pytest.approx(0.2 * (0.5 + 0.5 * 0.9))
    assert ask(stack, "/v1/revisions").json["history"][0]["flip"] == 1


def test_a_draft_that_does_not_compile_has_findings_with_their_lines(stack: RunningStack) -> None:
    found = draft(stack, OBJECTIVE.replace("serve: versioned/3", "serve: versionde/3"), {"country": "NO"}).json
    (finding,) = [each for each in found["findings"] if each["severity"] == "error"]
    assert (found["ok"], finding["file"], finding["line"]) == (False, "objectives/main.yaml", 23)
    assert "did you mean 'versioned'" in finding["hint"]
    assert (found["decision"], found["moves"]) == (None, None)


def test_a_draft_for_an_objective_that_it_has_not_has_a_finding(stack: RunningStack) -> None:
    for name, hint in (
        ("mian", "did you mean 'main'?"),
        ("search", "write `objective: search` in a file of objectives/"),
    ):
        found = draft(stack, OBJECTIVE, {"country": "NO"}, objective=name).json
        (finding,) = [each for each in found["findings"] if each["severity"] == "error"]
        assert (found["ok"], found["decision"]) == (False, None)
        assert (finding["message"], finding["hint"]) == (
            f"the rules have no objective {name!r}, so nothing is decided for it", hint,
        )  # fmt: skip
    new = "objective: new\nsummary: A test.\nowner: tests\ncontext: {}\nrules: [{id: all, serve: versioned}]\n"
    found = draft(stack, new, {}, "objectives/new.yaml", "new").json
    assert (found["ok"], found["decision"]["target"]) == (True, "versioned")


def test_a_context_that_a_draft_refuses_is_named_without_its_value(stack: RunningStack) -> None:
    found = draft(stack, OBJECTIVE, {"country": "Atlantis"}).json
    assert found["refused"]["attribute"] == "country"
    assert "Atlantis" not in json.dumps(found)
    assert "Atlantis" not in stack.errors


def test_a_draft_of_other_files_than_rules_is_refused(stack: RunningStack) -> None:
    for path in ("../evil.yaml", "/etc/passwd", "objectives/../../x.yaml", "notes.txt", "objectives/a/b.yaml", ""):
        answer = draft(stack, "x: 1", path=path)
        assert (answer.status, answer.json["type"]) == (400, "urn:tidegate:problem:malformed-request"), path
    for body in ({"objective": "main"}, {"objective": 1, "files": []}, {"objective": "main", "files": [1]}, []):
        assert ask(stack, "/v1/drafts", body).status == 400, body


def test_the_console_changes_nothing_unless_a_setting_says_so(stack: RunningStack) -> None:
    answer = ask(stack, "/v1/rollback", {"to": "live~1", "why": "a try"})
    assert (answer.status, answer.json["type"]) == (403, "urn:tidegate:problem:read-only")
    assert "TIDEGATE_CONSOLE_WRITES" in answer.json["detail"]


def test_what_a_page_of_another_site_sends_is_refused(stack: RunningStack) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1"):
        answer = ask(stack, "/v1/rollback", {"to": "live~1", "why": "x"}, headers={"Origin": origin})
        assert (answer.status, answer.json["type"]) == (403, "urn:tidegate:problem:cross-origin"), origin
    assert ask(stack, "/v1/drafts", {}, headers={"Origin": stack.url}).status == 400
    # A form needs no leave of the browser, and sends one of these.
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = ask(stack, "/v1/rollback", {"to": "live~1", "why": "x"}, headers={"Content-Type": media})
        assert answer.status == 415, media


def test_the_link_to_the_console_has_the_token_and_the_log_has_not(stack: RunningStack) -> None:
    token = stack.known.operator_token
    link = f"{stack.url}/console#token={quote(token, safe='')}"
    said = tidegate("console", "--stack", stack.url)
    assert (said.returncode, said.stdout) == (0, f"{link}\n")
    found = json.loads(tidegate("console", "--json", "--stack", stack.url).stdout)
    assert found == {"format_version": 1, "stack": stack.url, "link": link}
    page = ask(stack, "/console", token=None)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert eventually(lambda: f"`tidegate console --stack {stack.url}` prints the link" in stack.errors)
    assert token not in stack.errors
    wrong = tidegate(
        "console", "--stack", stack.url, variables={"XDG_RUNTIME_DIR": "/nowhere", "XDG_CACHE_HOME": "/nowhere"}
    )
    assert wrong.returncode == 1
    assert "set TIDEGATE_OPERATOR_TOKEN" in wrong.stderr


def test_a_killed_server_is_in_the_overview_within_seconds(stack: RunningStack) -> None:
    def shard() -> Any:
        return ask(stack, "/v1/overview").json["shards"][0]

    assert eventually(lambda: shard()["ready"] == 2)
    kept = stack.servers()[1]

    def seen_down() -> Any:
        # Those that replace it, too: each is ready in seconds, which a busy machine may not look at.
        for server in stack.servers():
            if server.pid != kept.pid:
                os.killpg(server.pid, signal.SIGKILL)
        return (found := shard())["ready"] < 2 and found

    seen = eventually(seen_down, 60)
    assert seen["problem"].startswith("1 of 2 servers is not ready")
    down = [each for each in ask(stack, "/v1/overview").json["attention"] if each["kind"] == "endpoint-down"]
    assert down or shard()["ready"] == 2
    assert eventually(lambda: shard()["ready"] == 2), "it was replaced"


def test_a_server_that_is_stopped_is_shown_as_one_that_does_not_answer(stack: RunningStack) -> None:
    def shard() -> Any:
        return ask(stack, "/v1/overview").json["shards"][0]

    assert eventually(lambda: (found := shard())["ready"] == 2 and found["problem"] is None)
    victim = stack.servers()[0]
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        seen = eventually(lambda: (found := shard())["problem"] and found, 60, 0.2)
        assert re.search(r"http://127\.0\.0\.1:\d+( is loading)?: it has not answered for \d+ s", seen["problem"])
        (server,) = [each for each in _servers(stack) if each["unanswered_s"] is not None]
        assert server["pid"] == victim.pid
        assert "it has not answered for" in tidegate("status", "--stack", stack.url).stdout
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    assert eventually(lambda: (found := shard())["ready"] == 2 and found["problem"] is None)


def _servers(stack: RunningStack) -> list[dict[str, Any]]:
    return [each for shard in ask(stack, "/v1/fleet").json["shards"] for each in shard["endpoints"]]


def test_a_silent_control_plane_is_a_503_and_harms_no_caller(stack: RunningStack) -> None:
    pid = stack.process.pid
    request = urllib.request.Request(
        f"{stack.url}/v1/events", headers={"Authorization": f"Bearer {stack.known.operator_token}"}
    )
    with urllib.request.urlopen(request, timeout=120) as viewer:
        assert viewer.readline() == b"event: overview\n"
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = ask(stack, "/v1/models")
            assert (answer.status, answer.json["type"]) == (503, "urn:tidegate:problem:unavailable")
            assert "did not answer within 15 s" in answer.json["detail"]
            assert stack.version("main", country="NO") == 3
            # What was sent before it was stopped comes first.
            assert eventually(lambda: viewer.readline() == b"event: problem\n", most_s=0)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert eventually(lambda: viewer.readline() == b"event: overview\n", most_s=0)
    assert eventually(lambda: ask(stack, "/v1/overview").status == 200)


def test_a_gateway_that_hung_is_in_the_overview_once_it_answers_again(stack: RunningStack) -> None:
    gateway = stack.get("/v1/fleet", late=True)["gateway"]["pid"]
    os.kill(gateway, signal.SIGSTOP)
    try:
        # The control plane itself says so meanwhile.
        status = eventually(
            lambda: "does not answer" in tidegate("status", "--json", "--stack", stack.url).stdout, most_s=0.5
        )
        assert status
    finally:
        os.kill(gateway, signal.SIGCONT)
    found = eventually(lambda: (answer := ask(stack, "/v1/overview")).status == 200 and answer.json)
    assert found["objectives"]
    assert eventually(lambda: not _problems(stack)), "it is heard of again"


def _problems(stack: RunningStack) -> list[str]:
    return [each["text"] for each in _items(stack, "problem")]


def test_a_rollback_is_in_the_history_with_who_and_why(tmp_path: Path) -> None:
    rules, models = write_project(tmp_path)
    variables = {"TIDEGATE_CONSOLE_WRITES": "true"}
    with running_stack(rules, models, tmp_path / "errors", "--follow", "unchecked", variables=variables) as stack:
        for _ in range(BEFORE):
            stack.version("main")
        assert eventually(lambda: traffic(stack)["rest"]["requests"] == BEFORE)
        unmatched = eventually(
            lambda: [each for each in _items(stack, "rule-unmatched") if "rule abroad of main" in each["text"]]
        )
        found = tidegate(*shlex.split(unmatched[0]["command"])[1:], "--stack", stack.url)
        assert (found.returncode, "rule abroad" in found.stdout) == (0, True), found
        file = rules / "objectives" / "main.yaml"
        file.write_text(OBJECTIVE.replace("serve: versioned/3", "serve: versioned/1"))
        assert eventually(lambda: stack.version("main") == 1)
        history = ask(stack, "/v1/revisions").json["history"]
        assert [each["flip"] for each in history] == [2, 1]
        found = ask(stack, "/v1/revisions/diff?old=live~1&new=live").json
        assert [each["text"] for each in found["changes"]] == ["rule rest: serve versioned/3 → versioned/1"]
        (main,) = [each for each in found["objectives"] if each["moved"]]
        assert main["moved"] == pytest.approx(SHARES["rest"])
        for body in (
            {"to": "live~1"},
            {"to": "live~1", "why": ""},
            {"to": "", "why": "x"},
            {"to": "live~1", "why": "a\nb"},
        ):
            assert ask(stack, "/v1/rollback", body).status == 400, body
        # What a rule of the same id decided before, when it served something else, is not counted for it.
        assert ask(stack, "/v1/objectives/main/traffic").json["changed_at"] == history[0]["at"]
        assert ask(stack, "/v1/objectives/piped/traffic").json["changed_at"] is None
        assert eventually(lambda: stack.version("main") and 0 < traffic(stack)["rest"]["requests"] < BEFORE)
        unknown = ask(stack, "/v1/rollback", {"to": "ffffff", "why": "a try"})
        assert (unknown.status, unknown.json["type"]) == (409, "urn:tidegate:problem:not-rolled-back")

        assert ask(stack, "/v1/overview").json["live"]["flip"] == 2
        answer = ask(stack, "/v1/rollback", {"to": "live~1", "why": "versioned/1 is too old"})
        shown = ask(stack, "/v1/overview").json["live"]
        assert (shown["flip"], shown["revision"]) == (3, history[1]["revision"]), "it shows what it did"
        assert (answer.status, answer.json["ok"], answer.json["status"]) == (200, True, "rolled back")
        assert answer.json["revision"] == history[1]["revision"]
        assert stack.version("main") == 3
        (latest, *_) = ask(stack, "/v1/revisions").json["history"]
        assert (latest["action"], latest["why"]) == ("rollback", "versioned/1 is too old")
        assert latest["by"].endswith(" (console)")
        assert f"asked for by {latest['by']}: versioned/1 is too old" in stack.errors
        kinds = {each["kind"] for each in eventually(lambda: _attention(stack, "follow-paused"))}
        assert {"follow-paused", "guard-tripped"} <= kinds


def test_a_viewer_delays_no_end_of_the_stack(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "versioned")
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, main="versioned")
    with running_stack(rules, models, tmp_path / "errors") as stack:
        request = urllib.request.Request(
            f"{stack.url}/v1/events", headers={"Authorization": f"Bearer {stack.known.operator_token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as viewer:
            seen = [viewer.readline() for _ in range(6)]
            assert seen[0] == seen[3] == b"event: overview\n"
            assert json.loads(seen[1].removeprefix(b"data: "))["live"]["flip"] == 1
            assert stack.stop() == 0
            # To its end, which is none that was cut off.
            assert viewer.read().count(b"event: ") <= 3
        assert "Traceback" not in stack.errors


def _items(stack: RunningStack, kind: str) -> list[dict[str, Any]]:
    return [each for each in ask(stack, "/v1/overview").json["attention"] if each["kind"] == kind]


def _attention(stack: RunningStack, kind: str) -> Any:
    found = ask(stack, "/v1/overview").json["attention"]
    return found if kind in {each["kind"] for each in found} else None
