"""`tidegate --install-completion`: write click's completion where the user's shell looks for it."""

from __future__ import annotations

import os
from pathlib import Path

import click

SHELLS = ("bash", "zsh", "fish")
_FILES = {
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/tidegate"),
    "zsh": ("ZDOTDIR", "", ".zfunc/_tidegate"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/tidegate.fish"),
}
_NEXT = {
    "bash": "open a new shell; it needs the package bash-completion",
    "zsh": "put `fpath+=~/.zfunc; autoload -Uz compinit; compinit` into ~/.zshrc, and open a new shell",
    "fish": "open a new shell",
}


def install(context: click.Context, _: click.Parameter, shell: str | None) -> None:
    """Write the completion of a shell, print its place, and end the command: the callback of the option."""
    if shell is None or context.resilient_parsing:
        return
    from click.shell_completion import get_completion_class

    if shell == "auto":
        shell = Path(os.environ.get("SHELL", "")).name
        if shell not in SHELLS:
            raise click.UsageError(f"SHELL names none of {', '.join(SHELLS)}: write --install-completion=bash, for one")
    completion = get_completion_class(shell)
    assert completion is not None
    root = context.find_root()
    variable, folder, name = _FILES[shell]
    base = os.environ.get(variable)
    file = Path(base) / name if base else Path.home() / folder / name
    try:
        text = completion(root.command, {}, "tidegate", "_TIDEGATE_COMPLETE").source()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise click.UsageError(f"the completion cannot be written to {file}: {error}") from error
    click.echo(f"{file}: written; {_NEXT[shell]}")
    context.exit()
