"""`tidegate settings|version`: every setting, what it means and its value; the versions of Tidegate and of Python."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import click

from tidegate import __version__
from tidegate.cli.columns import say
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.settings import PREFIX, Settings, as_text

HEAD = """# Settings

<!-- Made by `tidegate settings --markdown` from functions/tidegate/settings.py; a test fails where they differ. -->

Every process of Tidegate, including the functions, reads these environment variables once, at its start. An unknown `TIDEGATE_*`
variable, or a malformed or out-of-range value, is an error that names the variable. Names include their units. `tidegate settings`
shows the current values. A deployment has [infrastructure settings](infra-settings.md) as well.
"""


@click.command()
@AS_JSON
@click.option("--markdown", is_flag=True, help="Print the page docs/settings.md.")
def settings(as_json: bool, markdown: bool) -> None:
    """Show every setting, what it means and its value. Secrets are not shown."""
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
        print_json({"settings": rows})
        return
    for row in rows:
        changed = "" if row["value"] == row["default"] else f" (default {_word(row['default'])})"
        say(f"{row['variable']} = {_word(row['value'])}{changed}\n    {row['meaning']}")


def page() -> str:
    """Return the page docs/settings.md."""
    lines = [HEAD, "| variable | takes | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        meaning = field.metadata["doc"].replace("|", "\\|")
        lines.append(
            f"| `{PREFIX}{field.name.upper()}` | {field.metadata['takes']} | {_word(field.default)} | {meaning} |"
        )
    return "\n".join([*lines, ""])


def _shown(field: dataclasses.Field[Any], value: Any) -> Any:
    return "…" if field.metadata["is_secret"] and value is not None else _plain(value)


def _plain(value: Any) -> Any:
    is_plain = value is None or (isinstance(value, int | float | str) and not isinstance(value, bool))
    return value if is_plain else as_text(value)


def _word(value: Any) -> str:
    return "unset" if value is None else as_text(value)


@click.command()
@AS_JSON
def version(as_json: bool) -> None:
    """Show the versions of Tidegate, of the Python that runs it, and of the machine."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        click.echo(f"tidegate {__version__}, Python {platform.python_version()}, {platform.platform()}")
