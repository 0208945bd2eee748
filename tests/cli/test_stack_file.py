"""The file by which commands find a stack: only its user's, only on this machine, and gone with the stack."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tidegate import stack_file
from tidegate.cli.stacks import read_fleet
from tidegate.errors import UnavailableError
from tidegate.stack_file import StackFile

PORT = 18080
STACK = StackFile(f"http://127.0.0.1:{PORT}", os.getpid(), "a-token-of-the-tests-0123", "a-secret-of-the-tests")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    stack_file.prepare()
    return tmp_path / "tidegate"


def test_it_is_found_by_every_name_of_this_machine_and_by_no_other() -> None:
    with stack_file.written(STACK):
        for url in (f"http://127.0.0.1:{PORT}", f"http://localhost:{PORT}/", f"http://[::1]:{PORT}"):
            assert stack_file.find(url) == STACK
        for url in (f"http://10.0.0.1:{PORT}", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:18081", "http://[", "x"):
            assert stack_file.find(url) is None
    assert stack_file.find(STACK.url) is None
    assert "token" not in repr(STACK).replace("operator_token", "")


def test_a_file_that_is_no_stacks_is_none(folder: Path) -> None:
    path = folder / f"up-{PORT}.json"
    for content in ("", "[]", "{}", '{"url": 1}', "[" * 50_000):
        path.write_text(content)
        path.chmod(0o600)
        assert stack_file.find(STACK.url) is None


def test_a_stack_that_ends_leaves_the_file_of_the_next_one() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        following = StackFile(STACK.url, other.pid, "another-token-0123456789", "another-secret")
        ending = stack_file.written(STACK)
        ending.__enter__()
        with stack_file.written(following):
            ending.__exit__(None, None, None)
            assert stack_file.find(STACK.url) == following
        other.kill()


def test_what_a_killed_stack_has_left_is_removed(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    manager = stack_file.written(StackFile(STACK.url, ended.pid, STACK.operator_token, STACK.management_secret))
    manager.__enter__()
    (folder / f"up-{PORT}.sock").touch()
    (folder / f".up-{PORT}.json.{ended.pid}").touch()
    assert stack_file.find(STACK.url) is None, "another may have its port now"
    stack_file.prepare()
    assert list(folder.iterdir()) == []


def test_its_folder_keeps_others_out(folder: Path) -> None:
    folder.chmod(0o755)
    stack_file.prepare()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of this user's own"):
        stack_file.prepare()


def test_the_token_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, str | None]] = []

    class Redirecting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append((self.path, self.headers.get("authorization")))
            self.send_response(302 if self.path == "/v1/fleet" else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    monkeypatch.setenv("TIDEGATE_OPERATOR_TOKEN", STACK.operator_token)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(UnavailableError):
            read_fleet(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert received == [("/v1/fleet", f"Bearer {STACK.operator_token}"), ("/elsewhere", None)]
