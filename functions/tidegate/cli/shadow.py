"""`tidegate shadow report`: how the answers of shadows differ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli.columns import count, say, show_table
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import FILE, write_file
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings

if TYPE_CHECKING:
    from tidegate.shadows.pair_tally import PairTally

SHOWN_OUTPUTS = 12
_MOST_HOURS = 90 * 24


@click.group(cls=ReportingGroup)
def shadow() -> None:
    """Compare the answers of shadows with those that callers got."""


@shadow.command(short_help="Show how the answers of shadows differ.")
@click.option(
    "--hours",
    type=click.IntRange(1, _MOST_HOURS),
    default=24,
    show_default=True,
    help="How many hours to report, beside the present one.",
)
@click.option("--objective", help="Report this objective only.")
@click.option(
    "--fail-above",
    type=click.FloatRange(0, 100),
    help="Exit with 1 if more than this percentage of a pair's shadows failed or differ, or if there is none.",
)
@click.option("--svg", type=FILE, help="Draw the distributions into this file.")
@click.option("--html", type=FILE, help="Write the report and its pictures into this file.")
@STORE_OPTIONS
@AS_JSON
def report(
    stores: StoreOptions,
    hours: int,
    objective: str | None,
    fail_above: float | None,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show how the answers of shadows differ from those that callers got, for each pair of targets.

    Exit code 1: with --fail-above, a pair has more shadows that failed or differ, where callers got an answer; any difference
    counts, so it is for models that must answer alike.
    """
    from tidegate.aws.shadow_tallies import HOUR_S
    from tidegate.bootstrap.control import shadow_tallies_of
    from tidegate.shadows.page import shadows_html
    from tidegate.shadows.pictures import shadows_svg
    from tidegate.shadows.report import different_share, pair_json

    settings = resolve_settings(stores, registry=False)
    tallies, unreadable = asyncio.run(shadow_tallies_of(settings).read(time.time() - hours * HOUR_S))
    left_out, found = tallies.left_out, tallies.pairs.values()
    pairs = sorted((each for each in found if objective in (None, each.pair.objective)), key=lambda each: each.pair)
    if as_json:
        print_json(
            {"hours": hours, "pairs": [*map(pair_json, pairs)], "left_out": left_out, "unreadable": [*unreadable]}
        )
    else:
        _show(pairs, hours)
    if left_out:
        say(f"note: {count(left_out, 'shadow')} of further pairs were left out", err=True)
    for problem in unreadable:
        say(f"warning: {problem}", err=True)
    for file, draw, option in ((svg, shadows_svg, "--svg"), (html, shadows_html, "--html")):
        if file is not None:
            write_file(file, draw(pairs), option)
            say(f"{file}: written", err=as_json)
    if fail_above is not None:
        shares = [different_share(each) for each in pairs]
        if not any(share is not None for share in shares) or any(100 * (share or 0) > fail_above for share in shares):
            raise click.exceptions.Exit(1)


def _show(pairs: Sequence[PairTally], hours: int) -> None:
    from tidegate.shadows.report import COUNT_HEADS, HEADS, count_rows, heading, output_rows, sentences

    if not pairs:
        say(f"there were no shadows in the last {count(hours, 'hour')}")
    else:
        show_table(COUNT_HEADS, list(count_rows(pairs)), COUNT_HEADS[1:-1])
    for tally in pairs:
        say(f"\n{heading(tally)}", style="bold")
        for sentence in sentences(tally):
            say(f"  {sentence}")
        rows = list(output_rows(tally))
        if rows:
            show_table(HEADS, rows[:SHOWN_OUTPUTS], HEADS[1:-1])
        if len(rows) > SHOWN_OUTPUTS:
            say(f"… and {count(len(rows) - SHOWN_OUTPUTS, 'output')} more; --json has all")
