"""The console's app by itself: its files with their headers, and what it answers to whom."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tidegate.console import attention
from tidegate.console.console import Console
from tidegate.errors import DamagedError
from tidegate.web.callers import Operators
from tidegate.web.console.app import create_console
from tidegate.web.console.assets import FOLDER, MEDIA_TYPES, SECURITY, assets
from tidegate.web.console.forwarding import MOST_BODY_BYTES

TOKEN = "a-token-of-the-tests-0123"
AS_OPERATOR = ((b"authorization", f"Bearer {TOKEN}".encode()),)
HEADERS = {name.decode(): value.decode() for name, value in SECURITY}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)


class Answers(Console):
    """A console whose answers a test sets."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.rolled_back: list[tuple[Any, str]] = []

    async def overview(self) -> Any:
        if self.error is not None:
            raise self.error
        return {"name": "<script>alert(1)</script>"}

    async def roll_back(self, body: Any, by: str) -> Any:
        self.rolled_back.append((body, by))
        return {"ok": True}

    async def metrics(self, accepted: str) -> tuple[str, bytes] | None:
        return ("text/plain; version=0.0.4", b"up 1\n") if "text" in accepted else None


def ask(
    console: Console,
    path: str,
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = AS_OPERATOR,
    body: bytes = b"",
    query: bytes = b"",
    folder: Path = FOLDER,
) -> tuple[int, dict[str, str], bytes]:
    """Call the app as the control plane does."""
    app = create_console(
        console, admit=Operators(TOKEN).check, author_of=lambda scope: f"ana from {scope['path']}", folder=folder
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": query, "headers": list(headers), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    start, answer = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, answer["body"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "index.html": "<!doctype html>", "app.js": "1", "app.css": "a{}", "vendor/lib-0123456789abcdef.mjs": "2", "icon.svg": "<svg/>",
        "secret.py": "token", "vendor/LICENSE": "MIT",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_have_their_types_and_the_headers_that_protect_the_page(folder: Path) -> None:
    types = {
        "": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8", "/app.css": "text/css; charset=utf-8",
        "/icon.svg": "image/svg+xml", "/vendor/lib-0123456789abcdef.mjs": "text/javascript; charset=utf-8",
    }  # fmt: skip
    for path, media_type in types.items():
        # They need no token.
        status, headers, _ = ask(Answers(), f"/console{path}", headers=(), folder=folder)
        assert (status, headers["content-type"]) == (200, media_type), path
        assert {name: headers[name] for name in HEADERS} == HEADERS
    assert HEADERS["content-security-policy"] == POLICY
    assert (HEADERS["x-content-type-options"], HEADERS["referrer-policy"]) == ("nosniff", "no-referrer")


def test_a_file_is_asked_for_again_only_where_it_may_have_changed(folder: Path) -> None:
    _, headers, body = ask(Answers(), "/console/app.js", folder=folder)
    assert headers["cache-control"] == "no-cache"
    for known in (headers["etag"], f'"other", W/{headers["etag"]}'):
        status, again, empty = ask(
            Answers(), "/console/app.js", headers=((b"if-none-match", known.encode()),), folder=folder
        )
        assert (status, empty, again["etag"]) == (304, b"", headers["etag"])
    assert body == b"1"
    assert ask(Answers(), "/console/app.js", headers=((b"if-none-match", b'"other"'),), folder=folder)[0] == 200
    _, hashed, _ = ask(Answers(), "/console/vendor/lib-0123456789abcdef.mjs", folder=folder)
    assert hashed["cache-control"] == "public, max-age=31536000, immutable"


def test_every_path_of_the_page_answers_the_page_and_no_path_leads_out_of_its_folder(folder: Path) -> None:
    for path in ("", "/", "/fleet", "/rules/title_ranking", "/models/a/b", "/models/bert.v2"):
        assert ask(Answers(), f"/console{path}", folder=folder)[2] == b"<!doctype html>", path
    outside = (
        "/secret.py",
        "/missing.js",
        "/../secret.py",
        "/vendor/../../pyproject.toml",
        "//etc/passwd.txt",
        "/.env",
        "/vendor/x.mjs",
    )
    for path in outside:
        status, _, body = ask(Answers(), f"/console{path}", folder=folder)
        assert (status, json.loads(body)["type"]) == (404, "urn:tidegate:problem:not-found"), path
    assert ask(Answers(), "/console", "POST", folder=folder)[0] == 405


def test_the_shipped_page_has_no_script_or_style_that_the_policy_blocks() -> None:
    found = assets()
    assert "index.html" in found
    page = found["index.html"].body.decode()
    assert " style=" not in page
    assert "<style" not in page
    assert " on" + "click=" not in page
    for script in page.split("<script")[1:]:
        assert "src=" in script.partition(">")[0], "an inline script would be blocked"
    assert all(Path(name).suffix in MEDIA_TYPES for name in found)


def test_answers_are_data_that_no_browser_takes_for_a_page_and_nobody_stores() -> None:
    status, headers, body = ask(Answers(), "/v1/overview")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert json.loads(body) == {"name": "<script>alert(1)</script>"}


def test_errors_are_problem_documents_that_nobody_stores() -> None:
    status, headers, body = ask(Answers(), "/v1/overview", headers=())
    assert (status, headers["cache-control"]) == (401, "no-store")
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["type"] == "urn:tidegate:problem:operators-only"
    status, _, body = ask(Answers(DamagedError("the pointer is damaged")), "/v1/overview")
    assert (status, json.loads(body)["detail"]) == (503, "the pointer is damaged")
    status, _, body = ask(Answers(KeyError("member_id=4711")), "/v1/overview")
    assert status == 500
    assert b"4711" not in body
    assert ask(Answers(), "/v1/unknown")[0] == 404
    assert ask(Answers(), "/v1/overview", "POST")[0] == 405
    assert ask(Answers(), "/v1/rollback")[0] == 405
    assert ask(Answers(), "/v1/overview", query=b"token=abc")[0] == 400, "a token in an address would be in logs"


def test_a_token_counts_in_a_header_alone() -> None:
    assert ask(Answers(), "/v1/overview", headers=((b"cookie", f"token={TOKEN}".encode()),))[0] == 401
    assert ask(Answers(), "/v1/overview", headers=(), query=f"token={TOKEN}".encode())[0] == 401
    assert ask(Answers(), "/v1/overview", headers=((b"tidegate-operator", TOKEN.encode()),))[0] == 200


def test_streams_are_the_gateways() -> None:
    status, _, body = ask(Answers(), "/v1/events")
    assert (status, json.loads(body)["type"]) == (501, "urn:tidegate:problem:not-offered")


def test_metrics_are_in_the_format_that_is_accepted() -> None:
    status, headers, body = ask(Answers(), "/metrics", headers=(*AS_OPERATOR, (b"accept", b"text/plain")))
    assert (status, headers["content-type"], body) == (200, "text/plain; version=0.0.4", b"up 1\n")
    assert ask(Answers(), "/metrics")[0] == 404


POST = (*AS_OPERATOR, (b"content-type", b"application/json"), (b"host", b"127.0.0.1:8080"))


def post(body: bytes, *headers: tuple[bytes, bytes], base: Any = POST) -> tuple[int, Answers]:
    console = Answers()
    return ask(console, "/v1/rollback", "POST", (*base, *headers), body)[0], console


def test_a_post_is_json_of_the_same_site() -> None:
    status, console = post(b'{"to": "live~1"}', (b"origin", b"http://127.0.0.1:8080"))
    assert (status, console.rolled_back) == (200, [({"to": "live~1"}, "ana from /v1/rollback")])
    for origin in (b"http://evil.example", b"null", b"http://127.0.0.1:80800", b"http://127.0.0.1"):
        status, console = post(b"{}", (b"origin", origin))
        assert (status, console.rolled_back) == (403, []), origin
    for media_type in (b"text/plain", b"application/x-www-form-urlencoded"):
        status, console = post(b"{}", base=(*AS_OPERATOR, (b"content-type", media_type)))
        assert (status, console.rolled_back) == (415, [])
    assert post(b"{}", base=AS_OPERATOR)[0] == 415, "a browser sends a blob without a media type"
    assert post(b"{}", (b"content-encoding", b"gzip"))[0] == 415
    for body in (b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"[" * 100_000):
        assert post(body)[0] == 400, body[:20]
    assert post(b" " * (MOST_BODY_BYTES + 1))[0] == 413


def test_every_page_that_the_overview_leads_to_is_one_of_the_page() -> None:
    """Names that the page's script has, and those of `tidegate.console.attention`."""
    script = assets()["main.js"].body.decode()
    sections = set(re.findall(r'^  \["([a-z]*)", "', script, re.MULTILINE))
    assert {"", "objectives", "rules", "fleet"} <= sections
    linked = re.findall(r'"/console/([a-z]+)', inspect.getsource(attention))
    assert len(linked) > 10
    assert set(linked) <= sections
