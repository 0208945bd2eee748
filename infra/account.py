"""Checks of a deployment's prerequisites in the account, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra.image_push import ImageError, Repositories, is_pushed, registry_of
from infra.image_scans import ScanError, refused_findings
from infra.images import images_of
from infra.settings import Settings

BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
"""The parameter in which `cdk bootstrap` stores its version."""

REGION_HINT = "set AWS_REGION"

PARTITIONS = ("aws", "aws-us-gov")
"""The partition whose services have addresses under amazonaws.com, which functions, servers and policies use."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account and region of a deployment."""

    id: str
    region: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """The account (None: unknown), what is missing, and what could not be checked."""

    account: Account | None
    missing: tuple[str, ...]
    unchecked: tuple[str, ...]


def preflight(stage: str, settings: Settings, stacks: Sequence[str], bootstrap_version: int, session: Any) -> Preflight:
    """Check everything that a deployment of `stacks` needs, without changes.

    Args:
        stage: the stage's name.
        settings: its settings.
        stacks: the stacks that will be deployed, such as `Fleet`.
        bootstrap_version: the version of the CDK bootstrap stack that the assembly needs.
        session: a boto3 session.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    problems: list[str] = []
    region = session.region_name
    if region is None:
        problems.append(f"an AWS region: {REGION_HINT}")
    elif (partition := _partition(session, region)) not in PARTITIONS:
        problems.append(
            f"a region of the partitions {' and '.join(PARTITIONS)}: {region} is of {partition}, where addresses of services end "
            "otherwise, which is not supported"
        )
    later = [
        "the CDK bootstrap stack",
        *(["the availability zones"] if "Network" in stacks else []),
        *(["the images"] if "Fleet" in stacks else []),
    ]
    if problems and region is not None:
        return Preflight(None, tuple(problems), tuple(later))
    try:
        if session.get_credentials() is None:
            raise LookupError
        # The region does not matter for who one is, and may still be missing.
        identity = session.client("sts", region_name=region or "us-east-1").get_caller_identity()
    except LookupError:
        problems.append(
            "AWS credentials: run `aws configure sso` or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        return Preflight(None, tuple(problems), tuple(later))
    except (BotoCoreError, ClientError) as error:
        problems.append(f"valid AWS credentials: {_words(error)}")
        return Preflight(None, tuple(problems), tuple(later))
    if region is None:
        return Preflight(None, tuple(problems), tuple(later))
    account = Account(identity["Account"], region)
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "the CDK bootstrap stack": lambda: _bootstrap(session, account, bootstrap_version),
    }
    if "Network" in stacks:
        checks["the availability zones"] = lambda: _zones(session, account, settings)
    problems += _certificates(account, settings, stacks)
    if "Fleet" in stacks:
        checks["the images"] = lambda: _images(session, account, stage, settings)
    unchecked = []
    for what, check in checks.items():
        try:
            problems += check()
        except (BotoCoreError, ClientError) as error:
            unchecked.append(f"{what}: {_words(error)}")
    return Preflight(account, tuple(problems), tuple(unchecked))


def _partition(session: Any, region: str) -> str:
    from botocore.exceptions import UnknownRegionError

    try:
        return str(session.get_partition_for_region(region))
    except UnknownRegionError:
        return "none that is known"


def _bootstrap(session: Any, account: Account, wanted: int) -> Iterator[str]:
    ssm = session.client("ssm")
    try:
        version = int(ssm.get_parameter(Name=BOOTSTRAP_PARAMETER)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        version = 0
    if version < wanted:
        state = f"its version is {version}, needed is {wanted}" if version else "there is none"
        yield (f"the CDK bootstrap stack in {account.id}/{account.region} ({state}): run `make infra-bootstrap`")


def _zones(session: Any, account: Account, settings: Settings) -> Iterator[str]:
    kinds = [{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
    zones = session.client("ec2").describe_availability_zones(Filters=kinds)["AvailabilityZones"]
    if len(zones) < settings.availability_zones:
        yield (
            f"{settings.availability_zones} availability zones in {account.region}, which has {len(zones)} for this account: lower "
            "the setting availability_zones, or choose another region"
        )


def _certificates(account: Account, settings: Settings, stacks: Sequence[str]) -> Iterator[str]:
    """API Gateway and load balancers need a certificate in their own region and account; CloudFront needs one in us-east-1."""
    wanted = []
    if settings.data_plane == "envoy" and settings.envoy is not None and "Fleet" in stacks:
        wanted.append(("envoy.certificate_arn", settings.envoy.certificate_arn, account.region))
    if settings.domain is not None and "Edge" in stacks:
        wanted.append(("domain.certificate_arn", settings.domain.certificate_arn, account.region))
    if settings.cloudfront is not None and "Edge" in stacks:
        wanted.append(("cloudfront.certificate_arn", settings.cloudfront.certificate_arn, "us-east-1"))
    for setting, arn, region in wanted:
        _, _, _, has, owner, _ = arn.split(":", 5)
        if (has, owner) != (region, account.id):
            yield f"a certificate of account {account.id} in {region}: the setting {setting} names one of {owner} in {has}"


def _images(session: Any, account: Account, stage: str, settings: Settings) -> Iterator[str]:
    ecr = session.client("ecr")
    repositories = Repositories(stage, registry_of(account.id, account.region), account.region)
    wanted = [(image.name, image.tag, f"run `make images STAGE={stage}`") for image in images_of(settings)]
    exporter = settings.triton.dcgm_exporter_tag
    if exporter is not None:
        how = "pull nvcr.io/nvidia/k8s/dcgm-exporter and push it, see docs/operations.md#a-gpu-is-broken"
        wanted.append(("dcgm-exporter", exporter, how))
    for image, tag, how in wanted:
        name = f"tidegate-{stage}/{image}"
        try:
            if is_pushed(ecr, name, tag):
                for finding in refused_findings(ecr, name, tag, settings, wait_s=0):
                    yield f"an image without refused findings: {finding}; see docs/operations.md#push-the-images"
            else:
                yield f"the image {repositories.registry}/{name}:{tag}: {how}"
        except (ImageError, ScanError) as error:
            yield str(error)


def _words(error: Exception) -> str:
    return str(error).splitlines()[0]
