"""Shows the steps of a publish or a rollback as they happen: lines for people, or one JSON value a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tidegate.cli.columns import columns, wrapped
from tidegate.cli.json_output import write_json
from tidegate.errors import PublishError, RulesError, TidegateError

if TYPE_CHECKING:
    from rich.status import Status

    from tidegate.control.steps import StepEvent

MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("-", "bright_black")}


def announcer(*, as_json: bool) -> Callable[[StepEvent], None]:
    """What takes the steps' events and shows them on standard output."""
    return _print_json if as_json else StepLines()


def with_result(as_json: bool, work: Callable[[], Mapping[str, Any]]) -> None:
    """Do the work of a command whose steps `announcer` shows; with `as_json` the last line has what came of it.

    Raises:
        TidegateError: the work's own, once the last line has it too.
    """
    try:
        result = work()
    except TidegateError as error:
        if as_json:
            print_line({"event": "result", "ok": False, **failure(error)}, is_last=True)
        raise
    if as_json:
        print_line({"event": "result", "ok": True, **result}, is_last=True)


def failure(error: TidegateError) -> dict[str, Any]:
    """An error as plain JSON values: the step where there was one, the message, and the findings that rules have."""
    from tidegate.cli.rules.compiled import findings_json

    step = {"step": error.step} if isinstance(error, PublishError) else {}
    cause = error if isinstance(error, RulesError) else error.__cause__
    findings = {"findings": findings_json(cause.findings)} if isinstance(cause, RulesError) else {}
    return {**step, "error": str(error), **findings}


def print_line(value: Mapping[str, Any], *, is_last: bool = False) -> None:
    """Print a JSON object on a line of its own. `is_last`: it is the command's result."""
    write_json(value, is_last=is_last)


def _print_json(event: StepEvent) -> None:
    line: dict[str, Any] = {"event": "step", "step": event.step, "state": event.state}
    if event.text:
        line["text"] = event.text
    if event.state in ("done", "failed"):
        line["took_s"] = round(event.took_s, 3)
    if event.state == "progress":
        line["sent_bytes"], line["total_bytes"] = event.progress
    print_line(line)


class StepLines:
    """Prints a line for each step that ends and for each note; on a terminal it also shows what is under way."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, emoji=False, soft_wrap=True)
        self._status: Status | None = None

    def __call__(self, event: StepEvent) -> None:
        """Show an event."""
        from rich.markup import escape

        if event.state == "begun":
            self._spin(event.step)
        elif event.state == "progress":
            sent, total = event.progress
            share = f"{sent / total:.0%}" if total else ""
            self._spin(f"{event.step}: {escape(event.text)} {share}")
        elif event.state == "note":
            for line in event.text.splitlines():
                self._print(f"  {line}", "dim")
        else:
            self._still()
            took = "" if event.state == "skipped" else f"{event.took_s:.1f} s"
            # The reason of a failure is the command's error, which follows.
            text = "" if event.state == "failed" else event.text
            mark, style = MARKS[event.state]
            self._print(f"{mark} {event.step:<9}{took:>7}  {text}".rstrip(), style)

    def _print(self, text: str, style: str) -> None:
        """Print text whose first line has a style: the dim ones as a whole, else the mark alone."""
        from rich.text import Text

        width = columns()
        for line in [text] if width is None else wrapped(text, width):
            shown = Text(line, "dim" if style == "dim" else "")
            if style != "dim" and line == line.lstrip():
                shown.stylize(style, 0, 1)
            self._console.print(shown, soft_wrap=True)

    def _spin(self, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def _still(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
