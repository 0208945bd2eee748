"""Rules and logs for the tests of `tidegate rules replay`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cli.rules_runner import write

LAYERS = """\
home: {key: member_id, holdout: [0, 499], experiments: {ab: [500, 5499]}}
"""

RANKING = """\
objective: ranking
context:
  member_id: {type: string, required: true}
  country: {type: string}
  device: {type: string, values: [tv, web]}
  age: {type: integer}
sticky_key: member_id
rules:
  - {id: holidays, active: {from: "2026-12-18T00:00:00Z", until: "2027-01-07T00:00:00Z"}, serve: better/3}
  - {id: adults, when: {age: {gte: 18}}, serve: better}
  - {id: ab, when: {country: US}, experiment: {id: ab, layer: home, cells: {1: {serve: base, weight: 2}, 2: better}}}
  - {id: canary, when: {device: tv}, split: {base@champion: 80, better: 20}}
  - {id: default, serve: base}
"""

SEARCH = """\
objective: search
context: {member_id: {type: string}, mode: {type: string}}
sticky_key: member_id
rules:
  - {id: ab, experiment: {id: outside, allocate: caller, cells: {a: base, b: better}}}
  - {id: mode, when: {mode: deep}, serve: better}
"""

ANONYMOUS = """\
objective: anonymous
context: {mode: {type: string}}
rules:
  - {id: ab, experiment: {id: outside, allocate: caller, cells: {a: base, b: better}}}
  - {id: default, serve: base}
"""


def write_rules(root: Path, files: Mapping[str, str] | None = None) -> Path:
    """A rules directory with one of everything that a replay tells apart, `files` laid over it."""
    mine = {
        "layers.yaml": LAYERS,
        "objectives/ranking.yaml": RANKING,
        "objectives/search.yaml": SEARCH,
        "objectives/anonymous.yaml": ANONYMOUS,
    }
    return write(root, {**mine, **(files or {})})


def line(objective: str, context: Mapping[str, Any], **more: Any) -> str:
    """One line of a log, without its end."""
    return json.dumps({"objective": objective, "context": context, **more})


def write_log(file: Path, lines: Iterable[str]) -> Path:
    """A log of these lines."""
    file.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return file
