"""`python -m infra`: what it says and does without an account, and what it asks one before it changes anything."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from tidegate.errors import SettingsError
from tidegate.language.documents import ShardSpec

from infra.__main__ import STACKS as STACK_NAMES
from infra.__main__ import main
from infra.account import BOOTSTRAP_PARAMETER, Account, Preflight, preflight
from infra.amis import pin, recommended
from infra.destroying import empty_buckets, undeployed_settings
from infra.images import image_tags
from infra.reading import read_settings
from infra.review import write_review
from infra.settings import Settings
from infra.shards import to_shards
from infra.upgrade.deployment import Deployment
from tests.infra.conftest import Made
from tests.infra.deployed import AWS_VARIABLES
from tests.infra.fleets import write_rules
from tests.infra.setting_values import CLOUDFRONT, DOMAIN, JWT
from tests.support.aws import local_server
from tests.support.findings import without_columns
from tests.support.stack import ROOT

SETTINGS = Settings.model_validate({})
STACKS = ("Storage", "Network", "Fleet")
BOOTSTRAP_VERSION = 6


NOWHERE = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""No credentials, whatever this machine has."""


def infra(*arguments: str, **variables: str) -> Result:
    """Run a command without credentials; in this process, which has started CDK already."""
    dropped = {name: None for name in os.environ if name.startswith(("AWS_", "TIDEGATE_"))}
    with contextlib.chdir(ROOT):
        done = CliRunner().invoke(main, arguments, env=dropped | NOWHERE | variables)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


MISSING = (
    "nothing was changed. Missing:",
    "an AWS region: set AWS_REGION",
    "AWS credentials: run `aws configure sso`",
    "the setting ami.gpu: run `make infra-amis STAGE=dev MOVE=1`",
    "not looked at: the CDK bootstrap stack",
    "not looked at: the images",
    "docs/operations.md",
)
"""What a deployment without an account tells."""


def test_a_deployment_without_an_account_names_all_that_is_missing(quick: Path) -> None:
    done = infra("deploy", "--stage", "dev")
    assert done.exit_code == 1
    assert "0 findings by cdk-nag, audit, cfn-lint, checkov" in done.stdout
    assert "to review: build/infra/dev/REVIEW.md" in done.stdout
    assert [named for named in MISSING if named not in done.stderr] == []


@pytest.mark.slow
def test_a_deployment_is_a_program_that_audits_what_it_would_deploy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra", "deploy", "--stage", "dev"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TIDEGATE_"))} | NOWHERE,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert "0 findings by cdk-nag, audit, cfn-lint, checkov" in done.stdout
    assert [named for named in MISSING if named not in done.stderr] == []
    assert "Traceback" not in done.stderr


def test_it_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra", "check", "--stage", "staging"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, "stage 'staging' has no settings" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "told"),
    [
        (("check", "--stage", "staging"), {}, 1, "stage 'staging' has no settings"),
        (("check", "--rules", "nowhere"), {}, 2, "Directory 'nowhere' does not exist"),
        (
            ("check",),
            {"TIDEGATE_INFRA_ENTRY_POINT": "window"},
            1,
            "TIDEGATE_INFRA_ENTRY_POINT: 'entry_point' is the text 'window'",
        ),
        (("deploy", "--stacks", "Everything"), {}, 2, "'Everything' is not a stack; the stacks are Storage, Network"),
        (("destroy", "--stage", "prod"), {}, 1, "stage prod has termination_protection"),
        (("destroy", "--stage", "dev"), {}, 1, "error: nothing was changed. Missing:"),
        (("bootstrap",), {}, 1, "it needs AWS credentials and a region"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_told_in_words(
    arguments: tuple[str, ...], variables: Mapping[str, str], code: int, told: str
) -> None:
    done = infra(*arguments, **variables)
    assert done.exit_code == code, done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (("check", "--json"), {"TIDEGATE_INFRA_ENTRY_POINT": "window"}, 1),
        (("check", "--json", "--stage", "staging"), {}, 1),
        (("costs", "--json", "--stage", "staging"), {}, 1),
        (("check", "--json", "--rules", "nowhere"), {}, 2),
        (("costs", "--json", "--no-such-option"), {}, 2),
    ],
)
def test_a_failure_is_json_where_that_is_asked_for(
    arguments: tuple[str, ...], variables: Mapping[str, str], code: int
) -> None:
    done = infra(*arguments, **variables)
    told = json.loads(done.stdout)
    assert told["format_version"] == 1
    assert (done.exit_code, told["ok"], told["exit_code"]) == (code, False, code)
    assert told["error"].splitlines()[-1] in done.stderr


def test_a_folder_without_the_templates_of_a_stage_is_no_deployment(tmp_path: Path) -> None:
    for name, text, told in (
        ("empty", None, "manifest.json: No such file or directory"),
        ("cut", '{"artifacts": {', "manifest.json is not JSON"),
        ("other", "[1]", "does not hold the templates of a stage"),
        ("older", '{"artifacts": {"Storage": {"type": "aws:cloudformation:stack"}}}', "does not hold the templates"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if text is not None:
            (folder / "manifest.json").write_text(text)
        done = CliRunner().invoke(main, ["check", "--json", "--against", str(folder)])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit), done.exception
        assert told in json.loads(done.stdout)["error"]
        assert str(folder) in done.stderr


def test_a_shard_that_cannot_be_deployed_is_told_with_its_line(tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": {}, "b": {"instance_type": "m7g.xlarge"}})
    done = infra("check", "--rules", str(rules))
    assert done.exit_code == 1
    assert "fleet.yaml:4: 'm7g.xlarge' cannot run Triton: its CPUs are Arm" in without_columns(done.stderr)


def test_costs_are_printed_as_json_too() -> None:
    found = json.loads(infra("costs", "--json").stdout)
    assert (next(iter(found)), found["format_version"]) == ("format_version", 1)
    assert found["prices"]["region"] == "us-east-1"
    for load, total in found["sums"].items():
        assert total == pytest.approx(sum(round(line[load], 2) for line in found["lines"]))


def test_what_a_setting_adds_to_the_costs_is_a_line() -> None:
    chosen = {
        "TIDEGATE_INFRA_AUTHORIZER": json.dumps(JWT),
        "TIDEGATE_INFRA_DOMAIN": json.dumps(DOMAIN),
        "TIDEGATE_INFRA_CLOUDFRONT": json.dumps(CLOUDFRONT),
        "TIDEGATE_INFRA_RESOLVE__PROVISIONED_CONCURRENCY": "10",
        "TIDEGATE_INFRA_GATEWAY__SNAP_START": "true",
    }
    found = json.loads(infra("costs", "--json", **chosen).stdout)
    lines = {line["what"]: line for line in found["lines"]}
    assert lines["resolve, 10 environments kept ready"]["idle"] == pytest.approx(10 * 0.5 * 730 * 3600 * 0.0000033334)
    assert lines["gateway, its snapshot"]["idle"] > 0
    for what in ("gateway, restores of it", "CloudFront, requests", "web ACL, requests"):
        assert lines[what]["idle"] == 0 < lines[what]["10 M requests"] < lines[what]["1 G requests"], what
    assert lines["web ACL, without its rules"]["idle"] == 5
    assert lines["the job that publishes"]["idle"] > 0


def test_a_price_that_is_not_known_is_told(tmp_path: Path) -> None:
    shards = {"a": {"instance_type": "p5.48xlarge"}, "b": {"alternative_types": ["g4dn.2xlarge", "g7.2xlarge"]}}
    rules = write_rules(tmp_path / "rules", shards)
    done = infra("costs", "--rules", str(rules))
    assert done.exit_code == 1
    assert "no price is known of g7.2xlarge (shard 'b'), p5.48xlarge (shard 'a'): state dollars an hour" in done.stderr
    prices = "{g7.2xlarge: 1.5, p5.48xlarge: 55.04}"
    done = infra("costs", "--rules", str(rules), "--json", TIDEGATE_INFRA_PRICES=prices)
    lines = {line["what"]: line["arithmetic"] for line in json.loads(done.stdout)["lines"]}
    assert "730 h × 55.04 for p5.48xlarge" in lines["instances of shard a"]
    assert "730 h × 1.5 for g7.2xlarge" in lines["instances of shard b"], "the dearest of them"


@pytest.fixture(scope="module")
def session() -> Iterator[boto3.Session]:
    """An account on this machine."""
    with local_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**AWS_VARIABLES, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        yield boto3.Session()


def looked_at(session: Any) -> Preflight:
    return preflight("dev", SETTINGS, STACKS, BOOTSTRAP_VERSION, session)


def test_an_account_is_asked_for_everything_in_the_order_in_which_it_is_made(session: Any) -> None:
    first = looked_at(session)
    assert first.account is not None
    assert (first.account.region, first.unchecked) == ("us-east-1", ())
    bootstrap, *repositories = first.missing
    assert "(there is none): run `make infra-bootstrap`" in bootstrap
    assert len(repositories) == 2
    assert all("make infra STAGE=dev STACKS='Storage Network'" in each for each in repositories)

    session.client("ssm").put_parameter(Name=BOOTSTRAP_PARAMETER, Value="5", Type="String")
    assert "its version is 5, needed is 6" in looked_at(session).missing[0]
    session.client("ssm").put_parameter(Name=BOOTSTRAP_PARAMETER, Value="6", Type="String", Overwrite=True)

    ecr = session.client("ecr")
    for name in ("triton", "agent"):
        ecr.create_repository(repositoryName=f"tidegate-dev/{name}")
    triton, agent = looked_at(session).missing
    tags = image_tags(SETTINGS)
    assert f"/tidegate-dev/triton:{tags['triton']}: run `make images STAGE=dev`" in triton
    assert f"/tidegate-dev/agent:{tags['agent']}: run `make images STAGE=dev`" in agent

    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    for name, tag in tags.items():
        ecr.put_image(repositoryName=f"tidegate-dev/{name}", imageManifest=json.dumps(manifest), imageTag=tag)
    assert all("has not ended" in each for each in looked_at(session).missing), "the scans"
    for name, tag in tags.items():
        ecr.start_image_scan(repositoryName=f"tidegate-dev/{name}", imageId={"imageTag": tag})
    assert looked_at(session).missing == ()


@pytest.mark.parametrize("region", ["cn-north-1", "us-iso-east-1"])
def test_a_region_whose_services_have_other_addresses_is_refused(region: str) -> None:
    refused = preflight("dev", SETTINGS, STACKS, BOOTSTRAP_VERSION, boto3.Session(region_name=region))
    assert refused.account is None
    assert f"{region} is of aws-" in refused.missing[0]


def test_a_stage_whose_data_is_not_kept_is_emptied_before_it_goes(session: Any) -> None:
    assert empty_buckets("dev", session) == {}, "a stage that is not there"
    bucket = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Delete"}
    template = {
        "Resources": {"Bucket": bucket, "Logs": bucket},
        "Outputs": {"BucketName": {"Value": {"Ref": "Bucket"}}, "LogsBucketName": {"Value": {"Ref": "Logs"}}},
    }
    session.client("cloudformation").create_stack(StackName="tidegate-dev-storage", TemplateBody=json.dumps(template))
    outputs = session.client("cloudformation").describe_stacks(StackName="tidegate-dev-storage")["Stacks"][0]["Outputs"]
    name = next(each["OutputValue"] for each in outputs if each["OutputKey"] == "BucketName")
    s3 = session.client("s3")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for text in (b"1", b"2"):
        s3.put_object(Bucket=name, Key="models/a", Body=text)
    s3.delete_object(Bucket=name, Key="models/a")
    assert empty_buckets("dev", session)[name] == 3, "two versions and a marker"
    assert "Versions" not in s3.list_object_versions(Bucket=name)


def test_buckets_are_emptied_after_everything_that_writes_into_them_is_gone(
    session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = {"Type": "AWS::S3::Bucket"}
    template = {
        "Resources": {"Bucket": bucket, "Logs": bucket},
        "Outputs": {"BucketName": {"Value": {"Ref": "Bucket"}}, "LogsBucketName": {"Value": {"Ref": "Logs"}}},
    }
    stack, cloudformation, s3 = "tidegate-dev-storage", session.client("cloudformation"), session.client("s3")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    names = [each["OutputValue"] for each in outputs]
    calls: list[list[str]] = []

    def destroy(arguments: list[str], _assembly: Path | None, _region: str) -> int:
        calls.append(arguments)
        for name in names:
            if "Fleet" in arguments:
                s3.put_object(Bucket=name, Key="balancers/last", Body=b"what a balancer wrote while it went")
            else:
                assert s3.list_object_versions(Bucket=name).get("Versions", []) == []
                assert json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"][0]["Effect"] == "Deny"
        return 0

    monkeypatch.setattr("infra.cdk_cli.run_cdk", destroy)
    can_be_destroyed(monkeypatch)
    monkeypatch.setenv("TIDEGATE_INFRA_RETAIN_DATA", "false")
    done = CliRunner().invoke(main, ["destroy", "--yes"])
    assert done.exit_code == 0, done.output
    assert [set(each) & set(STACK_NAMES) for each in calls] == [set(STACK_NAMES) - {"Storage"}, {"Storage"}]


@pytest.mark.parametrize(
    ("settings", "stack", "told"),
    [
        (
            {"domain": DOMAIN},
            "Edge",
            "in us-east-1: the setting domain.certificate_arn names one of 111122223333 in eu-west-1",
        ),
        (
            {
                "domain": DOMAIN | {"certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/1a2b"},
                "authorizer": JWT,
                "cloudfront": CLOUDFRONT,
            },
            "Edge",
            "in us-east-1: the setting cloudfront.certificate_arn names one of 111122223333 in us-east-1",
        ),
        ({"availability_zones": 3}, "Network", "3 availability zones in us-west-1, which has 2 for this account"),
    ],
)
def test_what_the_account_or_the_region_does_not_have_is_missing(
    session: Any, settings: Mapping[str, Any], stack: str, told: str
) -> None:
    region = "us-west-1" if stack == "Network" else "us-east-1"
    there = boto3.Session(region_name=region)
    result = preflight("dev", Settings.model_validate(settings), (stack,), 0, there)
    (missing,) = result.missing
    assert told in missing
    assert preflight("dev", SETTINGS, (stack,), 0, there).missing == ()


def can_be_destroyed(monkeypatch: pytest.MonkeyPatch, prefix: str = "tidegate-dev") -> None:
    """Let `destroy` of the stage `dev` get as far as to what is deployed, without a synthesis."""
    names = {path: f"{prefix}-{path.lower()}" for path in STACK_NAMES}
    monkeypatch.setattr("infra.gates.ready_account", lambda *_: Account("111122223333", "us-east-1"))
    monkeypatch.setattr("infra.app.synthesize", lambda *_, **__: None)
    monkeypatch.setattr("infra.upgrade.deployment.read_assembly", lambda _: Deployment({}, names))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.parametrize(("policy", "setting"), [("Delete", "true"), ("Retain", "false"), (None, "true")])
def test_a_stage_whose_data_would_not_be_kept_or_deleted_as_the_settings_say_is_not_destroyed(
    session: Any, monkeypatch: pytest.MonkeyPatch, policy: str | None, setting: str
) -> None:
    table = {
        "Type": "AWS::DynamoDB::Table",
        **({} if policy is None else {"DeletionPolicy": policy}),
        "Properties": {
            "AttributeDefinitions": [{"AttributeName": "a", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "a", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
    }
    stack, cloudformation = "tidegate-dev-storage", session.client("cloudformation")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps({"Resources": {"Facts": table}}))
    calls: list[list[str]] = []
    monkeypatch.setattr("infra.cdk_cli.run_cdk", lambda arguments, *_: calls.append(arguments) or 0)
    can_be_destroyed(monkeypatch)
    monkeypatch.setenv("TIDEGATE_INFRA_RETAIN_DATA", setting)
    done = CliRunner().invoke(main, ["destroy", "--yes"])
    assert (done.exit_code, calls) == (1, [])
    assert "nothing was destroyed" in done.output
    assert "Storage/Facts (AWS::DynamoDB::Table)" in done.output
    assert f"retain_data is {setting}" in done.output
    assert "make infra STAGE=dev" in done.output


def test_a_stage_that_is_deployed_with_termination_protection_is_not_destroyed(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudformation = session.client("cloudformation")
    body = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    cloudformation.create_stack(StackName="protected-network", TemplateBody=body, EnableTerminationProtection=True)
    calls: list[list[str]] = []
    monkeypatch.setattr("infra.cdk_cli.run_cdk", lambda arguments, *_: calls.append(arguments) or 0)
    can_be_destroyed(monkeypatch, "protected")
    done = CliRunner().invoke(main, ["destroy", "--yes"])
    assert (done.exit_code, calls) == (1, [])
    assert "Network is deployed with termination protection" in done.output


def test_what_the_settings_say_of_data_is_what_the_storage_stack_says(project: Made, other: Made) -> None:
    for made, stage, chosen in ((project, "prod", {}), (other, "test", {"retain_data": False})):
        settings = Settings.model_validate(chosen | {"termination_protection": True})
        names: dict[str, str] = {}
        assert list(undeployed_settings(settings, made.assembly.templates["Storage"], names, None)) == [], stage


def test_the_outputs_that_are_emptied_are_those_of_the_template(project: Made) -> None:
    assert {"BucketName", "LogsBucketName"} <= set(project.assembly.templates["Storage"]["Outputs"])


def test_the_review_lists_every_right_and_every_accepted_finding(project: Made, tmp_path: Path) -> None:
    text = write_review(project.assembly, tmp_path, "prod").read_text(encoding="utf-8")
    for policy in project.assembly.resources("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        assert f"| {policy.template}/{policy.id} |" in text
    assert "secretsmanager:GetSecretValue" in text
    assert "| CKV_AWS_131 | Names of parameters may hold an underscore" in text
    assert f"| Fleet | {len(project.assembly.templates['Fleet']['Resources'])} |" in text


def test_the_images_of_instances_are_pinned_and_moved(session: Any, tmp_path: Path) -> None:
    settings = Settings.model_validate({})
    shards = to_shards({"a": ShardSpec(), "b": ShardSpec(instance_type="c7i.4xlarge")}, settings)
    newest = recommended(shards, session.client("ssm"))
    assert set(newest) == {"cpu", "gpu"}
    assert newest["gpu"].id.startswith("ami-")
    assert "gpu" in newest["gpu"].name
    file = tmp_path / "dev.yaml"
    file.write_text("# why\nretain_data: false # here\n", encoding="utf-8")
    pin("dev", settings, {"gpu": newest["gpu"].id}, tmp_path)
    pinned_once = read_settings("dev", {}, tmp_path)
    assert pinned_once.ami.gpu == newest["gpu"].id
    assert pinned_once.ami.cpu is None
    pin("dev", pinned_once, {"gpu": "ami-00000000", "cpu": "ami-11111111"}, tmp_path)
    assert file.read_text() == "# why\nretain_data: false # here\nami: {cpu: ami-11111111, gpu: ami-00000000}\n"
    file.write_text("ami:\n  gpu: ami-00000000\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"several lines; replace it by: ami: \{gpu: ami-22222222\}"):
        pin("dev", Settings.model_validate({}), {"gpu": "ami-22222222"}, tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Commands that synthesize into a folder of the test's own, and have the audits left out; the folder."""

    # It starts Node.js, in each worker that collects this.
    from infra.app import synthesize

    def synthesized(stage: str, settings: Settings, shards: Any, assets: Any, out: Path) -> list[Any]:
        shutil.rmtree(out, ignore_errors=True)
        synthesize(stage, settings, shards, assets, out, nag=False)
        return []

    monkeypatch.setattr("infra.checks.synthesize_and_check", synthesized)
    monkeypatch.setattr("infra.__main__.ROOT", tmp_path)
    monkeypatch.setattr("infra.__main__.BUILD", tmp_path / "build")
    return tmp_path / "build" / "infra" / "dev"


def test_a_change_that_cannot_be_deployed_is_found_against_a_kept_assembly(quick: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["check"]).exit_code == 0
    kept = shutil.copytree(quick, tmp_path / "kept")
    assert CliRunner().invoke(main, ["check", "--against", str(kept)]).exit_code == 0
    other = {"TIDEGATE_INFRA_ENCRYPTION": "service_managed"}
    done = CliRunner().invoke(main, ["check", "--json", "--against", str(kept)], env=other)
    assert done.exit_code == 1
    printed = json.loads(done.stdout)
    assert printed["format_version"] == 1
    found = [each["message"] for each in printed["findings"] if each["check"] == "upgrade"]
    assert found[0].startswith("the setting encryption was 'customer_key' at the first deployment and cannot become")
    assert all("docs/operations.md#what-cannot-change" in each for each in found)


def test_a_deployment_that_would_lose_data_changes_nothing(
    quick: Path, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = {"Resources": {"OldBucket": {"Type": "AWS::S3::Bucket"}}}
    stack = "tidegate-dev-storage"
    session.client("cloudformation").delete_stack(StackName=stack)
    session.client("cloudformation").create_stack(StackName=stack, TemplateBody=json.dumps(deployed))
    monkeypatch.setattr("infra.gates.ready_account", lambda *_: Account("111122223333", "us-east-1"))
    monkeypatch.setattr("infra.cdk_cli.run_cdk", lambda *_: pytest.fail("CDK was run"))
    done = CliRunner().invoke(main, ["deploy", "--yes"])
    assert done.exit_code == 1
    assert "nothing was changed: stage dev as it is deployed cannot become this" in done.stderr
    assert "  - Storage/OldBucket (AWS::S3::Bucket) holds data and would be deleted\n" in done.stderr
    session.client("cloudformation").delete_stack(StackName=stack)
