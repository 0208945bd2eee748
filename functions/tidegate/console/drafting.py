"""Judges edited rules: findings with their lines, the decision for a context, and what would move against what is live."""

from __future__ import annotations

import tempfile
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tidegate.analysis.compare.comparable import as_files, comparable
from tidegate.analysis.compare.report import compare
from tidegate.analysis.compare.revision import Revision, open_revision
from tidegate.analysis.proving import prove
from tidegate.analysis.reach.findings import CheckFinding, author_error
from tidegate.console.rendering import rendered
from tidegate.console.rules_directory import all_files
from tidegate.errors import ContextError, Finding
from tidegate.rules.bundle import rules_of
from tidegate.rules.nearest import nearest


def judge(payload: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Judge the rules that `files` make of the present ones, as of `now` in Unix seconds.

    Args:
        payload: `files` (text by path), `objective`, `context` (or null), `directory` (the present rules, or null: those of the
            bundle), and `bundle` (what is live, base64, or null).
    """
    live = None if payload["bundle"] is None else open_revision(b64decode(payload["bundle"]))
    with tempfile.TemporaryDirectory(prefix="tidegate-draft-") as folder:
        _write(Path(folder), payload, live)
        proof = prove(folder, at=now)
    findings = [each.as_dict() for each in proof.findings]
    answer: dict[str, Any] = {
        "ok": proof.holds,
        "revision": proof.revision,
        "summary": proof.summary,
        "findings": findings,
        "cases": {"passed": proof.cases.passed, "failed": [asdict(each) for each in proof.cases.failures]},
        "decision": None,
        "explanation": None,
        "refused": None,
        "moves": None,
    }
    if proof.bundle is None:
        return answer
    edited = open_revision(proof.bundle)
    objective = payload["objective"]
    if objective not in edited.objectives:
        answer |= {"ok": False, "findings": [*findings, _missing(objective, edited).as_dict()]}
    elif payload["context"] is not None:
        answer |= _decision(edited, objective, payload["context"], now)
    if live is not None:
        before, after = comparable(live, edited)
        answer["moves"] = compare(before, after, now, objective=objective).as_dict()
    return answer


def _missing(objective: str, edited: Revision) -> CheckFinding:
    likely = nearest(objective, edited.objectives)
    hint = f"did you mean {likely!r}?" if likely else f"write `objective: {objective}` in a file of objectives/"
    message = f"the rules have no objective {objective!r}, so nothing is decided for it"
    return author_error(Finding("objectives", 0, "", message, hint), objective=objective)


def _write(folder: Path, payload: Mapping[str, Any], live: Revision | None) -> None:
    if payload["directory"] is not None:
        present = all_files(Path(payload["directory"]))
    else:
        present = {} if live is None else {name: text.encode() for name, text in rendered(as_files(live)).items()}
    edited = {name: text.encode("utf-8", "replace") for name, text in payload["files"].items()}
    for name, data in {**present, **edited}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _decision(edited: Revision, objective: str, context: Mapping[str, Any], now: float) -> dict[str, Any]:
    try:
        explanation = edited.engine.explain(objective, context, at=now)
    except ContextError as error:
        # Its message names the attribute and never its value.
        return {"refused": {"attribute": error.attribute, "detail": str(error)}}
    found = explanation.as_dict(with_key=True)
    decision = found.pop("decision")
    if decision is not None:
        decision["revision"] = rules_of(decision["revision"])
    return {"decision": decision, "explanation": found}
