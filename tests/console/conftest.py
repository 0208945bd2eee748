"""A browser, and a stack with rules of every kind that the console shows."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.parts import CHROMIUM, need
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOSTILE = '<img src=x onerror="window.broken = true">'
MANY = 1000
PHONE = {"width": 360, "height": 740}
PATIENCE_MS = 60_000
"""Far above what is usual, on a busy machine."""

MAIN = f"""objective: main
summary: {json.dumps(f"Serve {HOSTILE} a version.")}
owner: tests
context:
  member_id: {{type: string, required: true}}
  country: {{type: string}}
  device: {{type: string, values: [tv, mobile, web]}}
  is_kids: {{type: boolean}}
  app_version: {{type: version}}
  tier: {{type: integer}}
  tags: {{type: set}}
sticky_key: member_id
timeout_ms: 60000
fallback: [versioned/1]
rules:
  - id: kids
    when: {{is_kids: true}}
    serve: versioned/1
  - id: trial
    when: {{country: [US, CA]}}
    experiment: {{id: "7", layer: home, cells: {{1: versioned/2, 2: versioned/3}}}}
  - id: canary
    when: {{app_version: {{gte: "8.2"}}}}
    split: {{versioned/2: 90, versioned/3: 10}}
    parameters: {{depth: 2}}
  - id: tagged
    when: {{tags: {{contains_any: [new]}}, tier: {{gte: 2}}}}
    serve: versioned/3
  - id: default
    serve: versioned_pipeline
"""
CASES = """objective: main
cases:
  - name: kids get the first version
    context: {member_id: "1", is_kids: true}
    expect: {rule: kids}
  - name: tags and tier together
    context: {member_id: "1", tags: [new, old], tier: 3}
    expect: {rule: tagged}
"""
STORY = """objective: story
summary: A story, word by word.
owner: tests
responses: stream
context:
  member_id: {type: string}
timeout_ms: 60000
rules:
  - id: default
    serve: storyteller
"""
LAYERS = """home: {key: member_id, experiments: {"7": [0, 4999]}}
"""


def write_console_rules(folder: Path, main: str = MAIN) -> Path:
    """The rules directory of the stack: `main` has every kind of rule, `many` has a thousand, `story` streams."""
    on = {name: ["a", "b"] for name in ("versioned", "versioned_pipeline", "storyteller")}
    rows = [f"{{id: r-{n:04}, when: {{country: C{n}}}, serve: versioned/{1 + n % 3}}}" for n in range(MANY - 1)]
    many = ",\n  ".join([*rows, "{id: default, serve: versioned/1}"])
    write_rules(folder, {"a": 1, "b": 1}, on, many=f"[{many}]")
    (folder / "objectives" / "story.yaml").write_text(STORY)
    (folder / "cases").mkdir(exist_ok=True)
    (folder / "cases" / "main.yaml").write_text(CASES)
    (folder / "layers.yaml").write_text(LAYERS)
    (folder / "objectives" / "main.yaml").write_text(main)
    return folder


@dataclass(frozen=True, slots=True)
class Operated:
    """The stack, and how its operators ask it."""

    running: RunningStack
    rules: Path

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def token(self) -> str:
        return self.running.known.operator_token

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as response:
            return json.load(response)

    def infer(self, **context: Any) -> Any:
        return self.ask("/v1/objectives/main/infer", {"context": context, "inputs": {"SLEEP_MS": [0]}})


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    need("playwright", "axe_playwright_python", "chromium")
    root = tmp_path_factory.mktemp("console")
    models = make_repository(root / "models", "versioned", "versioned_pipeline", "storyteller")
    with (models / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    (models / "versioned" / "samples").mkdir()
    (models / "versioned" / "samples" / "quick.json").write_text('{"inputs": {"SLEEP_MS": [3]}}')
    rules = write_console_rules(root / "rules")
    variables = {"TIDEGATE_CONSOLE_WRITES": "true", "TIDEGATE_OPERATOR_TOKEN": "of-the&tests%41#only"}
    with running_stack(rules, models, root / "errors", variables=variables) as running:
        yield Operated(running, rules)
        assert "Traceback" not in running.errors


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser. Not for longer: Playwright keeps an event loop running in the thread of the tests, where none can start another."""
    need("playwright", "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@dataclass(slots=True)
class Watched:
    """What a page does that it must not: errors, violations of its policy, requests to other hosts."""

    own: str
    expected: str = r"(?!)"
    faults: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        page.on("console", lambda message: message.type in {"error", "warning"} and self.fault(message.text))
        page.on("pageerror", lambda error: self.fault(f"raised: {error}"))
        page.on("request", lambda request: self.requested(request.url))

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def requested(self, url: str) -> None:
        self.urls.append(url)
        if urlsplit(url).scheme in {"http", "https", "ws", "wss"} and urlsplit(url).netloc != urlsplit(self.own).netloc:
            self.fault(f"asks another host: {url}")

    def judge(self) -> None:
        assert not [fault for fault in self.faults if not re.search(self.expected, fault)]


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page, whose policy does not let Playwright's own wait evaluate text."""
    assert eventually(lambda: page.evaluate(expression)), expression


Open = Callable[..., "Page"]


@pytest.fixture
def watched(stack: Operated) -> Iterator[Watched]:
    found = Watched(stack.url)
    yield found
    found.judge()


@pytest.fixture
def open_page(browser: Browser, stack: Operated, watched: Watched) -> Iterator[Open]:
    """Opens a page of the console as a signed-in operator; `token` None: as someone without a token."""
    contexts: list[BrowserContext] = []

    def opened(path: str, *, token: str | None = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        if token is not None:
            value = json.dumps(token or stack.token)
            context.add_init_script(f"sessionStorage.setItem('tidegate-token', {value})")
        page = context.new_page()
        watched.attach(page)
        page.goto(stack.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
