"""`tidegate publish`: rules, and the models that they need, become what is live."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.rules.options import DIRECTORY
from tidegate.cli.step_lines import announcer, with_result
from tidegate.cli.working import run_on_plane

if TYPE_CHECKING:
    from tidegate.bootstrap.archived_rules import ArchivedRules
    from tidegate.bootstrap.sources import ProvedRules
    from tidegate.control.plane import ControlPlane
    from tidegate.control.publish import PublishResult
    from tidegate.rules.compare.changes import Change
    from tidegate.settings import Settings

SHOWN_CHANGES = 20


@click.command()
@click.option("--rules", type=DIRECTORY, help="Directory of the rules.")
@click.option(
    "--archive", metavar="KEY", help="In place of --rules: a validated archive in the bucket, rules/<name>.zip."
)
@click.option("--sha256", metavar="DIGEST", help="With --archive: its SHA-256, which the verdict has.")
@click.option(
    "--models",
    type=DIRECTORY,
    help="Triton model repository to push from; left out where everything was pushed before.",
)
@click.option("--why", default="", help="Why, for the history.")
@click.option("--by", help="Who publishes, for the history; user and machine where left out.")
@click.option("--dry-run", is_flag=True, help="Check, say what would change, and change nothing.")
@click.option(
    "--onto",
    metavar="REVISION",
    help="Publish only if this revision (or its first digits) is live; none: if nothing is.",
)
@click.option("--even-if-bad", is_flag=True, help="Publish rules that were rolled back, and clear their mark.")
@click.option("--require-samples", is_flag=True, help="Refuse targets without a golden request (samples/*.json).")
@click.option(
    "--start-over",
    is_flag=True,
    help="The pointer is lost and cannot be recovered: begin a new history with this publish.",
)
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="Print each event, and last the result, as a line of JSON.")
def publish(
    stores: StoreOptions,
    rules: Path | None,
    archive: str | None,
    sha256: str | None,
    models: Path | None,
    why: str,
    by: str | None,
    dry_run: bool,
    onto: str | None,
    even_if_bad: bool,
    require_samples: bool,
    start_over: bool,
    as_json: bool,
) -> None:
    """Make rules live, with the models that they need.

    Checks the rules, runs their cases, pushes models that are new, loads them on every server of their shards, sees that
    every target is READY and answers its golden requests (a made-up one where it has none, which a warning then says), and only
    then makes the rules live. A failure before that changes nothing for callers. Where somebody else has made other rules live
    since it began, it changes nothing, and says who and what is different in them. An archive must have been accepted by
    `validate_rules`, and is published exactly as it was validated. Models are checked for the images that the rules' shards
    serve them with. The stores are those of the options, else those of the settings, else those of the stack that runs on
    this machine.
    """
    from tidegate.bootstrap.control import author
    from tidegate.bootstrap.sources import FolderModels
    from tidegate.control.publish import PublishRequest

    if (rules is None) == (archive is None):
        raise click.UsageError("name the rules: a directory with --rules, or an archive in the bucket with --archive")
    if (archive is None) != (sha256 is None):
        raise click.UsageError("--archive and --sha256 go together: the digest says which content was validated")
    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> PublishResult:
        with _source(settings, rules, archive, sha256) as source:
            request = PublishRequest(
                rules=source,
                models=None if models is None else FolderModels(models, plane.ports.models, rules=source),
                by=by or author(),
                why=why,
                dry_run=dry_run,
                require_samples=require_samples,
                even_if_bad=even_if_bad,
                onto=onto,
                start_over=start_over,
            )
            return await plane.publisher.publish(request, announcer(as_json=as_json))

    def published() -> Mapping[str, Any]:
        result = run_on_plane(settings, work)
        if not as_json:
            _show(result)
        return result.as_dict()

    with_result(as_json, published)


def _source(
    settings: Settings, rules: Path | None, archive: str | None, sha256: str | None
) -> contextlib.AbstractContextManager[ProvedRules | ArchivedRules]:
    from tidegate.bootstrap.sources import ProvedRules

    if rules is not None:
        return contextlib.nullcontext(ProvedRules(rules))
    from tidegate.aws.clients import AwsClients, AwsConfig
    from tidegate.aws.objects import Objects
    from tidegate.bootstrap.archived_rules import ArchivedRules

    assert archive is not None and sha256 is not None and settings.bucket is not None
    return ArchivedRules(Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket), archive, sha256)


def _show(result: PublishResult) -> None:
    changes = result.outlook.changes
    if result.status == "planned":
        say(f"rules: {counted(changes)}")
        for change in changes[:SHOWN_CHANGES]:
            say(f"  {change}")
        if len(changes) > SHOWN_CHANGES:
            say(f"  and {len(changes) - SHOWN_CHANGES} more; `tidegate rules diff` has them all")
        _show_models(result)
        say(f"dry run: nothing was changed; revision {result.revision[:12]} would be live")
    elif result.activated is None:
        say(f"revision {result.revision[:12]} is live already")
    else:
        entry = result.activated.entry
        say(f"revision {result.revision[:12]} is live (flip {entry.sequence}); {counted(changes)}")
        if entry.cleared:
            say(f"revision {result.revision[:12]} is not marked bad any more")
        if result.activated.pauses:
            say(
                "the stack's rules directory is not followed any more; `tidegate follow resume` publishes it and goes on"
            )
        for warning in result.activated.warnings:
            say(f"warning: {warning}", err=True)
        for target, reason in sorted(result.activated.unproved.items()):
            say(f"warning: target {target!r} went live unproved: {reason}", err=True)


def _show_models(result: PublishResult) -> None:
    outlook = result.outlook
    if not (outlook.loads or outlook.unloads):
        say("models: nothing to load or unload")
    for shard in sorted({*outlook.loads, *outlook.unloads}):
        for action, found in (("load", outlook.loads), ("unload once drained", outlook.unloads)):
            if shard in found:
                say(f"shard {shard}: {action} {', '.join(found[shard])}")


def counted(changes: Iterable[Change]) -> str:
    """How many changes of which kind there are, in words."""
    counts = Counter(f"{change.subject} {change.kind}" for change in changes)
    if not counts:
        return "no change of the rules"
    total = sum(counts.values())
    parts = ", ".join(f"{count} × {what}" for what, count in counts.most_common())
    return f"{total} change{'' if total == 1 else 's'} of the rules ({parts})"
