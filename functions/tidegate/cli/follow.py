"""`tidegate follow …`: whether a stack publishes each change of its rules directory, and the way back to that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidegate.cli.columns import say
from tidegate.cli.control import LOCAL_STACK, STACK, StoreOptions, find_stack, read_fleet, settings_of_stack
from tidegate.cli.group import ReportingGroup
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.cli.step_lines import announcer, failure, with_result
from tidegate.cli.working import run_on_plane
from tidegate.errors import PublishError, TidegateError, UnavailableError
from tidegate.rules.bundle import revision_json

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.publish import PublishRequest, PublishResult
    from tidegate.control.steps import StepEvent

F = TypeVar("F", bound=Callable[..., Any])

SHOWN_CHANGES = 10

BY = click.option("--by", help="Who does so, for the history; user and machine where left out.")
WHY = click.option("--why", default="", help="Why, for the history.")


@click.group(cls=ReportingGroup)
def follow() -> None:
    """See, pause and resume how a stack of `tidegate up` follows its rules directory.

    A stack publishes each change of the directory. Whatever is published or rolled back by hand pauses that, so that
    nothing is undone by the next touch of a file.
    """


@follow.command(short_help="Show whether the directory is followed and what is live.")
@STACK
@AS_JSON
def status(stack: str | None, as_json: bool) -> None:
    """Show whether the directory is followed, and compare it with what is live.

    Exit code 0: it is followed, and is what is live; 1 otherwise.
    """
    stack, fleet, followed = _followed(stack)
    found: dict[str, Any] = {
        **followed,
        "live": fleet.get("revision"),
        "last_rejected": fleet.get("rules", {}).get("last_rejected"),
        **_compared(stack, fleet, followed),
    }
    found["bad"] = next((mark for mark in fleet.get("bad", ()) if _is_revision(found, mark)), None)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["state"] != "following" or not found["is_live"]:
        raise click.exceptions.Exit(1)


@follow.command(short_help="Publish no changes until `tidegate follow resume`.")
@BY
@WHY
@STACK
@AS_JSON
def pause(stack: str | None, by: str | None, why: str, as_json: bool) -> None:
    """Pause: changes of the directory are not published until `tidegate follow resume`."""
    from tidegate.bootstrap.control import author
    from tidegate.control.following import describe_pause, pause, pause_fields
    from tidegate.settings import Settings

    async def work(plane: ControlPlane) -> tuple[Any, bool]:
        return await pause(plane.ports, by=by or author(), why=why)

    stack, _, followed = _followed(stack)
    _refuse_unfollowed(followed)
    entry, is_new = run_on_plane(settings_of_stack(Settings.from_environment(), stack), work)
    if as_json:
        print_json({"status": "paused" if is_new else "unchanged", "paused": pause_fields(entry)})
    else:
        say(f"following {'is' if is_new else 'was'} paused {'' if is_new else 'already '}{describe_pause(entry)}")


@follow.command(short_help="Publish the directory as it is, and each change of it.")
@click.option(
    "--even-if-bad", is_flag=True, help="Publish the directory even if it was rolled back, and clear its mark."
)
@BY
@WHY
@STACK
@click.option("--json", "as_json", is_flag=True, help="Print each event, and last the result, as a line of JSON.")
def resume(stack: str | None, even_if_bad: bool, by: str | None, why: str, as_json: bool) -> None:
    """Go on: publish the directory as it is now, and then each change of it.

    It must pass what the stack asks of a change. Where it does not, nothing changes and following stays paused.
    """
    from tidegate.bootstrap.control import author
    from tidegate.settings import Settings

    address, _, followed = _followed(stack)
    _refuse_unfollowed(followed)

    async def work(plane: ControlPlane) -> PublishResult:
        request = _request(
            plane,
            followed,
            by=by or author(),
            why=why or "following was resumed",
            even_if_bad=even_if_bad,
            follows=followed["directory"],
            resumes=True,
        )
        return await plane.publisher.publish(request, announcer(as_json=as_json))

    def resumed() -> Mapping[str, Any]:
        result = run_on_plane(settings_of_stack(Settings.from_environment(), address), work)
        if not as_json:
            say(f"revision {result.revision[:12]} of {followed['rules']} is live, and the directory is followed")
        return result.as_dict()

    with_result(as_json, resumed)


def _followed(stack: str | None) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """The address of the stack that is meant, its fleet, and how it follows its directory.

    Raises:
        UnavailableError: nothing answers there, or it does not follow anything.
    """
    found = find_stack(StoreOptions(stack=stack))
    stack = found or LOCAL_STACK
    fleet = read_fleet(stack, is_guessed=found is None)
    followed = fleet.get("follow")
    if found is None or not isinstance(followed, Mapping):
        raise UnavailableError(
            f"{stack} follows no directory, as only a stack of `tidegate up` does; name it with --stack"
        )
    return stack, fleet, followed


def _refuse_unfollowed(followed: Mapping[str, Any]) -> None:
    if followed["state"] == "off":
        raise TidegateError("the stack follows nothing, as it was started with --follow off; use `tidegate publish`")
    if followed["state"] == "ended":
        raise TidegateError(
            f"the stack follows nothing any more ({followed['ended']}); restart it, or use `tidegate publish`"
        )


def _request(plane: ControlPlane, followed: Mapping[str, Any], **fields: Any) -> PublishRequest:
    """The publish of the directory that a stack follows.

    Raises:
        TidegateError: the directory is not on this machine.
    """
    from tidegate.bootstrap.sources import FolderModels, followed_rules
    from tidegate.control.following import FollowMode
    from tidegate.control.publish import PublishRequest

    rules, models = Path(followed["rules"]), Path(followed["models"])
    for folder in (rules, models):
        if not folder.is_dir():
            raise TidegateError(f"{folder} is not a directory of this machine; run this where the stack runs")
    source = followed_rules(rules, FollowMode(followed["mode"]))
    return PublishRequest(rules=source, models=FolderModels(models, plane.ports.models), **fields)


def _compared(stack: str, fleet: Mapping[str, Any], followed: Mapping[str, Any]) -> dict[str, Any]:
    """What the directory is beside what is live."""
    from tidegate.bootstrap.control import author
    from tidegate.settings import Settings

    async def work(plane: ControlPlane) -> PublishResult:
        request = _request(plane, followed, by=author(), dry_run=True, even_if_bad=True)
        return await plane.publisher.publish(request, _silent)

    try:
        result = run_on_plane(settings_of_stack(Settings.from_environment(), stack), work)
    except PublishError as error:
        return {**revision_json(None), "is_live": False, "changes": [], "refused": failure(error)}
    changes = [change.as_dict() for change in result.outlook.changes]
    own = revision_json(result.revision)
    is_live = all(fleet.get(name) == value for name, value in own.items())
    return {**own, "is_live": is_live, "changes": changes, "refused": None}


def _is_revision(found: Mapping[str, Any], mark: Mapping[str, Any]) -> bool:
    return all(mark[name] == found[name] for name in revision_json(None))


def _silent(_event: StepEvent) -> None:
    """The result says it all."""


def _show(found: Mapping[str, Any]) -> None:
    if found["state"] == "off":
        say(f"{found['rules']} is not followed: the stack was started with --follow off")
    elif found["state"] == "ended":
        say(f"{found['rules']} is not followed any more ({found['ended']}); restart the stack")
    elif found["paused"] is None:
        say(f"{found['rules']} is followed: each change of it is published ({found['mode']})")
    else:
        say(f"{found['rules']} is not followed now: {paused_text(found['paused'])}")
    if found["refused"]:
        say("the directory would be refused:")
        for line in str(found["refused"]["error"]).splitlines():
            say(f"  {line}")
    elif found["is_live"]:
        say(f"the directory is what is live: revision {found['revision'][:12]}")
    else:
        live = found["live"][:12] if found["live"] else "nothing"
        say(f"the directory is revision {found['revision'][:12]}, and {live} is live:")
        for change in found["changes"][:SHOWN_CHANGES]:
            where = f"{change['objective']}: " if change.get("objective") and change["subject"] != "objective" else ""
            say(f"  {where}{change['text']}")
        if len(found["changes"]) > SHOWN_CHANGES:
            say(f"  and {len(found['changes']) - SHOWN_CHANGES} more")
    if found["bad"] is not None:
        mark = found["bad"]
        say(f"the directory was marked bad by {mark['by']} at {mark['at']}{': ' * bool(mark['why'])}{mark['why']}")
        say("correct its rules, then `tidegate follow resume`; with --even-if-bad it publishes them as they are")
    elif found["paused"] is not None:
        say("`tidegate follow resume` publishes the directory and goes on")


def paused_text(paused: Mapping[str, Any]) -> str:
    """Since when and why following is paused, from the JSON of a stack."""
    why = f": {paused['why']}" if paused["why"] else ""
    if paused["action"] == "pause":
        return f"paused since {paused['at']} by {paused['by']}{why}"
    made = f"{paused['by']} made revision {paused['revision'][:12]} live"
    return f"paused since {paused['at']}, because {made} ({paused['action']}{why})"
