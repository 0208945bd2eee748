"""Clients that others' tools generate from `/openapi.json?objective=…` call the gateway. They run in an environment of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tidegate.rules import compile_directory, load_bundle

from tests.support.parts import PARTS, need
from tests.web.conftest import HERE, Host, gateway_app, serving

SCRIPT = Path(__file__).with_name("generated_clients.py")
TYPING = """
objective: typing
summary: Have an attribute of every type.
owner: tests
context:
  member_id: {type: string, required: true}
  device: {type: string, values: [tv, mobile, web], default: web}
  level: {type: integer, values: [1, 2], default: 1}
  weight: {type: number, values: [0.5, 1], default: 1}
  app_version: {type: version, values: ["8.2", "9.0"]}
  is_kids: {type: boolean, default: false}
  tags: {type: set, values: [new, old], default: [old]}
unknown_attributes: refuse
timeout_ms: 5000
rules:
  - id: all
    when: {device: tv, level: 2, weight: 0.5, app_version: "8.2.0", is_kids: true, tags: {contains_all: [new]}}
    serve: echo
  - id: default
    serve: echo
"""


def test_generated_clients_call_with_types(triton: Host, tmp_path: Path) -> None:
    need("openapi-python-client")
    rules = shutil.copytree(HERE / "rules", tmp_path / "rules")
    (rules / "objectives" / "typing.yaml").write_text(TYPING)
    clients = tmp_path / "clients"
    clients.mkdir()
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": triton.port})) as host:
        command = [str(PARTS["openapi-python-client"].path), str(SCRIPT), str(clients), f"http://{host.url}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    by_client, by_models = seen["adding"]
    assert by_client.pop("rules") == ["pinned", "pinned", "newest"]
    assert by_models.pop("rules") == ["pinned", "newest"]
    for each in (by_client, by_models):
        assert each == {"sum": [[number + 1 for number in range(16)]], "endpoints": 1, "problem": 400}
    assert seen["typing"] == [["all", "1.5", "2.0"]] * 2
