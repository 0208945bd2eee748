"""Runs a command's work on the control plane, and shows its steps: lines for people, or one JSON object a line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tidegate.cli import progress
from tidegate.cli.columns import columns, say, wrapped
from tidegate.cli.json_output import write_json
from tidegate.errors import InterruptedWorkError, PublishError, RulesError, TidegateError
from tidegate.interrupts import held_back
from tidegate.rules.bundle import short_revision

if TYPE_CHECKING:
    from tidegate.control.change import Activated
    from tidegate.control.plane import ControlPlane
    from tidegate.control.steps import Announce, StepEvent
    from tidegate.settings import Settings

T = TypeVar("T")

MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("-", "bright_black")}

_INTERRUPTED = "interrupted; `tidegate status` says what is live, and the next reconcile or publish cleans up"


class StepsResult(Protocol):
    def as_dict(self) -> Mapping[str, Any]: ...


R = TypeVar("R", bound=StepsResult)


def run_on_plane(settings: Settings, work: Callable[[ControlPlane], Awaitable[T]]) -> T:
    """Do some work on the control plane of the stores that the settings name, and return its result.

    SIGTERM and Ctrl-C end the work in order, so that it gives up its claim.
    """
    with held_back():
        from tidegate.bootstrap import build_transport
        from tidegate.bootstrap.control import build_control_plane

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        transport = build_transport(settings)
        try:
            return await work(build_control_plane(settings, transport))
        finally:
            await transport.aclose()

    try:
        return asyncio.run(main())
    except KeyboardInterrupt as error:
        raise InterruptedWorkError(_INTERRUPTED) from error
    except asyncio.CancelledError as error:
        raise TidegateError(_INTERRUPTED) from error


def run_steps(
    settings: Settings,
    work: Callable[[ControlPlane, Announce], Awaitable[R]],
    show: Callable[[R], None],
    *,
    as_json: bool,
) -> None:
    """Do work that announces its steps, show these as they happen, and then the result."""
    try:
        result = run_on_plane(settings, lambda plane: work(plane, _print_event if as_json else StepLines()))
    except TidegateError as error:
        if as_json:
            write_json({"event": "result", "ok": False, **failure(error)})
        raise
    if as_json:
        write_json({"event": "result", "ok": True, **result.as_dict()})
    else:
        show(result)


def show_activated(activated: Activated, paused: str) -> None:
    """Print what else an activation did; `paused` says that it has paused the following of the rules directory."""
    if activated.entry.cleared:
        say(f"revision {short_revision(activated.entry.revision)} is not marked bad any more")
    if activated.pauses:
        say(paused)
    for warning in activated.warnings:
        say(f"warning: {warning}", err=True)


def failure(error: TidegateError) -> dict[str, Any]:
    """Return an error as plain JSON values: its step, if any, its message, and the findings of rules."""
    from tidegate.cli.findings import findings_json

    step = {"step": error.step} if isinstance(error, PublishError) else {}
    cause = error if isinstance(error, RulesError) else error.__cause__
    findings = {"findings": findings_json(cause.findings)} if isinstance(cause, RulesError) else {}
    return {**step, "error": str(error), **findings}


def _note_event(event: StepEvent) -> None:
    sent, total = event.progress if event.state == "progress" else (0, 0)
    progress.note(f"{event.step}: {event.text}" if event.text else event.step, sent, total)


def _print_event(event: StepEvent) -> None:
    _note_event(event)
    line: dict[str, Any] = {"event": "step", "step": event.step, "state": event.state}
    if event.text:
        line["text"] = event.text
    if event.state in ("done", "failed"):
        line["took_s"] = round(event.took_s, 3)
    if event.state == "progress":
        line["sent_bytes"], line["total_bytes"] = event.progress
    write_json(line, is_last=False)


class StepLines:
    """Prints a line for each step that ends and for each note."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, emoji=False, soft_wrap=True)

    def __call__(self, event: StepEvent) -> None:
        """Show an event."""
        if event.state in ("begun", "progress"):
            _note_event(event)
        elif event.state == "note":
            for line in event.text.splitlines():
                self._print(f"  {line}", "dim")
        else:
            took = "" if event.state == "skipped" else f"{event.took_s:.1f} s"
            # The reason of a failure is the command's error, which follows.
            text = "" if event.state == "failed" else event.text
            mark, style = MARKS[event.state]
            self._print(f"{mark} {event.step:<9}{took:>7}  {text}".rstrip(), style)

    def _print(self, text: str, style: str) -> None:
        """Print text; `dim` styles all of it, any other style its mark alone."""
        from rich.text import Text

        progress.quiet()
        width = columns()
        for line in [text] if width is None else wrapped(text, width):
            shown = Text(line, "dim" if style == "dim" else "")
            if style != "dim" and line == line.lstrip():
                shown.stylize(style, 0, 1)
            self._console.print(shown, soft_wrap=True)
