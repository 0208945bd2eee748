"""docs/console.md: its command and its requests work on the example stack, and answers have the members that the page lists."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from tidegate.console.attention import Kind
from tidegate.web.console.paths import PATHS

from tests.docs.blocks import ROOT, blocks
from tests.e2e.test_console import ask
from tests.support.commands import typed
from tests.support.stack import RunningStack, eventually

PAGE = (ROOT / "docs/console.md").read_text(encoding="utf-8")
SHOWN = "http://127.0.0.1:8080"
REQUESTS = re.findall(r"^\| `(GET|POST) (/\S+)` \|", PAGE, re.MULTILINE)


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def members(heading: str) -> set[str]:
    rows = re.findall(r"^\| (`[^|]+) \|", section(heading), re.MULTILINE)
    return {member for row in rows for member in re.findall(r"`([a-z_]+)`", row)}


def test_the_command_prints_the_link_that_opens_the_console(example_stack: RunningStack) -> None:
    (block,) = (each for each in blocks("docs/console.md") if each.language == "console")
    done = typed(block.text.strip().removeprefix("$ ").replace(SHOWN, example_stack.url))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{example_stack.url}/console#token=")


def test_every_question_of_the_page_is_answered(example_stack: RunningStack) -> None:
    assert len(REQUESTS) > 12
    for method, path in REQUESTS:
        if method == "POST" or path == "/v1/events":
            continue
        path = path.replace("{o}", "title_ranking").replace("objective=o", "objective=title_ranking")
        path = path.replace("{m}", "title_ranking_svd").replace("live~1", "live")

        def answered(path: str = path) -> bool:
            found = ask(example_stack, path)
            # On a busy machine the placement may not be there in time.
            return found.status == 200 and json.loads(found.body) is not None

        assert eventually(answered), path


SCHEMAS = {
    "/v1/overview": "Overview",
    "/v1/objectives/title_ranking/traffic": "ObjectiveTraffic",
    "/v1/objectives/title_ranking/cases": "ObjectiveCases",
    "/v1/objectives/title_ranking/source": "ObjectiveSource",
    "/v1/graph": "RulesGraph",
    "/v1/revisions": "Revisions",
    "/v1/revisions/diff?old=live": "RevisionDiff",
    "/v1/models": "ConsoleModels",
    "/v1/models/title_ranking_svd": "ConsoleModelDetails",
    "/v1/placement": "Placement",
}


def test_answers_are_what_their_description_says(example_stack: RunningStack) -> None:
    document = ask(example_stack, "/openapi.json").json
    found = {path: ask(example_stack, path).json for path in SCHEMAS}
    (block,) = (each for each in blocks("docs/console.md") if each.language == "json")
    found["draft"] = ask(example_stack, "/v1/drafts", json.loads(block.text)).json
    assert found["/v1/overview"]["history"]
    for path, name in {**SCHEMAS, "draft": "Draft"}.items():
        check = jsonschema.Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})
        assert not [error.message for error in check.iter_errors(found[path])], path
        known = document["components"]["schemas"][name].get("properties")
        assert known is None or found[path].keys() == known.keys(), path


def test_every_path_is_on_the_page() -> None:
    listed = {path.partition("?")[0].replace("{o}", "{objective}").replace("{m}", "{model}") for _, path in REQUESTS}
    assert {path for path in PATHS if path.startswith("/v1/")} <= listed


def test_the_overview_and_a_draft_have_the_members_of_the_page(example_stack: RunningStack) -> None:
    overview: dict[str, Any] = ask(example_stack, "/v1/overview").json
    overview_rows = {name for name in members("The overview") if name in overview}
    assert overview.keys() - {"as_of"} == overview_rows
    (block,) = (each for each in blocks("docs/console.md") if each.language == "json")
    source = ask(example_stack, "/v1/objectives/title_ranking/source").json
    body = json.loads(block.text)
    body["files"][0]["text"] = {each["path"]: each["text"] for each in source["files"]}[body["files"][0]["path"]]
    found = ask(example_stack, "/v1/drafts", body).json
    assert found["ok"], found
    assert found["decision"]["objective"] == "title_ranking"
    assert found.keys() - {"refused"} == members("Drafts")


def test_every_kind_of_attention_is_on_the_page() -> None:
    listed = re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section("The overview"), re.MULTILINE)))
    assert {each.value for each in Kind} <= set(listed)


def test_the_refusals_are_those_of_the_program() -> None:
    from tidegate.errors import Refusal

    listed = re.findall(r"^\| \d+ \| `([a-z-]+)` \|", section("Rolling back"), re.MULTILINE)
    assert len(listed) == 3
    assert set(listed) <= {each.value for each in Refusal}
