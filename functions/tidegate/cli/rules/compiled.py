"""The rules of a directory for a command that needs them sound, or the findings and exit code 1."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from tidegate.cli.columns import say
from tidegate.cli.rules.options import print_json
from tidegate.errors import Finding, RulesError
from tidegate.rules import Engine, load_bundle
from tidegate.rules.compiler import emit
from tidegate.rules.directory import read_directory
from tidegate.rules.program import Program
from tidegate.rules.shape import did_you_mean


def sound_program(directory: Path, *, as_json: bool) -> Program:
    """The rules of a directory. Where they have findings, prints them and ends the command with exit code 1."""
    program, findings = read_directory(directory)
    if findings:
        end_with_findings(findings, as_json=as_json)
    return program


def compiled(directory: Path, *, as_json: bool) -> tuple[Program, Engine, bytes]:
    """The rules of a directory, their engine and their bundle; findings end the command as in `sound_program`."""
    program = sound_program(directory, as_json=as_json)
    data = emit(program)
    return program, load_bundle(data), data


def end_with_findings(findings: list[Finding], *, as_json: bool) -> NoReturn:
    """Print findings, as text on standard error or as JSON on standard output, and exit with 1."""
    if as_json:
        print_json({"ok": False, "findings": findings_json(findings)})
    else:
        say(str(RulesError(findings)), err=True)
    raise click.exceptions.Exit(1)


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as plain JSON values."""
    return [
        {
            "file": each.file,
            "line": each.line,
            "column": each.column,
            "rule": each.rule,
            "message": each.message,
            "hint": each.hint,
        }
        for each in findings
    ]


def check_objective(objective: str, known: Collection[str]) -> None:
    """Refuse the name of an unknown objective in `--objective` as wrong usage, and suggest another."""
    if objective not in known:
        hint = did_you_mean(objective, set(known), "objective")
        raise click.BadParameter(f"unknown objective {objective!r}: {hint}", param_hint="--objective")
