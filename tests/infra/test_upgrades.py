"""A stage that is deployed can be deployed again with other settings and shards, or is refused with words."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from pydantic import ValidationError

from infra.fixed_settings import fixed_fields
from infra.function_assets import placeholder_assets
from infra.reading import read_shards
from infra.setting_conflicts import conflicts
from infra.settings import Settings
from infra.upgrade.check import refusals
from infra.upgrade.deployment import NESTED, Deployment, read_assembly, read_deployed
from tests.infra.fleets import write_rules
from tests.infra.setting_values import CLOUDFRONT, DOMAIN, ENVOY, JWT, alternatives

STACKS = ("Storage", "Network", "Fleet", "Functions", "Edge", "Observability")
SHARDS: Mapping[str, Any] = {"alpha": {"replicas": 2}, "beta": {"scale_to_zero": True, "max_replicas": 3}}


BOTH_ADDRESSES = DOMAIN | {"default_address": True}
NOT_ENFORCED = CLOUDFRONT | {"enforced": False}
KEY, NEXT_KEY = *CLOUDFRONT["key_versions"], "11111111-4b5a-6978-8796-a5b4c3d2e1f0"


class Synthesized:
    """Deployments by settings and shards, each made once for all processes of a test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Deployment] = {}

    def __call__(self, settings: Mapping[str, Any], shards: Mapping[str, Any] = SHARDS) -> Deployment:
        key = hashlib.sha256(json.dumps([settings, shards], sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._read:
            kept = self._folder / key
            if not kept.exists():
                self._make(kept, settings, shards)
            self._read[key] = read_assembly(kept / "out")
        return self._read[key]

    def _make(self, kept: Path, settings: Mapping[str, Any], shards: Mapping[str, Any]) -> None:
        # It starts Node.js, in each worker that collects this.
        from infra.app import synthesize

        checked = Settings.model_validate(settings)
        assert not conflicts(checked)
        made = Path(f"{kept}.{id(self)}")
        found = read_shards(write_rules(made / "rules", shards), checked)
        synthesize("test", checked, found, placeholder_assets(), made / "out", nag=False)
        try:
            made.rename(kept)
        except OSError:
            shutil.rmtree(made)  # another process was first


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    own = tmp_path_factory.getbasetemp()
    # Workers of one run share what is above their own folders.
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "upgrades"
    folder.mkdir(exist_ok=True)
    return Synthesized(folder)


SECOND_DEPLOYMENTS: dict[str, Mapping[str, Any]] = {
    "environments kept ready": {"gateway": {"provisioned_concurrency": 2}},
    "no rollback by alarm": {"alarms": {"rollback": False, "emails": ["ops@example.com"]}},
    "both": {"entry_point": "both", "nat_gateways": 1},
    "a token, and a domain": {"authorizer": JWT, "domain": BOTH_ADDRESSES, "log_retention_days": 7},
    "CloudFront, with a firewall": {"authorizer": JWT, "domain": BOTH_ADDRESSES, "cloudfront": NOT_ENFORCED},
    "a zone more, and NAT": {"availability_zones": 3, "nat_gateways": 3},
    "snapshots": {"python_version": "3.12", "gateway": {"snap_start": True}},
    "Envoy as the data plane": {"data_plane": "envoy", "envoy": ENVOY, "authorizer": JWT, "nat_gateways": 1},
    "the pointer at the agents": {"pointer_cache": True},
    "nothing kept": {"retain_data": False, "termination_protection": True, "architecture": "x86_64"},
}


@pytest.mark.parametrize("change", SECOND_DEPLOYMENTS.values(), ids=SECOND_DEPLOYMENTS)
def test_a_documented_change_is_deployable_there_and_back(synthesized: Synthesized, change: Mapping[str, Any]) -> None:
    first, second = synthesized({}), synthesized(change)
    assert refusals(first, second, STACKS) == []
    back = refusals(second, first, STACKS)
    assert bool(back) == ("availability_zones" in change)
    assert all("availability_zones" in each or "Subnet3" in each for each in back)


def test_a_function_starts_from_a_snapshot_where_the_setting_says_so(synthesized: Synthesized) -> None:
    functions = synthesized(SECOND_DEPLOYMENTS["snapshots"]).templates["Functions"]["Resources"].values()
    started = {
        body["Properties"]["FunctionName"]: body["Properties"]["SnapStart"]
        for body in functions
        if body["Type"] == "AWS::Lambda::Function" and "SnapStart" in body["Properties"]
    }
    assert started == {"tidegate-test-gateway": {"ApplyOn": "PublishedVersions"}}


def test_cloudfront_sends_a_key_and_the_api_knows_it(synthesized: Synthesized) -> None:
    templates = synthesized(SECOND_DEPLOYMENTS["CloudFront, with a firewall"]).templates
    (distribution,) = [
        body["Properties"]["DistributionConfig"]
        for body in templates["Edge"]["Resources"].values()
        if body["Type"] == "AWS::CloudFront::Distribution"
    ]
    assert distribution["WebACLId"] == CLOUDFRONT["web_acl_arn"]
    assert distribution["Aliases"] == [DOMAIN["name"]]
    (header,) = distribution["Origins"][0]["OriginCustomHeaders"]
    assert header["HeaderName"] == "Tidegate-Edge-Key"
    keys = [
        body["Properties"]["Environment"]["Variables"].get("TIDEGATE_EDGE_KEY")
        for body in templates["Functions"]["Resources"].values()
        if body["Type"] == "AWS::Lambda::Function"
    ]
    assert [key for key in keys if key] == [header["HeaderValue"]] * 2, "the gateway's and the resolver's"
    assert "{{resolve:secretsmanager:" in json.dumps(header["HeaderValue"]), "a reference, not a value"
    assert f":SecretString:::{KEY}" in json.dumps(header["HeaderValue"]), (
        "of a version: another one changes the template"
    )
    for template in synthesized({}).templates.values():
        assert "TIDEGATE_EDGE_KEY" not in json.dumps(template)


def fronted(*versions: str, **changes: Any) -> dict[str, Any]:
    """A stage behind CloudFront, with versions of its key."""
    cloudfront = CLOUDFRONT | {"key_versions": list(versions or [KEY])} | changes
    return {"authorizer": JWT, "domain": DOMAIN, "cloudfront": cloudfront}


ADDRESSES: dict[str, list[Mapping[str, Any]]] = {
    "a domain": [{}, {"domain": BOTH_ADDRESSES}, {"domain": DOMAIN}],
    "another domain": [
        {"domain": DOMAIN},
        {"domain": BOTH_ADDRESSES},
        {"domain": BOTH_ADDRESSES | {"name": "other.example.com"}},
        {"domain": DOMAIN | {"name": "other.example.com"}},
    ],
    "CloudFront": [{"authorizer": JWT, "domain": DOMAIN}, fronted(enforced=False), fronted()],
    "another key": [fronted(KEY), fronted(NEXT_KEY, KEY), fronted(NEXT_KEY)],
    "a Function URL instead": [{}, {"entry_point": "both"}, {"entry_point": "function_url"}],
}
"""What changes the addresses, and each step on the way."""

ADDRESSES |= {f"{name}, and back": steps[::-1] for name, steps in ADDRESSES.items() if name != "another key"}


@pytest.mark.parametrize("steps", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_goes_only_after_another_was_there(synthesized: Synthesized, steps: list[Mapping[str, Any]]) -> None:
    made = [synthesized(each) for each in steps]
    assert [refusals(before, after, STACKS) for before, after in pairwise(made)] == [[]] * (len(made) - 1)
    (reason,) = refusals(made[0], made[-1], STACKS)
    assert "callers would be left without an address" in reason
    assert refusals(Deployment({}, {}), made[-1], STACKS) == [], "a first deployment has no callers"


@pytest.mark.parametrize("stack", ["Functions", "Edge"])
def test_a_key_is_not_rotated_in_one_stack_alone(synthesized: Synthesized, stack: str) -> None:
    (reason,) = refusals(synthesized(fronted(KEY)), synthesized(fronted(NEXT_KEY)), (stack,))
    assert "callers would be left without an address" in reason


def test_a_written_reason_denies_no_secret_that_is_there(synthesized: Synthesized) -> None:
    change = SECOND_DEPLOYMENTS["CloudFront, with a firewall"]
    templates = synthesized({**change, "encryption": "service_managed"}).templates
    functions = [
        (body["Properties"]["Environment"]["Variables"], json.dumps(body["Metadata"]))
        for body in templates["Functions"]["Resources"].values()
        if body["Type"] == "AWS::Lambda::Function"
    ]
    assert len(functions) == 7
    for variables, reasons in functions:
        assert "CKV_AWS_173" in reasons
        assert ("No variable holds a secret" in reasons) == ("TIDEGATE_EDGE_KEY" not in variables)


FLEETS: dict[str, Mapping[str, Any]] = {
    "a shard more": {**SHARDS, "gamma": {}},
    "a shard less": {"alpha": SHARDS["alpha"]},
    "a shard renamed": {"alpha": SHARDS["alpha"], "beta2": SHARDS["beta"]},
    "other instances, spot, always on": {
        "alpha": {"replicas": 3, "instance_type": "c7i.4xlarge", "spot_percent": 50},
        "beta": {"replicas": 1, "instance_type": "g5.12xlarge"},
    },
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
def test_a_change_of_the_fleet_is_deployable_there_and_back(synthesized: Synthesized, fleet: Mapping[str, Any]) -> None:
    first, second = synthesized({}), synthesized({}, fleet)
    assert refusals(first, second, STACKS) == []
    assert refusals(second, first, STACKS) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encryption": "service_managed"}, "the setting encryption was 'customer_key' at the first deployment and"),
        ({"vpc_cidr": "10.43.0.0/16"}, "the setting vpc_cidr was '10.42.0.0/16' at the first deployment and cannot"),
    ],
)
def test_a_setting_that_cannot_change_is_refused_by_its_name(
    synthesized: Synthesized, change: Mapping[str, Any], told: str
) -> None:
    for reasons in (
        refusals(synthesized({}), synthesized(change), STACKS),
        refusals(synthesized(change), synthesized({}), STACKS),
    ):
        assert any(each.startswith(told.partition(" was ")[0]) for each in reasons)
        assert len(reasons) > 1, "the resources say so too"
    assert refusals(synthesized({}), synthesized(change), STACKS)[0].startswith(told)


@pytest.mark.parametrize("stack", STACKS)
def test_a_setting_that_cannot_change_is_refused_whatever_is_deployed(synthesized: Synthesized, stack: str) -> None:
    for change in ({"encryption": "service_managed"}, {"vpc_cidr": "10.99.0.0/16"}):
        reasons = refusals(synthesized({}), synthesized(change), (stack,))
        assert any(f"the setting {next(iter(change))} was" in each for each in reasons), (change, reasons)


def test_every_other_setting_together_is_deployable(synthesized: Synthesized) -> None:
    """Each setting at its other value at once; one by one and in pairs is what `test_every_pair_of_values` looks at."""
    many: dict[str, Any] = {}
    for path, values in alternatives().items():
        if path[0] in fixed_fields() or path[0] in ("cloudfront", "domain", "authorizer", "entry_point"):
            continue
        for value in values:
            tried = with_value(many, path, value)
            if is_valid(tried):
                many = tried
                break
    assert refusals(synthesized({}), synthesized(many), STACKS) == []
    assert refusals(synthesized(many), synthesized({}), STACKS) == []


def with_value(settings: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(settings))
    here = changed
    for step in path[:-1]:
        here = here.setdefault(step, {})
    here[path[-1]] = value
    return changed


def is_valid(settings: Mapping[str, Any]) -> bool:
    try:
        return not conflicts(Settings.model_validate(settings))
    except ValidationError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("path", alternatives(), ids=".".join)
def test_every_pair_of_values_of_a_setting_is_deployable_or_is_marked_as_fixed(
    synthesized: Synthesized, path: tuple[str, ...]
) -> None:
    # What needs other settings beside it has them in one basis.
    for basis in (
        {},
        {"authorizer": JWT, "domain": DOMAIN, "python_version": "3.12"},
        {"entry_point": "both", "authorizer": JWT, "nat_gateways": 1, "availability_zones": 3},
    ):
        stages = [basis, *(with_value(basis, path, value) for value in alternatives()[path])]
        valid = [each for each in stages if is_valid(each)]
        for before, after in permutations(valid, 2):
            reasons = refusals(synthesized(before), synthesized(after), STACKS)
            if path[0] in ("entry_point", "domain", "cloudfront"):
                # In two steps: see `test_an_address_goes_only_after_another_was_there`.
                reasons = [each for each in reasons if "callers would be left without an address" not in each]
            assert bool(reasons) == any(each.startswith(f"the setting {path[0]} ") for each in reasons), (
                after,
                reasons,
            )


def test_every_order_of_the_stacks_is_deployable(synthesized: Synthesized) -> None:
    """No stack exports anything, so none can be kept from changing by one that is deployed later."""
    for change in SECOND_DEPLOYMENTS.values():
        for template in synthesized(change).templates.values():
            assert "Fn::ImportValue" not in json.dumps(template)
            assert not [each for each in template.get("Outputs", {}).values() if "Export" in each]


def changed(deployment: Deployment, path: str, **parts: Any) -> Deployment:
    """A deployment with other resources or outputs in one template; a resource that is None is taken away."""
    template = copy.deepcopy(dict(deployment.templates[path]))
    for part, values in parts.items():
        section = template.setdefault(part, {})
        for name, value in values.items():
            section.pop(name, None)
            if value is not None:
                section[name] = value
    return Deployment({**deployment.templates, path: template}, deployment.names)


def two(producer: Mapping[str, Any], consumer: Mapping[str, Any]) -> Deployment:
    return Deployment({"A": producer, "B": consumer}, {"A": "a", "B": "b"})


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


READS = {"Fn::GetStackOutput": {"StackName": "a", "OutputName": "Id"}}
IMPORTS = {"Fn::ImportValue": "a:Id"}
EXPORTED = {"Value": {"Ref": "X"}, "Export": {"Name": "a:Id"}}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            two({"Resources": {}, "Outputs": {"Id": EXPORTED}}, {"Resources": {"Y": resource("SNS::Topic", T=IMPORTS)}}),
            two({"Resources": {}}, {"Resources": {}}),
            'A would lose or change the export "a:Id", which the deployed stack B imports',
        ),
        (
            two({"Resources": {"X": resource("S3::Bucket")}}, {"Resources": {}}),
            two({"Resources": {"Other": resource("S3::Bucket")}}, {"Resources": {}}),
            "A/X (AWS::S3::Bucket) holds data and would be deleted",
        ),
        (
            two({"Resources": {"X": resource("DynamoDB::Table", KeySchema=["a"])}}, {"Resources": {}}),
            two({"Resources": {"X": resource("DynamoDB::Table", KeySchema=["b"])}}, {"Resources": {}}),
            "A/X (AWS::DynamoDB::Table) holds data and would be replaced by its KeySchema",
        ),
        (
            two({"Resources": {"X": resource("SQS::Queue", QueueName="q", FifoQueue=True)}}, {"Resources": {}}),
            two({"Resources": {"X": resource("SQS::Queue", QueueName="q")}}, {"Resources": {}}),
            "A/X (AWS::SQS::Queue) would be replaced by its FifoQueue and keep its name q",
        ),
        (
            two({"Resources": {"X": resource("IAM::ManagedPolicy", ManagedPolicyName="p")}}, {"Resources": {}}),
            two({"Resources": {}}, {"Resources": {"Z": resource("IAM::ManagedPolicy", ManagedPolicyName="p")}}),
            "B/Z (AWS::IAM::ManagedPolicy) would be made while A/X still has its name p",
        ),
        (
            two(
                {"Resources": {"V": resource("EC2::VPC", CidrBlock="1"), "X": resource("EC2::Subnet", VpcId={"Ref": "V"})},
                 "Outputs": {"Id": {"Value": {"Ref": "X"}}}},
                {"Resources": {"Y": resource("SNS::Topic", T=READS)}},
            ),
            two(
                {"Resources": {"V": resource("EC2::VPC", CidrBlock="2"), "X": resource("EC2::Subnet", VpcId={"Ref": "V"})},
                 "Outputs": {"Id": {"Value": {"Ref": "X"}}}},
                {"Resources": {"Y": resource("SNS::Topic", T=READS)}},
            ),
            "A/X (AWS::EC2::Subnet) would be replaced by its VpcId, which follows V while it is in use by B",
        ),
        (
            two(
                {"Resources": {"X": resource("SNS::Topic", FifoTopic=True)}, "Outputs": {"Id": {"Value": {"Ref": "X"}}}},
                {"Resources": {"Y": resource("SNS::Topic", T=READS)}},
            ),
            two(
                {"Resources": {"X": resource("SNS::Topic")}, "Outputs": {"Id": {"Value": {"Ref": "X"}}}},
                {"Resources": {"Y": resource("SNS::Topic", T=READS)}},
            ),
            "A/X would be replaced by its FifoTopic, and B, which does not change, would not know",
        ),
    ],
)  # fmt: skip
def test_what_would_fail_or_lose_data_is_refused(before: Deployment, after: Deployment, told: str) -> None:
    assert told in refusals(before, after, ("A", "B"))
    assert refusals(before, before, ("A", "B")) == [] or "export" in told
    assert refusals(after, after, ("A", "B")) == []


def test_a_stack_left_out_of_a_deployment_keeps_what_it_reads(synthesized: Synthesized) -> None:
    before, after = synthesized({"entry_point": "both"}), synthesized({"entry_point": "function_url"})
    reasons = refusals(before, after, ("Edge",))
    assert any(each.startswith("Observability reads the output PublishOutputRefApi") for each in reasons)
    assert all(each.endswith("deploy Edge and Observability together") for each in reasons), reasons
    assert refusals(before, after, ("Edge", "Observability")) == []


def test_a_first_deployment_in_two_steps_is_deployable(synthesized: Synthesized) -> None:
    nothing = Deployment({}, {})
    first = nothing.overlaid(synthesized({}), ("Storage", "Network"))
    assert refusals(nothing, synthesized({}), ("Storage", "Network")) == []
    assert refusals(first, synthesized({}), STACKS) == []
    (reason,) = {each.partition(":")[2] for each in refusals(nothing, synthesized({}), ("Network",))}
    assert reason == " deploy Storage and Network together"


@pytest.fixture
def account() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("cloudformation", region_name="us-east-1")


def test_what_is_deployed_is_read_from_the_account(account: Any) -> None:
    bucket = {"Description": "2012-10-17", "Resources": {"Data": {"Type": "AWS::S3::Bucket"}}}
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="templates")
    boto3.client("s3", region_name="us-east-1").put_object(
        Bucket="templates", Key="inner.json", Body=json.dumps(bucket).encode()
    )
    inner = {"Type": NESTED, "Properties": {"TemplateURL": "https://s3.amazonaws.com/templates/inner.json"}}
    account.create_stack(StackName="outer", TemplateBody=json.dumps({"Resources": {"Shard": inner}}))
    account.create_stack(StackName="plain", TemplateBody=yaml.safe_dump(bucket).replace("'", ""))
    names = {"Outer": "outer", "Plain": "plain", "Never": "never"}
    deployed = read_deployed(names, account)
    assert set(deployed.templates) == {"Outer", "Outer/Shard", "Plain"}
    assert deployed.templates["Outer/Shard"] == deployed.templates["Plain"] == bucket
    lost = Deployment({"Plain": {"Resources": {}}}, {"Plain": "plain"})
    assert refusals(deployed, lost, ("Plain",)) == ["Plain/Data (AWS::S3::Bucket) holds data and would be deleted"]


@pytest.mark.parametrize(("function", "collides"), [("F", True), ("G", False)])
def test_a_name_that_is_another_resources_own_does_not_collide_with_the_next_ones(
    function: str, collides: bool
) -> None:
    def alias(of: str) -> dict[str, Any]:
        return resource("Lambda::Alias", Name="live", FunctionName={"Ref": of})

    before = two({"Resources": {"X": alias("F")}}, {"Resources": {}})
    after = two({"Resources": {"X": alias("F"), "Y": alias(function)}}, {"Resources": {}})
    told = "A/Y (AWS::Lambda::Alias) would be made while A/X still has its name live"
    assert refusals(before, after, ("A", "B")) == ([told] if collides else [])
