"""Runs `tidegate rules …` in this process, and writes small rules directories to run it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.docs.blocks import ROOT

RULES = ROOT / "routing_rules"

FLEET = """\
shards: {cpu: {replicas: 1}}
models: {base: {shards: [cpu]}, better: {shards: [cpu]}}
aliases: {base@champion: base}
"""

RANKING = """\
objective: ranking
context: {member_id: {type: string, required: true}, country: {type: string}}
sticky_key: member_id
rules:
  - {id: home, when: {country: SE}, serve: better, parameters: {top_k: 20}}
  - {id: canary, when: {country: [US, CA]}, split: {base@champion: 90, better: 10}}
  - {id: default, serve: base}
"""


def rules(*arguments: object) -> Result:
    """The outcome of `tidegate rules` with these arguments; an exception that escapes fails the test."""
    return CliRunner().invoke(main, ["rules", *map(str, arguments)], catch_exceptions=False)


def rules_json(*arguments: object, exit_code: int = 0) -> Any:
    """What `--json` prints."""
    result = rules(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below `root`, over a sound fleet and one sound objective."""
    for name, text in ({"fleet.yaml": FLEET, "objectives/ranking.yaml": RANKING} | files).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root
