"""`tidegate rules …`: what authors do with a rules directory."""

from __future__ import annotations

import click

from tidegate.cli.lazy import LazyGroup

COMMANDS = {
    "check": ("tidegate.cli.rules.check:check", "Check the rules, and say what is wrong and what would be right."),
    "test": ("tidegate.cli.rules.test:test", "Run the cases of a rules directory."),
    "schema": ("tidegate.cli.rules.schema:schema", "Write the JSON Schemas that editors check the files with."),
    "new": ("tidegate.cli.rules.new:new", "Write a first, valid objective with cases."),
    "replay": ("tidegate.cli.rules.replay:replay", "Tell what the contexts of a log would have got."),
    "diff": ("tidegate.cli.rules.diff:diff", "Tell what changed between two revisions, and which share moves."),
    "graph": ("tidegate.cli.rules.graph:graph", "Draw objectives, rules, targets and shards."),
    "explain": ("tidegate.cli.rules.explain:explain", "Tell what a context decides, and why."),
    "find-member": (
        "tidegate.cli.rules.find_member:find_member",
        "Find made-up members that get a cell, a variant or a rule.",
    ),
    "compile": ("tidegate.cli.rules.compile:compile_", "Compile the rules to a bundle."),
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def rules() -> None:
    """Check, explain and compile a rules directory."""
