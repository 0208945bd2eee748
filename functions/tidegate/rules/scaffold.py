"""A first, valid objective with its cases, as text for its author to go on from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from tidegate.rules.schemas import FOLDER, editor_line

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*")
_RESERVED = frozenset({"true", "false", "null"})


def best_model(objective: str, models: Iterable[str], aliases: Mapping[str, str]) -> str | None:
    """The target that suits a new objective: its own champion, else a model named after it, else the only one of the fleet;
    None where nothing says which of several it is, as the objective may be live as soon as it is written."""
    champion = f"{objective}@champion"
    if champion in aliases:
        return champion
    names = list(models)
    return next((name for name in names if name.startswith(objective)), names[0] if len(names) == 1 else None)


def objective_text(objective: str, target: str) -> str:
    """The text of `objectives/<objective>.yaml`: one attribute, one rule that serves `target`."""
    return f"""{editor_line("objective", f"../{FOLDER}")}
objective: {scalar(objective)}
summary: Not described yet.
owner: nobody yet
context:                  # what callers say about a request, and rules may look at
  member_id: {{type: string, required: true}}
sticky_key: member_id     # whose value makes a split sticky
timeout_ms: 1000
rules:                    # tried from the top; the first that matches is taken
  - id: default           # without `when` it matches every request: keep it last
    serve: {scalar(target)}
"""


def cases_text(objective: str, target: str) -> str:
    """The text of `cases/<objective>.yaml`, with a case for the rule and one for a context that is refused."""
    return f"""{editor_line("cases", f"../{FOLDER}")}
objective: {scalar(objective)}
cases:
  - name: every member gets the default
    context: {{member_id: "1"}}
    expect: {{rule: default, target: {scalar(target)}, reason: serve}}
  - name: a request without a member is refused
    context: {{}}
    expect: {{error: member_id}}
"""


def scalar(text: str) -> str:
    """A name as a YAML scalar that reads as text."""
    is_plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _RESERVED
    return text if is_plain else json.dumps(text)
