"""`tidegate models …`: what researchers do with a model repository."""

from __future__ import annotations

import click

from tidegate.cli.group import LazyGroup

COMMANDS = {
    "check": ("tidegate.cli.models.check:check", "Check models by their files alone."),
    "graph": ("tidegate.cli.models.check:graph", "Draw an ensemble: what flows through which steps."),
    "smoke": ("tidegate.cli.models.check:smoke_", "Load models on a scratch Triton and judge their answers."),
    "image": ("tidegate.cli.models.image:image", "Describe an image of model servers."),
    "push": ("tidegate.cli.models.push:push", "Push models to the bucket that every shard loads from."),
    "new": ("tidegate.cli.models.versions:new", "Copy a model under another name."),
    "version": ("tidegate.cli.models.versions:version", "Make what was changed of a model its next version."),
    "pull": ("tidegate.cli.models.versions:pull", "Write a pushed model into a folder."),
    "withdraw": ("tidegate.cli.models.versions:withdraw", "Remove from the bucket what was never live."),
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def models() -> None:
    """Check, test, version and push the models of a Triton model repository."""
