"""`tidegate rules test`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tidegate.cli.control import STACK
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, at_option
from tidegate.cli.rules.revisions import named_rules
from tidegate.cli.rules.test_report import CaseReport
from tidegate.rules.cases.reading import Case, read_cases
from tidegate.rules.cases.runner import coverage, run_cases


@click.command()
@click.argument("rules")
@click.option(
    "--cases",
    "cases_of",
    type=DIRECTORY,
    help="Rules directory whose cases are run, where RULES is none itself: live:.",
)
@click.option(
    "--filter",
    "wanted",
    metavar="TEXT",
    help="Run only the cases whose objective, file or name contains TEXT, in upper or lower case.",
)
@at_option("The time of cases without `at`, ISO 8601 (UTC where it has no offset); now where left out.")
@click.option("--require-coverage", is_flag=True, help="Fail where a rule has no case.")
@click.option("--require-cells", is_flag=True, help="Fail where a cell of an experiment has no case.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JUnit XML.")
@STACK
@AS_JSON
def test(
    rules: str,
    cases_of: Path | None,
    wanted: str | None,
    at: float | None,
    require_coverage: bool,
    require_cells: bool,
    junit: Path | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Run the cases of RULES/cases against RULES, and list the rules and cells that have no case. RULES is a rules directory
    or, with --cases, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live.

    Exit code 1: a case fails, a file has errors, or what is required to have a case has none. 2: the command was misused,
    or no case matches --filter.
    """
    if wanted is not None and (require_coverage or require_cells):
        raise click.UsageError("--filter leaves cases out, so coverage cannot be required: drop one of them")
    named = named_rules(rules, stack, as_json=as_json, as_written=True)
    program, engine = named.program, named.engine
    if cases_of is None and not named.has_files:
        raise click.UsageError(
            f"{rules} has no cases of its own: name the rules directory whose cases to run with --cases"
        )
    cases, findings = read_cases(cases_of or rules, set(engine.objectives))
    chosen = list(_chosen(cases, wanted))
    if wanted is not None and not chosen:
        message = f"none of {len(cases)} cases has {wanted!r} in its objective, file or name"
        raise click.BadParameter(message, param_hint="--filter")
    sound = [case for case in chosen if case.objective in engine.objectives]
    now = time.time() if at is None else at
    results = list(run_cases(engine, program, sound, now, is_now_fixed=at is not None))
    covered = coverage(program, results) if wanted is None else ()
    uncovered = [f"{each.objective}: {rule}" for each in covered for rule in each.uncovered]
    cells = [f"{each.objective}: cell {cell} of {rule}" for each in covered for rule, cell in each.uncovered_cells]
    lacking = {}
    if require_coverage and uncovered:
        lacking["a rule has no case, and --require-coverage is given"] = uncovered
    if require_cells and cells:
        lacking["a cell has no case, and --require-cells is given"] = cells
    failed = bool(findings or lacking) or not all(result.passed for result in results)
    report = CaseReport(engine, program, results, findings, covered, lacking)
    if junit is not None:
        report.write_junit(junit)
    if as_json:
        report.print_json(ok=not failed)
    else:
        report.show()
    if failed:
        raise click.exceptions.Exit(1)


def _chosen(cases: Sequence[Case], wanted: str | None) -> Iterator[Case]:
    text = (wanted or "").casefold()
    for case in cases:
        if any(text in each.casefold() for each in (case.objective, case.file, case.name)):
            yield case
