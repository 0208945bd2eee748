"""`python -m demo.screenshots`: run the examples' stack with traffic, and write pictures of its console to docs/console/.

They show what a stack shows after some minutes of requests and one publish; `--minutes` says how many.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tidegate import stack_file

from demo.caller import ask

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path("docs/console")
MOST_BYTES = 150_000
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
PER_S = 12
ORDERS = {"ORDER_DAY": [10, 140, 300], "ORDER_UNITS": [2, 1, 4], "ORDER_VALUE": [28.0, 13.5, 61.0], "AS_OF": 365}
CONTEXT = '#context={"member_id":"22","country":"US","device":"tv","app_version":"9.0"}'
CANARY, LARGER = "title_ranking@champion: 95, title_ranking_svd: 5", "title_ranking@champion: 80, title_ranking_svd: 20"

PICTURES = (
    ("overview", "/console", "light", DESKTOP, "2 endpoints ready"),
    ("objective", "/console/objectives/title_ranking", "light", {"width": 1280, "height": 960}, "of contexts"),
    ("playground", f"/console/playground/title_ranking{quote(CONTEXT, safe='#=')}", "dark", {"width": 1280, "height": 820}, "by rule"),
    ("rules", "/console/rules", "light", {"width": 1280, "height": 760}, "Zoom in"),
    ("differences", "/console/rules/diff", "light", {"width": 1280, "height": 640}, "What moves of title_ranking"),
    ("history", "/console/rules/history", "dark", {"width": 1280, "height": 460}, "the stack was started"),
    ("model", "/console/models/title_ranking_ease", "light", DESKTOP, "Blast radius"),
    ("fleet", "/console/fleet", "dark", DESKTOP, "Placement of each model"),
    ("phone", "/console", "dark", PHONE, "2 endpoints ready"),
)  # fmt: skip
"""Name, address, theme, size, and a text or a label that shows that the page is whole."""


def main() -> int:
    """Write the pictures. The exit code is 0 if every page was drawn, and is small enough."""
    parser = argparse.ArgumentParser(prog="python -m demo.screenshots")
    parser.add_argument("--minutes", type=float, default=4.0)
    minutes: float = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(shutil.copytree("routing_rules", Path(folder) / "routing_rules"))
        with _stack(rules) as url:
            stop = threading.Event()
            threads = [threading.Thread(target=_call, args=(url, number, stop), daemon=True) for number in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(minutes * 30)
            _publish(rules)
            time.sleep(minutes * 30)
            sizes = _pictures(url)
            stop.set()
            for thread in threads:
                thread.join()
    for name, size in sizes.items():
        print(f"{FOLDER / name}.png {size / 1000:.0f} kB")
    return int(max(sizes.values()) > MOST_BYTES)


@contextmanager
def _stack(rules: Path) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("tidegate")), "up", "--port", "0", "--rules", str(rules)]
    command += ["--models", "triton_models"]
    environment = {**os.environ, "TIDEGATE_CONSOLE_WRITES": "true"}
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert stack.stdout is not None
        ready = stack.stdout.readline().split()
        if len(ready) != 2:
            raise SystemExit("the stack did not start")
        yield ready[1]
    finally:
        stack.terminate()
        stack.wait(60)


def _publish(rules: Path) -> None:
    """Save a change of the rules, which the stack publishes."""
    file = rules / "objectives" / "title_ranking.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(CANARY, LARGER), encoding="utf-8")


def _call(url: str, number: int, stop: threading.Event) -> None:
    """Send requests whose rate rises and falls, until told to stop."""
    draw = random.Random(number)
    while not stop.wait(4 / PER_S / (1 + 0.5 * math.sin(time.time() / 40))):
        ask(url, *_request(draw))


def _request(draw: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
    kind = draw.random()
    if kind < 0.6:
        member = str(draw.randrange(100_000))
        context: dict[str, Any] = {"member_id": member, "country": draw.choice(["US", "CA", "DE", "JP"])}
        context |= {
            "device": draw.choice(["tv", "mobile", "web"]),
            "app_version": draw.choice(["7.9", "8.1", "8.4", "9.0"]),
        }
        return "title_ranking", context | ({"is_kids": True} if draw.random() < 0.2 else {}), {"MEMBER_ID": member}
    if kind < 0.85:
        words = draw.choice(["toy stori", "robots and space ships", "a shark in the sea", "cowboys"])
        return "title_search", {"intent": draw.choice(["name", "theme"])}, {"QUERY": words}
    customer = {"customer_id": f"c-{draw.randrange(500)}", "tier": draw.choice([1, 2, 3]), "lifetime_value": 900.5}
    return "purchase_propensity", customer, ORDERS


def _pictures(url: str) -> dict[str, int]:
    """Write each picture; their sizes in bytes."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        sizes = {picture[0]: _picture(browser, url, *picture) for picture in PICTURES}
        browser.close()
    return sizes


def _picture(browser: Browser, url: str, name: str, path: str, theme: Any, size: Any, whole: str) -> int:
    stack = stack_file.find(url)
    assert stack is not None
    context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{url}/console#token={stack.operator_token}")
    page.locator("h1").first.wait_for()
    page.goto(url + path)
    page.get_by_text(whole).or_(page.get_by_label(whole)).first.wait_for(state="attached", timeout=60_000)
    page.locator("main .waiting").first.wait_for(state="detached", timeout=60_000)
    page.wait_for_timeout(1500)  # what is read after the page is drawn, such as its charts
    picture = page.screenshot(path=FOLDER / f"{name}.png")
    context.close()
    return len(picture)


if __name__ == "__main__":
    sys.exit(main())
