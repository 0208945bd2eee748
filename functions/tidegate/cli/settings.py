"""`tidegate settings`: every setting of the processes, what it means and what it is now."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.json_output import write_json
from tidegate.settings import PREFIX, WHOLE, Settings

HEAD = """# Settings

<!-- Made by `tidegate settings --markdown` from functions/tidegate/settings.py; a test fails where they differ. -->

Every process of Tidegate, the functions included, reads these variables of its environment once, at its start. An unknown
`TIDEGATE_*` variable, a malformed value and one out of range end the start with an error that names the variable. Units
stand in the names. `tidegate settings` shows what they are now. The infrastructure has its own:
[infra-settings.md](infra-settings.md).
"""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--markdown", is_flag=True, help="Print the page docs/settings.md instead.")
def settings(as_json: bool, markdown: bool) -> None:
    """Show every setting, what it means and what it is now. Secrets are not shown."""
    if markdown:
        click.echo(page(), nl=False)
        return
    now = Settings.from_environment()
    rows = [
        {
            "variable": PREFIX + field.name.upper(),
            "value": _shown(field, getattr(now, field.name)),
            "default": _plain(field.default),
            "meaning": field.metadata["doc"],
        }
        for field in dataclasses.fields(Settings)
    ]
    if as_json:
        write_json({"settings": rows}, indent=2)
        return
    for row in rows:
        changed = "" if row["value"] == row["default"] else f" (default {_word(row['default'])})"
        say(f"{row['variable']} = {_word(row['value'])}{changed}\n    {row['meaning']}")


def page() -> str:
    """The page docs/settings.md."""
    lines = [HEAD, "| variable | takes | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        meaning = field.metadata["doc"].replace("|", "\\|")
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {_takes(field)} | {_word(field.default)} | {meaning} |")
    return "\n".join([*lines, ""])


def _takes(field: dataclasses.Field[Any]) -> str:
    if field.type == "Path | None":
        return "a path"
    if "words" in field.metadata:
        return str(field.metadata["words"])
    kind = "a whole number" if field.type in WHOLE else "a number"
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    return f"{kind}, at least {low}" if high == math.inf else f"{kind}, {low} to {high}"


def _shown(field: dataclasses.Field[Any], value: Any) -> Any:
    return "…" if field.metadata.get("secret") and value is not None else _plain(value)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)
