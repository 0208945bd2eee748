"""`tidegate rules new`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.rules.compiled import end_with_findings
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.rules.directory import read_directory
from tidegate.rules.language import NAME, TARGET
from tidegate.rules.layout import CASES, SUFFIXES
from tidegate.rules.program import Program
from tidegate.rules.scaffold import best_model, cases_text, objective_text
from tidegate.rules.schemas import FOLDER
from tidegate.rules.semantics import target_problem

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
@click.option("--model", help="What it serves: a model, model/version or alias of fleet.yaml.")
@AS_JSON
def new(objective: str, directory: Path, model: str | None, as_json: bool) -> None:
    """Write a first, valid OBJECTIVE with cases, to go on from. Nothing is overwritten.

    Without --model it serves the objective's champion, or a model of fleet.yaml that is named after it, or the only one there
    is. A stack that follows the directory serves it at once.
    """
    if re.fullmatch(NAME[1:-1], objective) is None or len(objective) > MAX_NAME_LENGTH:
        hint = f"write letters, digits, '.', '_' and '-' (at most {MAX_NAME_LENGTH}), a letter or digit first"
        raise click.BadParameter(f"{objective!r} is no name for an objective: {hint}", param_hint="OBJECTIVE")
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
        raise click.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="--dir") from error
    _report(directory, objective, target, list(texts), as_json=as_json)


def _target(objective: str, model: str | None, program: Program) -> str:
    world = program.world
    if model is None:
        found = best_model(objective, world.models, world.aliases)
        if found is None:
            names = ", ".join(sorted(world.models))
            message = f"say what {objective!r} serves with --model, as no model is named after it: one of {names}"
            raise click.UsageError(message)
        return found
    if re.fullmatch(TARGET[1:-1], model) is None:
        raise click.BadParameter(f"{model!r} is no model, model/version or name@alias", param_hint="--model")
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
    rules, schema = shlex.quote(str(directory)), shlex.quote(str(directory / FOLDER))
    steps = [
        f"say what it is for: summary, owner, context ({files[0]})",
        f"tidegate rules check {rules}",
        f"tidegate rules test {rules}",
    ]
    if not (directory / FOLDER / "objective.json").exists():
        steps.append(f"tidegate rules schema --out {schema}   # for your editor")
    if as_json:
        print_json({"objective": objective, "target": target, "files": [str(file) for file in files], "next": steps})
        return
    for file in files:
        say(f"{file}: written")
    say(f"{objective} serves {target}. Next:")
    for step in steps:
        say(f"  {step}")
