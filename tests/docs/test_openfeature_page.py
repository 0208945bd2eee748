"""The Python of docs/openfeature.md evaluates an objective of the examples."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tidegate.rules import compile_directory, load_bundle

from tests.docs.blocks import ROOT, blocks
from tests.support.parts import PARTS, need
from tests.web.conftest import gateway_app, serving


def test_the_pages_python_evaluates_a_flag(tmp_path: Path) -> None:
    need("openapi-python-client")
    (block,) = (each for each in blocks("docs/openfeature.md") if each.language == "python")
    engine = load_bundle(compile_directory(ROOT / "routing_rules"))
    script = tmp_path / "page.py"
    script.write_text(block.text)
    with serving(gateway_app(engine, {})) as host:
        command = [str(PARTS["openapi-python-client"].path), str(script), f"http://{host.url}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    decision = engine.decide("title_ranking", {"member_id": "42", "country": "US"})
    value, reason, key = done.stdout.split()
    assert (value, key) == (decision.target.name, decision.shards[0])
    assert reason in ("TARGETING_MATCH", "SPLIT")
