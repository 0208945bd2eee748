"""Every snippet of docs/replay.md runs, and the output and the picture on the page are what the command gives."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from tidegate.analysis.replay.records import records

from tests.docs.blocks import ROOT, blocks
from tests.support.parts import need
from tests.support.processes import reserve_port

PAGE = blocks("docs/replay.md")
FILES = {
    block.text.splitlines()[0].removeprefix("# "): block.text
    for block in PAGE
    if block.language == "yaml" and block.text.startswith("# ")
}
CALLER, PROXY, EXAMPLE = (block.text for block in PAGE if block.language == "python")
ACCESS_LOG = next(block.text for block in PAGE if block.language == "yaml" and block.text.startswith("access_log"))
LINES, OUTPUT = (block.text for block in PAGE if block.language == "text")
COMMAND = next(block.text for block in PAGE if block.language == "console").removeprefix("$ ")


@pytest.fixture(name="here")
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_snippet(text: str) -> dict[str, Any]:
    page: dict[str, Any] = {"__name__": "page"}
    exec(text, page)
    return page


def read_log(file: Path) -> list[tuple[str | None, Any]]:
    with file.open("rb") as stream:
        return [(objective, context) for _, objective, context, _ in records(stream)]


def test_the_lines_shown_are_records() -> None:
    found = list(records(io.BytesIO(LINES.encode())))
    assert [record[1] for record in found] == ["ranking", "search"]
    assert found[1][2]["allocations"] == {"search-2026": "semantic"}


def test_a_caller_records_all_requests_of_sampled_members(here: Path) -> None:
    record = run_snippet(CALLER)["record"]
    assert read_log(here / "requests.jsonl") == [("ranking", {"member_id": "42", "country": "US"})]
    with (here / "sampled.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(3000):
            record(stream, "ranking", {"member_id": f"m{number % 1000}"}, percent=10)
    members = [context["member_id"] for _, context in read_log(here / "sampled.jsonl")]
    assert 60 < len(set(members)) < 140
    assert len(members) == 3 * len(set(members))


def test_the_example_gives_what_the_page_shows(here: Path) -> None:
    for folder in ("old", "new"):
        for name, text in FILES.items():
            file = here / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            was, becomes = "{ranking@champion: 95, ranking_v2: 5}", "{ranking@champion: 80, ranking_v2: 20}"
            file.write_text(text.replace(was, becomes) if folder == "new" else text, encoding="utf-8")
    run_snippet(EXAMPLE)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", COMMAND], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert without_revisions(done.stdout) == without_revisions(OUTPUT)
    shown, drawn = (
        [element.text for element in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]
        for file in (ROOT / "docs/replay-shares.svg", here / "shares.svg")
    )
    assert shown == drawn, "docs/replay-shares.svg is the picture that the page's command draws"


def without_revisions(text: str) -> list[str]:
    return [re.sub(r"\b[0-9a-f]{12}\b", "…", line.rstrip()) for line in text.splitlines()]


# Envoy, the real one.


@contextmanager
def envoy(folder: Path) -> Iterator[str]:
    """Envoy with the page's access log, answering every request itself; gives its address."""
    port = reserve_port()
    types = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
        **yaml.safe_load(ACCESS_LOG),
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"name": "ingress", "address": address, "filter_chains": [chain]}
    (folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener]}}), encoding="utf-8")
    command = [
        Path(sys.executable).with_name("envoy"),
        "-c",
        "envoy.json",
        "--disable-hot-restart",
        "--log-level",
        "off",
    ]
    process = subprocess.Popen([*command, "--file-flush-interval-msec", "100"], cwd=folder)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("envoy did not listen within 60 s")


def test_envoys_access_log_becomes_a_log(here: Path) -> None:
    contexts = [{"member_id": '4"2', "country": "US"}, {"member_id": "Zoë"}]
    need("envoy")
    with envoy(here) as url:
        for path, context in (
            ("/v2/models/ranking/infer", contexts[0]),
            ("/v2/models/ranking/versions/1/infer", contexts[1]),
            ("/v1/objectives/search/infer?explain=true", contexts[1]),
            ("/v2/models/ranking/ready", contexts[0]),
            ("/v2/models/ranking/infer", None),
        ):
            headers = {} if context is None else {"Tidegate-Context": json.dumps(context)}
            with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=20) as answer:
                assert answer.status == 200
    run_snippet(PROXY)
    assert read_log(here / "requests.jsonl") == [
        ("ranking", contexts[0]),
        ("ranking", contexts[1]),
        ("search", contexts[1]),
    ]
