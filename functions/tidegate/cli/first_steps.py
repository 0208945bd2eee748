"""The commands to try that `tidegate up` prints once it is ready, with a request of these rules that was answered."""

from __future__ import annotations

import http.client
import json
import shlex
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.cli.stacks import LOCAL_STACK
from tidegate.errors import RequestError
from tidegate.language.layout import CASES
from tidegate.rules import Engine

LONGEST_BODY = 400
"""Characters of a request that people would still paste."""

MOST_TRIED = 12
TIMEOUT_S = 5.0
EXAMPLES: Mapping[str, Any] = {"string": "1", "integer": 1, "number": 1.0, "boolean": True, "version": "1.0", "set": []}


def first_steps(url: str, engine: Engine, rules: Path, models: Path, *, has_console: bool) -> list[str]:
    """Return the lines to print. Their request was sent, and answered with 200: its context is from the cases of the rules
    directory, its inputs are from the golden requests of the model repository."""
    stack = "" if url == LOCAL_STACK else f" --stack {url}"
    lines = ["Try, in another terminal:"]
    request = next(_requests(url, engine, rules, models), None)
    if request is not None:
        address, body = request
        lines.append(f"  curl -s {address} -H 'content-type: application/json' -d {shlex.quote(body)}")
    lines.append(f"  tidegate status{stack}")
    lines.append(f"  tidegate publish --rules {shlex.quote(str(rules))} --dry-run{stack}")
    if has_console:
        # Without its token: readers of a log need not have it.
        lines.append(f"The console, at {url}/console: `tidegate console{stack}` prints the link that opens it.")
    lines.append(f"The fleet as JSON: tidegate status --json{stack}, as {url}/v1/fleet asks for the operators' token.")
    lines.append(f"Changes of {rules} are followed.")
    return lines


def _requests(url: str, engine: Engine, rules: Path, models: Path) -> Iterator[tuple[str, str]]:
    """Yield the address and body of requests that are answered: inferences first, then decisions."""
    found = list(_decided(engine, rules))[:MOST_TRIED]
    tried = [
        (f"{objective}/infer", {"context": context, "inputs": inputs})
        for objective, context, model in found
        for inputs in _inputs(models / model)
    ]
    tried += [(f"{objective}/resolve", {"context": context}) for objective, context, _ in found]
    for path, request in tried:
        address, body = f"{url}/v1/objectives/{path}", json.dumps(request, ensure_ascii=False)
        if len(body) <= LONGEST_BODY and _is_answered(address, body):
            yield address, body


def _decided(engine: Engine, rules: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield objectives with a context and the model that it decides, one of each objective first."""
    smallest: list[tuple[str, Mapping[str, Any]]] = [
        (
            name,
            {
                each.name: (each.values or (EXAMPLES[each.type],))[0]
                for each in contract.attributes.values()
                if each.required
            },
        )
        for name, contract in engine.objectives.items()
    ]
    for objective, context in [*smallest, *_cases(rules, engine)]:
        try:
            yield objective, context, engine.decide(objective, context).target.model
        except RequestError:
            continue


def _cases(rules: Path, engine: Engine) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the objective and the context of each case of a rules directory."""
    if not (rules / CASES).is_dir():
        return []
    # It needs pydantic, whose import takes 0.1 s.
    from tidegate.analysis.cases.reading import read_cases

    cases, _ = read_cases(rules, set(engine.objectives))
    return [(case.objective, case.context) for case in cases]


def _inputs(folder: Path) -> Iterator[Any]:
    """Yield the inputs of a model's golden requests."""
    for file in sorted((folder / "samples").glob("*.json")):
        try:
            sample = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(sample, dict) and "inputs" in sample:
            yield sample["inputs"]


def _is_answered(address: str, body: str) -> bool:
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})  # noqa: S310  # ours
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False
