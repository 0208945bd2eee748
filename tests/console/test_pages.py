"""Every page of the console in a browser: drawn, accessible in both themes and on a phone, and reachable by keyboard."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tidegate.web.console.events import MOST_VIEWERS

from tests.console.conftest import HOSTILE, MANY, PHONE, Open, Operated, Watched
from tests.support.stack import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTEXT = "#context=%7B%22member_id%22%3A%221%22%2C%22country%22%3A%22US%22%7D"
PAGES = {
    "overview": ("/console", "Objectives"),
    "objectives": ("/console/objectives", "main"),
    "objective": ("/console/objectives/main", "Rules in order"),
    "playground": (f"/console/playground/main{CONTEXT}", "by rule"),
    "rules": ("/console/rules", "Zoom"),
    "history": ("/console/rules/history", "the stack was started"),
    "differences": ("/console/rules/diff?old=live&new=live", "The rules are the same"),
    "models": ("/console/models", "versioned_pipeline"),
    "model": ("/console/models/versioned_pipeline", "Blast radius"),
    "fleet": ("/console/fleet", "Placement of each model"),
}
REACHABLE = "a[href], button:not([disabled]), select, input, textarea, [tabindex='0']"


@pytest.fixture(scope="session")
def axe() -> str:
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text()


def findings(page: Page) -> list[str]:
    """What axe-core finds, with the elements, but for what it calls minor."""
    result: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{each['impact']} {each['id']}: {', '.join(str(node['target']) for node in each['nodes'][:4])}"
        for each in result["violations"]
        if each["impact"] != "minor"
    ]


def settled(page: Page, text: str) -> None:
    """Wait until the page has its heading and a text of its own, and nothing is awaited."""
    page.locator("h1").first.wait_for()
    page.get_by_text(text).or_(page.get_by_label(text)).first.wait_for(state="attached")
    page.locator("main .waiting").first.wait_for(state="detached")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_in_both_themes_and_on_a_phone(name: str, open_page: Open, axe: str) -> None:
    path, text = PAGES[name]
    page = open_page(path, color_scheme="light", reduced_motion="reduce", bypass_csp=True)
    settled(page, text)
    page.evaluate(axe)
    assert findings(page) == []
    page.emulate_media(color_scheme="dark")
    assert findings(page) == []
    page.set_viewport_size(PHONE)
    settled(page, text)
    assert findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "nothing is wider than the phone"


@pytest.mark.parametrize("name", ["overview", "playground", "rules", "fleet"])
def test_everything_on_a_page_is_reached_by_keyboard(name: str, open_page: Open) -> None:
    path, text = PAGES[name]
    page = open_page(path)
    settled(page, text)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    # A page may be drawn again meanwhile: what is looked for is named, not counted.
    name_of = "element => element.id || element.getAttribute('href') || element.getAttribute('aria-label') || element.textContent"
    wanted = set(
        page.locator(REACHABLE).evaluate_all(f"all => all.filter(each => each.checkVisibility()).map({name_of})")
    )
    reached = set()
    for _ in range(3 * len(wanted) + 20):
        reached.add(page.evaluate(f"({name_of})(document.activeElement)"))
        page.keyboard.press("Tab")
        if wanted <= reached:
            break
    assert wanted - reached == set()


def test_the_skip_link_and_the_pages_move_the_focus(open_page: Open) -> None:
    page = open_page("/console")
    settled(page, "Objectives")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Fleet").click()
    page.get_by_role("heading", name="Fleet", level=1).wait_for()
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.title() == "Fleet · Tidegate"
    assert page.url.endswith("/console/fleet")
    page.go_back()
    page.get_by_role("heading", name="Overview", level=1).wait_for()


def test_the_links_token_is_kept_for_the_tab_and_leaves_the_address(
    stack: Operated, open_page: Open, watched: Watched
) -> None:
    page = open_page(f"/console#token={quote(stack.token, safe='')}", token=None)
    settled(page, "Needs attention")
    assert page.url == f"{stack.url}/console"
    page.reload()
    settled(page, "Needs attention")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert not [url for url in watched.urls if stack.token in url]


def test_without_the_token_an_operator_signs_in_and_a_caller_can_play(
    stack: Operated, open_page: Open, watched: Watched
) -> None:
    watched.expected = "401"
    page = open_page("/console", token=None)
    page.get_by_label("Operators’ token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("The token was refused").wait_for()
    page.get_by_label("Operators’ token").fill(stack.token)
    page.get_by_role("button", name="Sign in").click()
    settled(page, "Needs attention")
    anonymous = open_page(PAGES["playground"][0], token=None)
    settled(anonymous, "by rule")


def test_a_text_of_an_author_is_a_text_and_no_markup(stack: Operated, open_page: Open) -> None:
    for path in ("/console", "/console/objectives", "/console/objectives/main", "/console/playground/main"):
        page = open_page(path)
        page.locator("h1").first.wait_for()
        if "playground" not in path:
            page.get_by_text(HOSTILE).first.wait_for()
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("window.broken === undefined")


def test_a_chosen_theme_holds_and_is_kept(open_page: Open) -> None:
    page = open_page("/console", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_label("Theme").select_option("system")
    assert page.evaluate(ground) == light


def test_the_traffic_of_a_rule_is_shown_beside_its_expected_share(stack: Operated, open_page: Open) -> None:
    counted = "/v1/objectives/main/traffic?window_s=900"

    def canary() -> Any:
        # Another test may just have changed the rules, whose first requests are not counted.
        for number in range(20):
            stack.infer(member_id=str(number), app_version="9.0")
        return next(rule for rule in stack.ask(counted)["rules"] if rule["id"] == "canary")

    assert eventually(lambda: canary()["requests"] >= 20)
    page = open_page("/console/objectives/main")
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="canary"))
    row.first.wait_for()
    assert "none" not in row.first.inner_text()
    variants = page.get_by_role("table", name="Variants of canary")
    assert "90\u202f% configured" in variants.inner_text()
    page.get_by_role("button", name="5 min", exact=True).click()
    page.get_by_text(re.compile("Requests (in 5 min|since the rules changed)")).wait_for()


def test_the_longest_names_fit_on_a_phone(stack: Operated, open_page: Open) -> None:
    long = "x" * 64
    page = open_page("/console/models", viewport=PHONE)
    found = stack.ask("/v1/objectives/main/traffic")
    rules = [{**each, "id": long} for each in found["rules"]]
    page.route(
        f"**/v1/objectives/{long}/traffic*",
        lambda route: route.fulfill(json={**found, "objective": long, "rules": rules}),
    )
    model = {**stack.ask("/v1/models/versioned"), "name": long, "closure": [long]}
    model["blast_radius"] = {"objectives": [long], "rules": [f"{long}/{long}"]}
    page.route(f"**/v1/models/{long}", lambda route: route.fulfill(json=model))
    for path, text in ((f"objectives/{long}", "Rules in order"), (f"models/{long}", "Blast radius")):
        page.goto(f"{stack.url}/console/{path}")
        page.get_by_text(text).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_thousands_of_rules_and_hundreds_of_models_are_shown_in_pages(stack: Operated, open_page: Open) -> None:
    page = open_page("/console/objectives/many")
    page.get_by_text(f"1–50 of {MANY // 1000}\u202f{MANY % 1000:03}").wait_for()
    assert page.get_by_role("table", name="Rules of many").get_by_role("row").count() == 51
    page.get_by_placeholder("rules").fill("r-0777")
    page.get_by_role("rowheader", name="r-0777").wait_for()
    page.goto(f"{stack.url}/console/rules?objective=many")
    page.get_by_placeholder("rules").wait_for()
    assert page.locator(".graph .node").count() < 100
    page.goto(f"{stack.url}/console/models/versioned")
    page.get_by_placeholder("rules").fill("r-0777")
    page.get_by_text("many/r-0777").wait_for()
    assert page.locator(".tag").count() < 100
    rows = stack.ask("/v1/models")["models"]
    many = [{**rows[n % len(rows)], "name": f"model_{n:03}"} for n in range(300)]
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": many}))
    page.goto(f"{stack.url}/console/models")
    page.get_by_text("1–50 of 300").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("link", name="model_050").wait_for()
    page.get_by_placeholder("models").fill("model_299")
    page.get_by_role("link", name="model_299").wait_for()
    assert page.get_by_role("table", name="Models").get_by_role("row").count() == 2


def test_commands_and_times_within_a_text_are_marked(stack: Operated, open_page: Open, watched: Watched) -> None:
    watched.expected = "Failed to load resource"
    shown = stack.ask("/v1/overview")
    text = "a server was replaced once, last at 2026-11-30T07:15:20+00:00: see `tidegate up`, <b>says</b> it"
    shown["attention"] = [
        {"kind": "degraded", "severity": "warning", "text": text, "since": None, "command": None, "page": None}
    ]
    page = open_page("/console/objectives")
    page.route("**/v1/events", lambda route: route.abort())
    page.route("**/v1/overview", lambda route: route.fulfill(json=shown))
    page.goto(f"{stack.url}/console")
    item = page.locator(".attention li")
    item.locator("code").get_by_text("tidegate up", exact=True).wait_for()
    assert item.locator("time").get_attribute("datetime") == "2026-11-30T07:15:20+00:00"
    assert "07:15:20 UTC: see tidegate up, <b>says</b> it" in item.inner_text()


def opened(request: urllib.request.Request) -> Any:
    with contextlib.suppress(urllib.error.HTTPError):
        return urllib.request.urlopen(request, timeout=60)
    return None


def test_a_viewer_who_gets_no_place_at_the_stream_is_told_so(
    stack: Operated, open_page: Open, watched: Watched
) -> None:
    watched.expected = "503"
    request = urllib.request.Request(f"{stack.url}/v1/events", headers={"Authorization": f"Bearer {stack.token}"})
    with contextlib.ExitStack() as viewers:
        for _ in range(MOST_VIEWERS):
            # The page of an earlier test may be about to leave.
            viewers.enter_context(eventually(lambda: opened(request)))
        page = open_page("/console")
        page.get_by_text(f"is not live: {MOST_VIEWERS} viewers have the overview already").wait_for()
        page.get_by_role("banner").get_by_text("Polling").wait_for()
    page.get_by_role("banner").get_by_text("Live", exact=True).wait_for()


def test_what_cannot_be_read_is_said_with_what_to_do(stack: Operated, open_page: Open, watched: Watched) -> None:
    watched.expected = "404|Failed to load resource"
    page = open_page("/console/models/nope")
    page.get_by_role("alert").wait_for()
    assert "nope" in page.get_by_role("alert").inner_text()
    page.goto(f"{stack.url}/console/nowhere")
    page.get_by_text("No such page").wait_for()
    page.route("**/v1/events", lambda route: route.abort())
    page.goto(f"{stack.url}/console")
    page.get_by_role("banner").get_by_text("Polling").wait_for()
    page.route("**/v1/overview", lambda route: route.abort())
    page.get_by_role("banner").get_by_text("Not reachable").wait_for()
    assert "tidegate status" in page.get_by_role("alert").inner_text()
    page.unroute("**/v1/overview")
    page.unroute("**/v1/events")
    page.get_by_role("banner").get_by_text("Live", exact=True).wait_for()
    page.get_by_role("alert").wait_for(state="detached")
