"""KServe's own Python client works unchanged. It runs in a process and an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tidegate.rules import Engine

from tests.support.parts import PARTS, need
from tests.web.conftest import Host, gateway_app, serving

SCRIPT = Path(__file__).with_name("kserve_client.py")


def test_kserves_client_asks_and_infers(gateway: Host, engine: Engine) -> None:
    need("kserve")
    with serving(gateway_app(engine, {})) as unready:
        command = [str(PARTS["kserve"].path), str(SCRIPT), f"http://{gateway.url}", f"http://{unready.url}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    assert (seen["live"], seen["ready"], seen["model_ready"], seen["unknown_ready"]) == (True, True, True, False)
    assert (seen["without_rules"], seen["not_ready"]) == (True, 400)
    assert "Request for unknown model: 'nobody'" in seen["error"]
    for kind, media_type in (("json", "application/json"), ("binary", "application/octet-stream")):
        answer = seen[kind]
        assert answer["outputs"] == {
            "OUTPUT0": [[number + 1 for number in range(16)]],
            "OUTPUT1": [[number - 1 for number in range(16)]],
        }
        assert (answer["id"], answer["rule"], answer["type"]) == ("42", "pinned", media_type)
