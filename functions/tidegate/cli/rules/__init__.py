"""`tidegate rules …`: the commands of authors of rules."""

from __future__ import annotations

import click

from tidegate.cli.group import LazyGroup

COMMANDS = {
    "check": ("tidegate.cli.rules.check:check", "Check the rules: what is wrong, and what would be right."),
    "test": ("tidegate.cli.rules.test:test", "Run the cases of a rules directory."),
    "schema": ("tidegate.cli.rules.files:schema", "Write the JSON Schemas that editors check the files with."),
    "new": ("tidegate.cli.rules.files:new", "Write a first, valid objective with cases."),
    "replay": ("tidegate.cli.rules.replay:replay", "Show what the contexts of a log would have got."),
    "diff": ("tidegate.cli.rules.diff:diff", "Show what changed between two revisions, and which share moves."),
    "graph": ("tidegate.cli.rules.check:graph", "Draw objectives, rules, targets and shards."),
    "explain": ("tidegate.cli.rules.decisions:explain", "Show what a context decides, and why."),
    "find-member": (
        "tidegate.cli.rules.decisions:find_member",
        "Find made-up members that get a cell, a variant or a rule.",
    ),
    "compile": ("tidegate.cli.rules.check:compile_", "Compile the rules to a bundle."),
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def rules() -> None:
    """Check, test, explain and compare rules."""
