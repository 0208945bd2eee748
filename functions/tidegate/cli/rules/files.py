"""`tidegate rules new|schema`: a first objective, and the schemas for editors."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.findings import end_with_findings
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import FOLDER, not_written
from tidegate.language.directory import read_directory
from tidegate.language.documents import NAME, TARGET
from tidegate.language.layout import CASES, SUFFIXES
from tidegate.language.program import Program
from tidegate.language.schemas import FOLDER as SCHEMA_FOLDER
from tidegate.language.schemas import SCHEMAS, best_model, cases_text, objective_text, schema_text
from tidegate.language.semantics import target_problem

MAX_NAME_LENGTH = 128


@click.command()
@click.argument("objective")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("routing_rules"),
    show_default=True,
    help="The rules directory.",
)
@click.option("--model", help="The target: a model, model/version or alias of fleet.yaml.")
@AS_JSON
def new(objective: str, directory: Path, model: str | None, as_json: bool) -> None:
    """Write a first, valid OBJECTIVE with cases, to start from. Nothing is overwritten.

    Without --model it serves the champion of the objective, or a model of fleet.yaml that is named after it, or the only
    model. A stack that follows the directory serves it at once.
    """
    if re.fullmatch(NAME[1:-1], objective) is None or len(objective) > MAX_NAME_LENGTH:
        hint = f"write letters, digits, '.', '_' and '-' (at most {MAX_NAME_LENGTH}), a letter or digit first"
        raise click.BadParameter(f"{objective!r} cannot be the name of an objective: {hint}", param_hint="OBJECTIVE")
    if not directory.is_dir():
        message = f"{directory} is not a directory; `tidegate init` writes a whole first project, with one"
        raise click.BadParameter(message, param_hint="--dir")
    program, findings = read_directory(directory)
    of_fleet = [finding for finding in findings if Path(finding.file).stem == "fleet"]
    if of_fleet:
        end_with_findings(of_fleet, as_json=as_json)
    target = _target(objective, model, program)
    texts = {
        directory / "objectives" / f"{objective}.yaml": objective_text(objective, target),
        directory / CASES / f"{objective}.yaml": cases_text(objective, target),
    }
    _refuse_existing(objective, program, list(texts))
    try:
        for file, text in texts.items():
            file.parent.mkdir(exist_ok=True)
            with file.open("x", encoding="utf-8") as stream:
                stream.write(text)
    except OSError as error:
        raise not_written(file, error, "--dir") from error
    _report(directory, objective, target, list(texts), as_json=as_json)


def _target(objective: str, model: str | None, program: Program) -> str:
    world, fleet = program.world, program.world.fleet
    if model is None:
        found = best_model(objective, fleet.models, fleet.aliases)
        if found is None:
            names = ", ".join(sorted(fleet.models))
            message = f"say what {objective!r} serves with --model, as no model is named after it: one of {names}"
            raise click.UsageError(message)
        return found
    if re.fullmatch(TARGET[1:-1], model) is None:
        raise click.BadParameter(f"{model!r} is not a model, model/version or name@alias", param_hint="--model")
    problem = target_problem(model, world)
    if problem is not None:
        raise click.BadParameter(": ".join(problem), param_hint="--model")
    return model


def _refuse_existing(objective: str, program: Program, files: list[Path]) -> None:
    there = [other for file in files for suffix in SUFFIXES if (other := file.with_name(objective + suffix)).exists()]
    there += [Path(each.file) for each in program.objectives if each.name == objective]
    if there:
        raise click.BadParameter(f"{there[0]} has it already, and nothing is overwritten", param_hint="OBJECTIVE")


def _report(directory: Path, objective: str, target: str, files: list[Path], *, as_json: bool) -> None:
    rules, schema = shlex.quote(str(directory)), shlex.quote(str(directory / SCHEMA_FOLDER))
    steps = [
        f"say what it is for: summary, owner, context ({files[0]})",
        f"tidegate rules check {rules}",
        f"tidegate rules test {rules}",
    ]
    if not (directory / SCHEMA_FOLDER / "objective.json").exists():
        steps.append(f"tidegate rules schema --out {schema}   # for your editor")
    if as_json:
        print_json({"objective": objective, "target": target, "files": [str(file) for file in files], "next": steps})
        return
    for file in files:
        say(f"{file}: written")
    say(f"{objective} serves {target}. Next:")
    for step in steps:
        say(f"  {step}")


@click.command()
@click.option(
    "--out",
    type=FOLDER,
    default=f"routing_rules/{SCHEMA_FOLDER}",
    show_default=True,
    help="The folder of the schemas.",
)
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail if a file is missing or differs.")
@AS_JSON
def schema(out: Path, only_check: bool, as_json: bool) -> None:
    """Write the JSON Schemas with which editors complete and check the files of rules.

    Exit code 1, with --check: a schema is missing or differs from that of this version.
    """
    if not out.exists() and not out.parent.is_dir():
        raise click.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    states: dict[Path, str] = {}
    for name in SCHEMAS:
        file = out / f"{name}.json"
        text = schema_text(name)
        try:
            states[file] = _state(file, text)
            if states[file] != "current" and not only_check:
                out.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
                states[file] = "written"
        except OSError as error:
            raise click.BadParameter(f"{file} cannot be used: {error.strerror}", param_hint="--out") from error
    drifted = any(state in ("missing", "differs") for state in states.values())
    if as_json:
        print_json({"ok": not drifted, "files": [{"file": str(file), "state": states[file]} for file in states]})
    else:
        for file, state in states.items():
            click.echo(f"{file}: {state}")
        if drifted:
            click.echo(
                f"error: the schemas are not current: run `tidegate rules schema --out {shlex.quote(str(out))}`",
                err=True,
            )
    if drifted:
        raise click.exceptions.Exit(1)


def _state(file: Path, text: str) -> str:
    if not file.exists():
        return "missing"
    return "current" if file.read_bytes() == text.encode() else "differs"
