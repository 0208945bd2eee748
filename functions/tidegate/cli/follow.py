"""`tidegate follow …`: show, pause and resume how a stack publishes each change of its rules directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import first, say
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import AS_JSON, EVENTS_AS_JSON, print_json
from tidegate.cli.options import BY, WHY
from tidegate.cli.plane import failure, run_on_plane, run_steps
from tidegate.cli.stacks import LOCAL_STACK, STACK, StoreOptions, find_stack, read_fleet, settings_of_stack
from tidegate.cli.status import paused_text, shown_revision
from tidegate.errors import PublishError, TidegateError, UnavailableError
from tidegate.rules.bundle import revision_json, short_revision
from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.publish import PublishRequest, PublishResult
    from tidegate.control.steps import Announce

SHOWN_CHANGES = 10


@click.group(cls=ReportingGroup)
def follow() -> None:
    """Show, pause and resume how a stack of `tidegate up` follows its rules directory.

    A stack publishes each change of the directory. A publish or a rollback by hand pauses that, so that the next saved file
    does not undo it.
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
    identity = {name: found[name] for name in revision_json(None)}
    found["bad"] = next((mark for mark in fleet.get("bad", ()) if identity.items() <= mark.items()), None)
    if as_json:
        print_json(found)
    else:
        _show(found, fleet)
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
    from tidegate.control import following

    stack, _, followed = _followed(stack)
    _refuse_unfollowed(followed)
    settings = settings_of_stack(Settings.from_environment(), stack)
    entry, is_new = run_on_plane(settings, lambda plane: following.pause(plane.ports, by=by or author(), why=why))
    if as_json:
        print_json({"status": "paused" if is_new else "unchanged", "paused": following.pause_fields(entry)})
    else:
        text = following.describe_pause(entry)
        say(f"following is paused {text}" if is_new else f"following was paused already {text}")


@follow.command(short_help="Publish the directory as it is, and each change of it.")
@click.option(
    "--even-if-bad", is_flag=True, help="Publish the directory even if it was rolled back, and clear its mark."
)
@BY
@WHY
@STACK
@EVENTS_AS_JSON
def resume(stack: str | None, even_if_bad: bool, by: str | None, why: str, as_json: bool) -> None:
    """Publish the directory as it is now, and then each change of it.

    It must pass the checks of a change. If it does not, nothing changes and following stays paused.
    """
    from tidegate.bootstrap.control import author
    from tidegate.control.publish import publish_rules

    address, _, followed = _followed(stack)
    _refuse_unfollowed(followed)

    async def work(plane: ControlPlane, announce: Announce) -> PublishResult:
        request = _request(
            plane,
            followed,
            by=by or author(),
            why=why or "following was resumed",
            even_if_bad=even_if_bad,
            follows=followed["directory"],
            resumes=True,
        )
        return await publish_rules(plane, request, announce)

    def show(result: PublishResult) -> None:
        say(f"revision {short_revision(result.revision)} of {followed['rules']} is live, and the directory is followed")

    run_steps(settings_of_stack(Settings.from_environment(), address), work, show, as_json=as_json)


def _followed(stack: str | None) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Return the address of the stack, its fleet, and how it follows its directory."""
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
    """Return the request to publish the directory that a stack follows."""
    from tidegate.bootstrap.model_sources import FolderModels
    from tidegate.bootstrap.rules_sources import followed_rules
    from tidegate.control.following import FollowMode
    from tidegate.control.publish import PublishRequest

    rules, models = Path(followed["rules"]), Path(followed["models"])
    for folder in (rules, models):
        if not folder.is_dir():
            raise TidegateError(f"{folder} is not a directory of this machine; run this where the stack runs")
    source = followed_rules(rules, FollowMode(followed["mode"]))
    return PublishRequest(rules=source, models=FolderModels(models, plane.ports.models), **fields)


def _compared(stack: str, fleet: Mapping[str, Any], followed: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the directory with what is live."""
    from tidegate.bootstrap.control import author
    from tidegate.control.publish import publish_rules

    async def work(plane: ControlPlane) -> PublishResult:
        request = _request(plane, followed, by=author(), dry_run=True, even_if_bad=True)
        return await publish_rules(plane, request, lambda _: None)

    try:
        result = run_on_plane(settings_of_stack(Settings.from_environment(), stack), work)
    except PublishError as error:
        return {**revision_json(None), "is_live": False, "changes": [], "refused": failure(error)}
    changes = [asdict(change) for change in result.outlook.changes]
    own = revision_json(result.revision)
    is_live = all(fleet.get(name) == value for name, value in own.items())
    return {**own, "is_live": is_live, "changes": changes, "refused": None}


def _show(found: Mapping[str, Any], fleet: Mapping[str, Any]) -> None:
    if found["state"] == "off":
        say(f"{found['rules']} is not followed: the stack was started with --follow off")
    elif found["state"] == "ended":
        say(f"{found['rules']} is no longer followed ({found['ended']}); restart the stack")
    elif found["paused"] is None:
        say(f"{found['rules']} is followed: each change of it is published ({found['mode']})")
    else:
        say(f"{found['rules']} is not followed now: {paused_text(found['paused'])}")
    if found["refused"]:
        say("the directory would be refused:")
        for line in str(found["refused"]["error"]).splitlines():
            say(f"  {line}")
    elif found["is_live"]:
        say(f"the directory is what is live: revision {short_revision(found['revision'])}")
    else:
        live = shown_revision(fleet, [found]) if found["live"] else "nothing"
        say(f"the directory is revision {shown_revision(found, [fleet])}, and {live} is live:")
        changes = [*map(_change_text, found["changes"])] or [
            "the same rules, whose models are other versions or shards"
        ]
        for line in first(changes, SHOWN_CHANGES):
            say(f"  {line}")
    if found["bad"] is not None:
        mark = found["bad"]
        say(f"the directory was marked bad by {mark['by']} at {mark['at']}{': ' * bool(mark['why'])}{mark['why']}")
        say("correct its rules, then `tidegate follow resume`; with --even-if-bad it publishes them as they are")
    elif found["paused"] is not None:
        say("`tidegate follow resume` publishes the directory and follows it again")


def _change_text(change: Mapping[str, Any]) -> str:
    is_named = change.get("objective") and change["subject"] != "objective"
    return f"{change['objective']}: {change['text']}" if is_named else str(change["text"])
