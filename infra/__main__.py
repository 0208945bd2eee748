"""`python -m infra`: check, deploy and destroy a stage. `make infra-check`, `make infra` and `make infra-destroy` run it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import write_json

from infra import gates

if TYPE_CHECKING:
    from infra.upgrade.deployment import Deployment

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
STACKS = ("Storage", "Network", "Fleet", "Functions", "Edge", "Observability")
DESTROYED = (("Observability", "Edge", "Functions", "Fleet", "Network"), ("Storage",))
"""The stacks in the order in which they are destroyed: what writes into the buckets goes before the buckets."""


STAGE = click.option(
    "--stage", default="dev", show_default=True, help="The stage: its settings are in infra/settings/."
)
RULES = click.option(
    "--rules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("routing_rules"),
    show_default=True,
    help="The rules directory, whose fleet.yaml names the shards.",
)
YES = click.option("--yes", is_flag=True, help="Do not ask before anything is changed.")


@click.group(cls=ReportingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The infrastructure: check it without an account, deploy it, destroy it."""


@main.command()
@STAGE
@RULES
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A kept copy of the folder that is deployed: check that it can become what is synthesized.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(stage: str, rules: Path, against: Path | None, as_json: bool) -> None:
    """Synthesize and audit the templates, without an account or a network.

    The result is in build/infra/STAGE: the templates, and REVIEW.md. Exit code 1: there is a finding without a written
    reason, the settings or rules are wrong, or what is deployed cannot become what was synthesized.
    """
    from infra.upgrade.deployment import read_assembly

    # Read before the folder, which may be the same, is written.
    deployed = None if against is None else read_assembly(against)
    if not _checked(stage, rules, deployed, as_json=as_json):
        raise click.exceptions.Exit(1)


def _checked(stage: str, rules: Path, deployed: Deployment | None = None, *, as_json: bool = False) -> bool:
    from infra.assembly import Assembly
    from infra.checks import CHECKS, Found, synthesize_and_check
    from infra.function_assets import find_assets, placeholder_assets
    from infra.reading import read_settings, read_shards
    from infra.review import write_review
    from infra.upgrade.check import refusals
    from infra.upgrade.deployment import read_assembly

    settings = read_settings(stage, os.environ)
    shards = read_shards(rules, settings)
    assets = find_assets(BUILD, settings)
    out = BUILD / "infra" / stage
    found = synthesize_and_check(stage, settings, shards, assets or placeholder_assets(), out)
    assembly = Assembly.read(out)
    if deployed is not None:
        reasons = refusals(deployed, read_assembly(out), STACKS)
        found += [Found("upgrade", "", f"{each} ({gates.WHAT_CANNOT_CHANGE})") for each in reasons]
    review = write_review(assembly, out, stage)
    count = sum(1 for _ in assembly.resources())
    if as_json:
        findings = [{"check": each.check, "place": each.place, "message": each.message} for each in found]
        write_json({"ok": not found, "out": str(out), "resources": count, "findings": findings}, indent=2)
        return not found
    for each in found:
        click.echo(str(each), err=True)
    if assets is None:
        click.echo("note: the functions' assets are not built (make package): the templates hold a placeholder")
    noun = "shard" if len(shards) == 1 else "shards"
    click.echo(f"stage {stage}: {count} resources, {len(shards)} {noun}; {len(found)} findings by {', '.join(CHECKS)}")
    click.echo(f"templates: {out.relative_to(ROOT)}; to review: {review.relative_to(ROOT)}")
    return not found


@main.command()
@STAGE
@RULES
@click.option("--stacks", default="", metavar="NAMES", help=f"These stacks only, of {', '.join(STACKS)}.")
@YES
def deploy(stage: str, rules: Path, stacks: str, yes: bool) -> None:
    """Check the templates and the account, show the difference, ask, and deploy."""
    from infra.assembly import Assembly
    from infra.cdk_cli import run_cdk
    from infra.reading import read_settings, read_shards

    chosen = _stacks(stacks)
    if not _checked(stage, rules):
        click.echo("error: nothing was deployed: fix the findings above, or write down why they are accepted", err=True)
        raise click.exceptions.Exit(1)
    out = BUILD / "infra" / stage
    settings = read_settings(stage, os.environ)
    shards = read_shards(rules, settings)
    account = gates.ready_account(stage, settings, shards, chosen, Assembly.read(out).bootstrap_version, BUILD)
    gates.refuse_what_cannot_become(out, account.region, stage, chosen)
    names = list(chosen) if stacks else ["--all"]
    only = ["--exclusively"] if stacks else []
    click.echo(f"The difference to what is deployed in {account.id}/{account.region}:")
    if run_cdk(["diff", *names, *only], out, account.region):
        raise click.exceptions.Exit(1)
    gates.confirm(f"Deploy stage {stage} to account {account.id}, region {account.region}?", yes)
    outputs = out.with_name(f"{stage}.outputs.json")
    code = run_cdk(
        ["deploy", *names, *only, "--require-approval", "never", "--outputs-file", str(outputs)], out, account.region
    )
    raise click.exceptions.Exit(code)


def _stacks(text: str) -> tuple[str, ...]:
    chosen = tuple(text.replace(",", " ").split())
    unknown = [name for name in chosen if name not in STACKS]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]!r} is not a stack; the stacks are {', '.join(STACKS)}", param_hint="--stacks"
        )
    return chosen or STACKS


@main.command()
@STAGE
@RULES
@YES
def destroy(stage: str, rules: Path, yes: bool) -> None:
    """Delete every stack of a stage, and its data if the setting retain_data is false."""
    import boto3

    from infra.app import synthesize
    from infra.cdk_cli import run_cdk
    from infra.destroying import empty_buckets
    from infra.function_assets import placeholder_assets
    from infra.reading import read_settings, read_shards

    settings = read_settings(stage, os.environ)
    if settings.termination_protection:
        click.echo(
            f"error: nothing was destroyed: stage {stage} has termination_protection; set it to false, `make infra`, and "
            "run this again",
            err=True,
        )
        raise click.exceptions.Exit(1)
    shards = read_shards(rules, settings)
    account = gates.ready_account(stage, settings, shards, (), 0, BUILD)
    out = BUILD / "infra" / stage
    shutil.rmtree(out, ignore_errors=True)
    synthesize(stage, settings, shards, placeholder_assets(), out, nag=False)
    gates.refuse_undeployed_settings(out, account.region, stage, settings)
    data = "its data is kept" if settings.retain_data else "ITS MODELS, RULES, TABLES AND IMAGES ARE DELETED TOO"
    gates.confirm(f"Destroy stage {stage} in account {account.id}, region {account.region}; {data}?", yes)
    *_, last = DESTROYED
    for names in DESTROYED:
        if names == last and not settings.retain_data:
            for name, count in empty_buckets(stage, boto3.Session(region_name=account.region)).items():
                click.echo(f"{name}: {count} versions of objects deleted")
        code = run_cdk(["destroy", *names, "--exclusively", "--force"], out, account.region)
        if code:
            click.echo(f"error: {', '.join(names)} could not be destroyed; what stood on them is gone", err=True)
            raise click.exceptions.Exit(code)


@main.command()
@STAGE
@RULES
@click.option("--move", is_flag=True, help="Write the recommended images into the stage's settings.")
def amis(stage: str, rules: Path, move: bool) -> None:
    """Show the images that a stage's instances are pinned to and those that AWS recommends now."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from infra.amis import pin, pinned, recommended
    from infra.reading import read_settings, read_shards

    settings = read_settings(stage, os.environ)
    shards = read_shards(rules, settings)
    try:
        newest = recommended(shards, boto3.client("ssm"))
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"AWS was not asked: {str(error).splitlines()[0]}") from error
    moves = {kind: each for kind, each in newest.items() if pinned(settings, kind) != each.id}
    for kind, each in newest.items():
        click.echo(f"{kind}: pinned {pinned(settings, kind) or 'to none'}; recommended {each.id} ({each.name})")
    if move and moves:
        file = pin(stage, settings, {kind: each.id for kind, each in moves.items()})
        click.echo(f"{file.relative_to(ROOT)}: written; the next `make infra` replaces these instances one by one")
    elif moves:
        click.echo("`make infra-amis MOVE=1` pins what is recommended")


@main.command()
@STAGE
@click.option("--engine", default="", help="docker, podman or finch; left out: the first of them that is on the PATH.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
def images(stage: str, engine: str, dry_run: bool) -> None:
    """Build the images of a stage that are not in its repositories yet, push them, and wait for their scan.

    Exit code 1: there is no engine, account or repository, a build failed, or a scan found what the settings refuse.
    """
    from infra import image_push
    from infra.image_scans import ScanError, refused_findings
    from infra.images import images_of
    from infra.reading import read_settings

    found = read_settings(stage, os.environ)
    wanted = images_of(found)
    named = image_push.find_engine(engine)
    if dry_run:
        click.echo('AWS_ACCOUNT_ID="$(aws sts get-caller-identity --query Account --output text)"')
        registry = image_push.registry_of("$AWS_ACCOUNT_ID", "$AWS_REGION")
        for line in image_push.dry_run(named, wanted, image_push.Repositories(stage, registry, "$AWS_REGION")):
            click.echo(line)
        return
    import boto3

    session = boto3.Session()
    account = gates.ready_account(stage, found, (), (), 0, BUILD)
    registry = image_push.registry_of(account.id, account.region)
    repositories = image_push.Repositories(stage, registry, account.region)
    image_push.push_images(named, wanted, repositories, session, click.echo)
    refused: list[str] = []
    for image in wanted:
        try:
            refused += refused_findings(session.client("ecr"), repositories.name(image), image.tag, found)
        except ScanError as error:
            refused.append(str(error))
    for finding in refused:
        click.echo(f"error: {finding}", err=True)
    if refused:
        click.echo(
            "The images are pushed, and `make infra` refuses them: build on a newer image, or accept findings with their "
            "reasons in the setting images.accepted",
            err=True,
        )
        raise click.exceptions.Exit(1)


@main.command()
def bootstrap() -> None:
    """Create what CDK needs once per account and region: a bucket for assets, and the roles that deploy."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from infra.cdk_cli import run_cdk

    session = boto3.Session()
    try:
        if session.get_credentials() is None or session.region_name is None:
            raise click.ClickException(
                "nothing was made: it needs AWS credentials and a region (AWS_PROFILE, AWS_REGION)"
            )
        identity = session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"nothing was made: {str(error).splitlines()[0]}") from error
    environment = f"aws://{identity['Account']}/{session.region_name}"
    raise click.exceptions.Exit(run_cdk(["bootstrap", environment], None, session.region_name))


@main.command()
@STAGE
@RULES
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
def costs(stage: str, rules: Path, as_json: bool) -> None:
    """Estimate the monthly cost of a stage, idle and under load, at the list prices in functions/tidegate/capacity/prices.py."""
    from tempfile import TemporaryDirectory

    from tidegate.capacity.prices import PRICE_DATE, PRICE_REGION

    from infra.app import synthesize
    from infra.assembly import Assembly
    from infra.costs import LOADS, assumptions_table, cost_lines, cost_table, totals
    from infra.function_assets import placeholder_assets
    from infra.reading import read_settings, read_shards

    settings = read_settings(stage, os.environ)
    shards = read_shards(rules, settings)
    with TemporaryDirectory() as folder:
        assembly = Assembly.read(synthesize(stage, settings, shards, placeholder_assets(), Path(folder), nag=False))
    lines = cost_lines(assembly, shards, settings)
    if as_json:
        names = [load.name for load in LOADS]
        found = [
            {"what": line.what, "arithmetic": line.how, **dict(zip(names, line.dollars, strict=True))} for line in lines
        ]
        result = {"currency": "USD", "prices": {"date": PRICE_DATE, "region": PRICE_REGION}, "lines": found}
        write_json(result | {"sums": dict(zip(names, totals(lines), strict=True))}, indent=2)
        return
    click.echo(cost_table(lines))
    click.echo()
    click.echo(assumptions_table())


@main.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail where the page is not as it would be.")
def settings(only_check: bool) -> None:
    """Write docs/infra-settings.md from the settings' model."""
    from infra.settings_page import PAGE, page

    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        click.echo(f"{PAGE.relative_to(ROOT)}: current")
    elif only_check:
        click.echo(f"error: {PAGE.relative_to(ROOT)} is not current: run `python -m infra settings`", err=True)
        raise click.exceptions.Exit(1)
    else:
        PAGE.write_text(text, encoding="utf-8")
        click.echo(f"{PAGE.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main(prog_name="python -m infra")
