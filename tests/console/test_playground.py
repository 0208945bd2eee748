"""The playground: what it shows is what callers get, and what it copies does what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import yaml

from tests.console.conftest import MAIN, Open, Operated, Watched, until
from tests.support.stack import REPOSITORIES, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTEXTS: tuple[dict[str, Any], ...] = (
    {"member_id": "1", "is_kids": True},
    {"member_id": "0", "country": "US"},
    {"member_id": 'it\'s "me" $HOME', "app_version": "8.10"},
    {"member_id": "3", "tags": ["new", "old"], "tier": 2},
    {"member_id": "5", "device": "tv"},
)
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


def link(context: Any, objective: str = "main") -> str:
    return f"/console/playground/{objective}#context={quote(json.dumps(context), safe='')}"


def decided(page: Page, rule: str) -> None:
    page.locator(".decided .headline").get_by_text(rule, exact=True).wait_for()


def copied(page: Page, what: str) -> str:
    page.get_by_role("button", name=what).click()
    page.get_by_text("Copied").first.wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: "-".join(context))
def test_the_decision_is_the_one_that_a_caller_gets(
    context: dict[str, Any], stack: Operated, open_page: Open, watched: Watched
) -> None:
    answer = stack.ask("/v1/objectives/main/resolve?explain=true", {"context": context})
    decision = answer["decision"]
    page = open_page(link(context))
    decided(page, decision["rule"])
    assert decision["target"] in page.locator(".decided .headline").inner_text()
    for number, rule in enumerate(answer["explanation"]["rules"]):
        step = page.locator(".steps .step").nth(number)
        assert rule["rule"] in step.inner_text()
        assert (step.get_attribute("aria-current") == "true") == (rule["rule"] == decision["rule"])
        if rule["detail"]:
            assert rule["failed"] in step.inner_text()
            assert rule["detail"] in step.inner_text()
    for draw in answer["explanation"]["draws"]:
        assert draw["first_8_bytes"] in page.get_by_role("table", name="Draws of the variants").inner_text()
    for layer in answer["explanation"]["layers"]:
        assert f"bucket {layer['bucket']} " in page.locator(".arithmetic").inner_text()
    assert not [url for url in watched.urls if "member_id" in url.partition("#")[0]]


def test_a_form_of_the_declared_attributes_makes_the_context(open_page: Open) -> None:
    page = open_page("/console/playground/main")
    page.get_by_label("member_id").fill("7")
    decided(page, "default")
    page.get_by_label("device").select_option("tv")
    page.get_by_label("tier").fill("2")
    page.get_by_label("tags").fill("new, old")
    decided(page, "tagged")
    page.get_by_label("is_kids").select_option("true")
    decided(page, "kids")
    page.get_by_role("button", name="JSON", exact=True).click()
    shown = json.loads(page.get_by_label("Context as JSON").input_value())
    assert shown == {"member_id": "7", "device": "tv", "tier": 2, "tags": ["new", "old"], "is_kids": True}
    page.get_by_label("Context as JSON").fill('{"member_id": "7"}')
    decided(page, "default")
    page.get_by_role("button", name="Form", exact=True).click()
    page.get_by_label("tier").fill("many")
    page.get_by_text("many is not a whole number").wait_for()
    page.get_by_text("The context has a mistake").wait_for()
    page.get_by_label("Example from the rules").select_option(label="kids get the first version")
    decided(page, "kids")


def test_a_refused_context_is_marked_at_its_attribute(open_page: Open, watched: Watched) -> None:
    watched.expected = "400"
    page = open_page(link({"country": "US"}))
    page.get_by_label("member_id").and_(page.locator("[aria-invalid=true]")).wait_for()
    assert "member_id" in page.locator(".decided [role=alert]").inner_text()


def test_a_link_brings_another_the_same_decision(stack: Operated, open_page: Open) -> None:
    page = open_page("/console/playground/main", **CLIPBOARD)
    page.get_by_label("member_id").fill("42")
    page.get_by_label("country").fill("CA")
    page.get_by_label("app_version").fill("9.0")
    page.locator(".decided .headline").wait_for()
    until(page, "location.hash.includes('9.0')")
    address = copied(page, "Copy link")
    assert address == page.url
    again = open_page(address.removeprefix(stack.url))
    again.locator(".decided .headline").wait_for()
    page.get_by_text("Deciding").wait_for(state="detached")
    assert again.get_by_label("country").input_value() == "CA"
    decision = stack.ask(
        "/v1/objectives/main/resolve", {"context": {"member_id": "42", "country": "CA", "app_version": "9.0"}}
    )["decision"]
    decided(again, decision["rule"])


def test_a_context_that_the_form_cannot_show_is_kept_as_it_is(open_page: Open) -> None:
    context = {"member_id": "1", "country": "", "tags": [" new", "old"], "more": {"a": 1}}
    page = open_page(link(context))
    page.locator(".decided .headline").wait_for()
    page.get_by_text("Sent too, as JSON has it: country, tags, more").wait_for()
    page.get_by_role("button", name="JSON", exact=True).click()
    assert json.loads(page.get_by_label("Context as JSON").input_value()) == context


def test_a_broken_link_says_so_and_starts_empty(open_page: Open) -> None:
    page = open_page("/console/playground/main#context=%7Bnope")
    page.get_by_text("The link’s context cannot be read").wait_for()
    assert page.get_by_label("member_id").input_value() == ""


def test_the_models_answer_is_shown_on_demand_only(stack: Operated, open_page: Open, watched: Watched) -> None:
    page = open_page(link(CONTEXTS[0]))
    decided(page, "kids")
    inputs = page.get_by_label("Inputs as JSON")
    until(page, "document.querySelector('#inputs').value.includes('3')")
    assert json.loads(inputs.input_value()) == {"SLEEP_MS": [3]}, "as the golden request of the model has it"
    assert not [url for url in watched.urls if url.endswith("/infer")]
    page.get_by_role("button", name="Ask the model").click()
    page.get_by_text("versioned/1 on").wait_for()
    output = json.loads(page.get_by_label("Outputs", exact=True).inner_text())
    assert output == stack.infer(**CONTEXTS[0])["outputs"]
    inputs.fill("{")
    page.locator("button:disabled", has_text="Ask the model").wait_for()
    page.get_by_role("button", name="Reset inputs").click()
    page.locator("button:enabled", has_text="Ask the model").wait_for()


def test_a_stream_is_shown_as_it_arrives(open_page: Open) -> None:
    page = open_page(link({"member_id": "1"}, "story"))
    word = (REPOSITORIES / "streaming" / "storyteller" / "1" / "corpus.txt").read_text().split()[0]
    page.get_by_label("Inputs as JSON").fill(json.dumps({"PROMPT": [word]}))
    page.get_by_role("button", name="Ask the model").click()
    page.get_by_text("storyteller/1 on").wait_for()
    events = json.loads(page.get_by_label("Outputs", exact=True).inner_text())
    assert len(events) == 5
    assert all(each["WORD"] for each in events)


@pytest.mark.parametrize("context", CONTEXTS[:3], ids=["plain", "layer", "quoted"])
def test_what_is_copied_runs_and_answers_the_same(context: dict[str, Any], stack: Operated, open_page: Open) -> None:
    page = open_page(link(context), **CLIPBOARD)
    page.locator(".decided .headline").wait_for()
    expected = stack.infer(**context)
    for command in (
        ["bash", "-c", copied(page, "Copy as curl")],
        [sys.executable, "-c", copied(page, "Copy as Python")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["outputs"] == expected["outputs"]
        assert answer["decision"]["rule"] == expected["decision"]["rule"]
    (case,) = yaml.safe_load(copied(page, "Copy as case"))
    assert case["context"] == context
    decision = expected["decision"]
    assert case["expect"].items() <= decision.items()
    assert case["expect"]["rule"] == decision["rule"]


def test_edited_rules_are_checked_and_tried_while_they_are_written(open_page: Open) -> None:
    page = open_page(link({"member_id": "5", "device": "tv"}))
    decided(page, "default")
    editor = page.get_by_label("objectives/main.yaml")
    assert editor.input_value() == MAIN
    page.get_by_text("The rules are as they are live").wait_for()
    editor.fill(MAIN.replace("versioned/2: 90, versioned/3: 10", "versioned/2: 40, versioned/3: 60"))
    page.get_by_text("These rules would pass").wait_for()
    page.get_by_text("This context gets the same as from the live rules").wait_for()
    moved = page.locator(".drafts")
    moved.get_by_text("canary").first.wait_for()
    moved.get_by_role("table", name="What moves of main").wait_for()
    editor.fill(MAIN.replace("serve: versioned_pipeline", "serve: versioned/3"))
    page.get_by_text("This context gets versioned/3 by rule default").wait_for()
    editor.fill(MAIN.replace("serve: versioned_pipeline", "serv: versioned/3"))
    page.get_by_text("These rules would be refused").wait_for()
    line = 1 + MAIN[: MAIN.index("serve: versioned_pipeline")].count("\n")
    finding = page.locator(".drafts .attention").get_by_role("button").first
    assert f"line {line}" in finding.inner_text() or f"line {line - 1}" in finding.inner_text()
    finding.click()
    until(page, "document.activeElement.tagName === 'TEXTAREA'")
    page.get_by_role("button", name="Undo the edits").click()
    page.get_by_text("The rules are as they are live").wait_for()


def test_a_refused_change_leads_to_its_text_and_its_finding(stack: Operated, open_page: Open) -> None:
    story = stack.rules / "objectives" / "story.yaml"
    written = story.read_text()
    try:
        story.write_text(written.replace("serve: storyteller", "serve: storytellr"))
        refused = "the last change of the rules was refused"
        assert eventually(lambda: refused in json.dumps(stack.ask("/v1/overview")["attention"]))
        page = open_page("/console")
        page.locator(".attention li").filter(has_text=refused).get_by_role("link", name="Show").click()
        page.get_by_text("The rules directory is refused as it is").wait_for()
        finding = page.locator(".drafts .attention li").filter(has_text="Rule default")
        finding.get_by_role("button", name="objectives/story.yaml, line").wait_for()
        assert page.url.startswith(f"{stack.url}/console/playground/story")
        editor = page.get_by_label("objectives/story.yaml", exact=True)
        assert "storytellr" in editor.input_value()
        # Also from another objective, whose own files are as they are live.
        other = open_page("/console/playground/main")
        assert "storytellr" in other.get_by_label("objectives/story.yaml", exact=True).input_value()
        other.get_by_text("The rules directory is refused as it is").wait_for()
    finally:
        story.write_text(written)
    assert eventually(lambda: refused not in json.dumps(stack.ask("/v1/overview")["attention"]))


def test_a_finding_in_a_file_that_is_not_shown_has_its_place_as_text(open_page: Open) -> None:
    page = open_page(link({"member_id": "5", "device": "tv"}))
    page.get_by_role("button", name="fleet.yaml").click()
    fleet = page.get_by_label("fleet.yaml", exact=True)
    fleet.fill(fleet.input_value().replace("storyteller", "narrator"))
    place = page.locator(".drafts .attention").get_by_text(re.compile(r"objectives/story\.yaml, line \d+"))
    place.wait_for()
    assert place.evaluate("each => each.tagName") == "SPAN"
