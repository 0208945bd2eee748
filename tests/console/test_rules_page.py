"""The graph of the rules, differences of revisions, and roll back from the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.console.conftest import HOSTILE, MAIN, PHONE, Open, Operated, Watched
from tests.support.stack import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_graph_zooms_by_keyboard_and_has_a_list(open_page: Open) -> None:
    page = open_page("/console/rules?objective=main")
    region = page.get_by_role("region", name="Graph of rules")
    region.wait_for()
    picture = region.locator("svg")
    whole = picture.get_attribute("viewBox")

    def is_at(view: str | None) -> bool:
        return picture.get_attribute("viewBox") == view

    region.focus()
    page.keyboard.press("+")
    assert eventually(lambda: not is_at(whole))
    zoomed = picture.get_attribute("viewBox")
    page.keyboard.press("ArrowRight")
    assert eventually(lambda: not is_at(zoomed))
    page.get_by_role("button", name="Fit").click()
    assert eventually(lambda: is_at(whole))
    for name in ("main", "canary", "versioned/3", "versioned_pipeline"):
        assert name in (picture.text_content() or "")
    page.get_by_role("button", name="List").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="canary"))
    assert "versioned/2 variant 90" in row.inner_text()
    assert "a, b" in row.inner_text()


def test_the_graph_is_a_list_on_a_phone(open_page: Open) -> None:
    page = open_page("/console/rules?objective=main", viewport=PHONE)
    page.get_by_role("rowheader", name="canary").wait_for()
    page.get_by_role("button", name="Picture").click()
    page.get_by_role("region", name="Graph of rules").wait_for()


def live(stack: Operated) -> Any:
    return stack.ask("/v1/overview")["live"]


def changed(stack: Operated, text: str) -> Any:
    """Have the stack publish another version of the rules; what is live then."""
    before = live(stack)
    target = stack.rules / "objectives" / "main.yaml"
    draft = stack.rules / ".main"
    draft.write_text(text)
    draft.rename(target)
    return eventually(lambda: (now := live(stack))["revision"] != before["revision"] and now)


def rolled_back(page: Page, flip: int, why: str) -> None:
    page.get_by_role("button", name=f"Roll back to flip {flip}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Roll back", exact=True).click()
    assert dialog.is_visible(), "without a reason nothing is sent"
    dialog.get_by_label("Why").fill(why)
    dialog.get_by_role("button", name="Roll back", exact=True).click()
    dialog.wait_for(state="detached")


def test_a_revision_is_compared_and_rolled_back_with_a_reason(
    stack: Operated, open_page: Open, watched: Watched
) -> None:
    first = live(stack)
    second = changed(stack, MAIN.replace("versioned/2: 90, versioned/3: 10", "versioned/2: 40, versioned/3: 60"))
    assert second
    page = open_page("/console/rules/history")
    page.get_by_role("link", name=f"Compare flip {first['flip']} with live").click()
    page.get_by_role("table", name="What moves of main").wait_for()
    assert "canary" in page.locator(".changes").inner_text()
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name=f"Roll back to flip {first['flip']}").wait_for()
    page.keyboard.press("Escape")
    why = f"the canary {HOSTILE} was too large"
    rolled_back(page, first["flip"], why)
    page.get_by_text(why).first.wait_for()
    page.get_by_role("banner").get_by_text(first["revision"][:12]).wait_for()
    asked = [url.removeprefix(stack.url) for url in watched.urls]
    assert "/v1/overview" in asked[asked.index("/v1/rollback") :], "it is not left to the next event"
    assert page.locator("img[src=x]").count() == 0
    assert eventually(lambda: live(stack)["revision"] == first["revision"])
    entry = stack.ask("/v1/revisions")["history"][0]
    assert entry["action"] == "rollback"
    assert entry["why"] == why
    assert entry["marked_bad"] == second["revision"]
    page.goto(f"{stack.url}/console")
    page.get_by_text(first["revision"][:12]).first.wait_for()
