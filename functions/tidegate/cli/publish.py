"""`tidegate publish`: make rules live, with the models that they need."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import count, first, say
from tidegate.cli.json_output import EVENTS_AS_JSON
from tidegate.cli.options import BY, DIRECTORY, WHY
from tidegate.cli.plane import run_steps, show_activated
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.interrupts import held_back
from tidegate.rules.bundle import short_revision
from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.analysis.compare.changes import Change
    from tidegate.bootstrap.archived_rules import ArchivedRules
    from tidegate.bootstrap.rules_sources import ProvedRules
    from tidegate.control.plane import ControlPlane
    from tidegate.control.publish import PublishResult
    from tidegate.control.steps import Announce

SHOWN_CHANGES = 20


@click.command()
@click.option("--rules", type=DIRECTORY, help="Directory of the rules.")
@click.option(
    "--archive", metavar="KEY", help="Instead of --rules: a validated archive in the bucket, rules/<name>.zip."
)
@click.option("--sha256", metavar="DIGEST", help="SHA-256 of the --archive, as in the verdict.")
@click.option(
    "--models", type=DIRECTORY, help="Triton model repository to push from, unless every model was pushed before."
)
@WHY
@BY
@click.option("--dry-run", is_flag=True, help="Check, print what would change, and change nothing.")
@click.option(
    "--onto",
    metavar="REVISION",
    help="Publish only if this revision (or its first digits) is live; `none`: only if nothing is.",
)
@click.option("--even-if-bad", is_flag=True, help="Publish rules that were rolled back, and clear their mark.")
@click.option("--require-samples", is_flag=True, help="Refuse targets without golden requests (samples/*.json).")
@click.option(
    "--start-over", is_flag=True, help="Begin a new history, where the pointer is lost and cannot be recovered."
)
@STORE_OPTIONS
@EVENTS_AS_JSON
def publish(
    stores: StoreOptions,
    rules: Path | None,
    archive: str | None,
    sha256: str | None,
    models: Path | None,
    by: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make rules live, with the models that they need.

    Checks the rules, runs their cases, pushes new models, loads them on every server of their shards, checks that every
    target is READY and answers its golden requests (a made-up request, with a warning, if it has none), and only then makes
    the rules live. A failure before that changes nothing for callers. If somebody else makes other rules live meanwhile, the
    publish is refused, with who it was and what differs.

    Models are checked for the images of the shards that serve them. An archive must have been accepted by `validate_rules`,
    and is published exactly as it was validated. The stores are those of the options, else of the settings, else of the stack
    on this machine.
    """
    if (rules is None) == (archive is None):
        raise click.UsageError("name the rules: a directory with --rules, or an archive in the bucket with --archive")
    if (archive is None) != (sha256 is None):
        raise click.UsageError("--archive and --sha256 go together: the digest says which content was validated")
    settings = resolve_settings(stores)
    with held_back():  # these load NumPy and more, which help and completion do without
        from tidegate.bootstrap.control import author
        from tidegate.bootstrap.model_sources import FolderModels
        from tidegate.control.publish import PublishRequest, publish_rules

    async def work(plane: ControlPlane, announce: Announce) -> PublishResult:
        with _source(settings, rules, archive, sha256) as source:
            request = PublishRequest(
                rules=source,
                models=None if models is None else FolderModels(models, plane.ports.models, rules=source),
                by=by or author(),
                **options,
            )
            return await publish_rules(plane, request, announce)

    run_steps(settings, work, _show, as_json=as_json)


def _source(
    settings: Settings, rules: Path | None, archive: str | None, sha256: str | None
) -> contextlib.AbstractContextManager[ProvedRules | ArchivedRules]:
    if rules is not None:
        from tidegate.bootstrap.rules_sources import ProvedRules

        return contextlib.nullcontext(ProvedRules(rules))
    from tidegate.aws.clients import AwsClients, AwsConfig
    from tidegate.aws.objects import Objects
    from tidegate.bootstrap.archived_rules import ArchivedRules

    assert archive is not None and sha256 is not None and settings.bucket is not None
    return ArchivedRules(Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket), archive, sha256)


def _show(result: PublishResult) -> None:
    changes = result.outlook.changes
    if result.status == "planned":
        say(f"rules: {_counted(changes)}")
        for line in first(list(map(str, changes)), SHOWN_CHANGES, rest="`tidegate rules diff` has them all"):
            say(f"  {line}")
        _show_models(result)
        say(f"dry run: nothing was changed; revision {short_revision(result.revision)} would be live")
    elif result.activated is None:
        say(f"revision {short_revision(result.revision)} is live already")
    else:
        entry = result.activated.entry
        say(f"revision {short_revision(result.revision)} is live (flip {entry.sequence}); {_counted(changes)}")
        show_activated(
            result.activated,
            "the stack's rules directory is no longer followed; `tidegate follow resume` publishes it and follows it again",
        )
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


def _counted(changes: Iterable[Change]) -> str:
    counts = Counter(f"{change.subject} {change.kind}" for change in changes)
    if not counts:
        return "no change of the rules"
    parts = ", ".join(f"{number} × {what}" for what, number in counts.most_common())
    return f"{count(sum(counts.values()), 'change')} of the rules ({parts})"
