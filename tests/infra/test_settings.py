"""A stage's settings: every mistake is told with its place, and the page about them is true."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.errors import SettingsError
from tidegate.settings import Settings as FunctionSettings

from infra.fixed_settings import fixed_fields
from infra.reading import read_settings
from infra.setting_groups import JwtAuthorizer
from infra.settings_page import PAGE, page
from tests.infra.fleets import NO_VARIABLES
from tests.support.findings import without_columns


def stage(folder: Path, text: str) -> Path:
    (folder / "test.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_file_of_comments_means_every_default(tmp_path: Path) -> None:
    settings = read_settings("test", NO_VARIABLES, stage(tmp_path, "# nothing\n"))
    assert settings.availability_zones == 2
    assert settings.authorizer.kind == "iam"
    assert (settings.gateway.memory_mib, settings.resolve.memory_mib) == (1769, 512)


def test_a_variable_goes_over_the_file(tmp_path: Path) -> None:
    folder = stage(tmp_path, "log_retention_days: 14\nalarms: {p99_ms: 100, fallback_percent: 7}\n")
    variables = {
        "TIDEGATE_INFRA_ALARMS__P99_MS": "250",
        "TIDEGATE_INFRA_AUTHORIZER": "{kind: jwt, issuer: 'https://issuer.example.com', audience: [a]}",
        "PATH": "/usr/bin",
        "TIDEGATE_LOAD_TIMEOUT_S": "5",
    }
    settings = read_settings("test", variables, folder)
    assert (settings.alarms.p99_ms, settings.alarms.fallback_percent, settings.log_retention_days) == (250, 7, 14)
    assert isinstance(settings.authorizer, JwtAuthorizer)
    assert settings.authorizer.audience == ["a"]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("variables: {self_test_interval_s: 30}\n", {}),
        ("# nothing\n", {"TIDEGATE_INFRA_VARIABLES": "{self_test_interval_s: 30}"}),
        ("# nothing\n", {"TIDEGATE_INFRA_VARIABLES__SELF_TEST_INTERVAL_S": "30"}),
    ],
)
def test_a_variable_of_the_processes_goes_beside_the_defaults(
    tmp_path: Path, text: str, variables: dict[str, str]
) -> None:
    defaults = read_settings("test", NO_VARIABLES, stage(tmp_path, "# nothing\n")).variables
    settings = read_settings("test", variables, stage(tmp_path, text))
    assert defaults["load_timeout_s"] == 300
    assert settings.variables == {**defaults, "self_test_interval_s": 30}
    over = read_settings("test", NO_VARIABLES, stage(tmp_path, "variables: {load_timeout_s: 90}\n"))
    assert over.variables == {**defaults, "load_timeout_s": 90}


TOKENS = "authorizer: {kind: jwt, issuer: 'https://issuer.example.com/', audience: [a]}\n"
ENVOY_TEXT = (
    "envoy:\n  certificate_arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/a'\n"
    "  jwks_uri: 'https://issuer.example.com/keys'\n"
)
WITH_ENVOY = f"data_plane: envoy\nnat_gateways: 1\n{TOKENS}{ENVOY_TEXT}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encrypton: customer_key\n", "settings/test.yaml:1: unknown key 'encrypton' (did you mean 'encryption'?)"),
        ("# a\nencryption: none\n", "settings/test.yaml:2: 'encryption' is the text 'none' (write one of"),
        (
            "triton:\n  drain_s: 300\n",
            "settings/test.yaml:2: 'drain_s' is 300, which is above the maximum 110 (write an integer from 5 to 110)",
        ),
        ("authorizer: {kind: jwt, audience: [a]}\n", "settings/test.yaml:1: key 'issuer' is missing"),
        (
            "authorizer: {kind: none}\n",
            "settings/test.yaml:1: 'kind' of 'authorizer' is the text 'none' (write one of jwt, iam)",
        ),
        (
            "authorizer: {audience: [a]}\n",
            "test.yaml:1: key 'kind' is missing in 'authorizer' (add it: one of jwt, iam)",
        ),
        ("authorizer: iam\n", "test.yaml:1: 'authorizer' is the text 'iam' (write a mapping with the keys kind"),
        ("vpc_cidr: 8.8.0.0/16\n", "settings/test.yaml:1: '8.8.0.0/16' is not an address range for the VPC"),
        ("vpc_cidr: 10.0.0.1/16\n", "'10.0.0.1/16' is not an address range for the VPC"),
        ("log_retention_days: 31\n", "CloudWatch Logs has no retention of 31 days (write one of 1, 3, 5"),
        (
            "triton: {root_volume_mibps: 1000}\n",
            "test.yaml:1: a disk of 3000 operations a second has at most 750 MiB/s (write root_volume_iops: 4000",
        ),
        ("ami: {gpu: latest}\n", "'gpu' is the text 'latest' (write text such as 'ami-"),
        ("nat_gateways: 3\n", "there are more NAT gateways than availability zones (write at most 2)"),
        ("control: {shadow_timeout_s: 60}\nvariables: {shadow_timeout_ms: 55000}\n", "may take 60 s"),
        ("gateway: {reserved_concurrency: 2, provisioned_concurrency: 3}\n", "is above reserved_concurrency"),
        ("python_version: '3.11'\n", "test.yaml:1: 'python_version' is the text '3.11' (write one of 3.12, 3.13)"),
        (
            "python_version: '3.12'\nresolve: {snap_start: true, provisioned_concurrency: 1}\n",
            "test.yaml:2: a function has either environments that are kept ready or SnapStart",
        ),
        (
            "cloudfront: {certificate_arn: 'arn:aws:acm:us-east-1:111122223333:certificate/a', "
            "web_acl_arn: 'arn:aws:wafv2:us-east-1:111122223333:global/webacl/a/b', "
            "key_versions: [0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0]}\n",
            "CloudFront needs a domain (set domain: both have the same name)",
        ),
        (
            "entry_point: function_url\ndomain: {name: a.example.com, certificate_arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/a'}\n",
            "test.yaml:2: a Function URL cannot have a domain name",
        ),
        ("metrics_namespace: AWS/Lambda\n", "CloudWatch keeps namespaces such as 'AWS/Lambda' for AWS's own metrics"),
        ("tags: {'aws:x': y}\n", "tag 'aws:x' is reserved"),
        (
            "variables:\n  load_timeout: 5\n",
            "test.yaml:2: TIDEGATE_LOAD_TIMEOUT is not a setting; did you mean TIDEGATE_LOAD_TIM",
        ),
        ("variables: {load_timeout_s: -5}\n", "TIDEGATE_LOAD_TIMEOUT_S must be a number from 0.1 to 3600, not '-5'"),
        ("variables: {bucket: mine}\n", "'bucket' is set by the templates themselves (delete it)"),
        ("retain_data: yes\n", "'retain_data' is the text 'yes' (write true or false; true without quotes"),
        (
            "gateway: {timeout_s: 30}\n",
            "'timeout_s' is 30, which is above the maximum 29 (write an integer from 1 to 29)",
        ),
        ("data_plane: envoy\n", "test.yaml:1: Envoy's tasks are not described (set envoy: {certificate_arn"),
        (f"data_plane: envoy\n{ENVOY_TEXT}", "test.yaml:1: Envoy cannot verify signatures of requests (set authorizer"),
        (f"data_plane: envoy\n{ENVOY_TEXT}{TOKENS}", "Envoy reads the issuer's keys from the internet"),
        (f"{WITH_ENVOY}  min_tasks: 30\n", "test.yaml:7: min_tasks is above max_tasks (write at most 10)"),
        (f"{WITH_ENVOY}  cpu_units: 1024\n  memory_mib: 9216\n", "of 1024 CPU units and 9216 MiB (write 2048 to 8192)"),
        (f"{WITH_ENVOY}  caller_networks: [0.0.0.0/0]\n", "test.yaml:7: '0.0.0.0/0' is not a private address range"),
        (f"{WITH_ENVOY}  caller_networks: [10.0.0.1/8]\n", "'10.0.0.1/8' is not a private address range"),
        (f"{WITH_ENVOY.replace('/keys', ':8443/keys')}", "lets it connect to port 443 alone (write no port)"),
        (f"{WITH_ENVOY.replace('[a]', '[a b]')}", "a blank is in an audience or a scope"),
        (
            "pointer_cache: true\nvariables: {pointer_cache_url: 'https://d1.example.net/live/pointer.json'}\n",
            "test.yaml:1: there are two caches of the pointer: the agents', and the one of pointer_cache_url",
        ),
        ("a: [\n", "settings/test.yaml:"),
        ("retain_data: true\nretain_data: false\n", "settings/test.yaml:2: duplicate key 'retain_data'"),
        ("- a\n", "1 error in the settings"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings("test", NO_VARIABLES, stage(tmp_path, text))
    assert told in without_columns(str(raised.value))


def test_every_mistake_is_told_in_one_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^3 errors in the settings\n"):
        read_settings(
            "test", NO_VARIABLES, stage(tmp_path, "nat_gateways: x\ndoor: window\ngateway: {memory_mib: 1}\n")
        )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TIDEGATE_INFRA_ALARM__P99_MS", "5", "unknown key 'alarm' (did you mean 'alarms'?)"),
        (
            "TIDEGATE_INFRA_ENTRY_POINT__X",
            "5",
            "'entry_point' is a mapping (write one of http_api, function_url, both)",
        ),
        ("TIDEGATE_INFRA_NAT_GATEWAYS__X__Y", "5", "'nat_gateways.x' has no settings in it (see docs/"),
        ("TIDEGATE_INFRA_ALARMS__P99_MS", "fast", "'p99_ms' is the text 'fast' (write an integer from 1 to 30000"),
        ("TIDEGATE_INFRA_AUTHORIZER", "{kind: jwt, audience: [a]}", "key 'issuer' is missing (add it: text such as"),
        (
            "TIDEGATE_INFRA_AUTHORIZER",
            "{kind: none}",
            "'kind' of 'authorizer' is the text 'none' (write one of jwt, iam)",
        ),
        (
            "TIDEGATE_INFRA_DOMAIN",
            "{name: Tidegate.example.com, certificate_arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/a'}",
            "'name' is the text 'Tidegate.example.com' (write text such as 'tidegate.example.com'",
        ),
        ("TIDEGATE_INFRA_VPC_CIDR", "1.2.3.4", "'1.2.3.4' is not an address range"),
        ("TIDEGATE_INFRA_TAGS", "{", ""),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings("test", {name: value}, stage(tmp_path, "nat_gateways: 1\n"))
    assert f"1 error in the settings\n{name}: {told}" in str(raised.value)


def test_every_wrong_variable_is_named_in_one_run_and_hides_no_mistake_of_the_file(tmp_path: Path) -> None:
    wrong = {"TIDEGATE_INFRA_ENTRY_POINT": "window", "TIDEGATE_INFRA_GATEWAY__MEMORY_MIB": "1"}
    with pytest.raises(
        SettingsError, match=r"^2 errors in the settings\nTIDEGATE_INFRA_ENTRY_POINT: .*\nTIDEGATE_INFRA_GATEWAY__M"
    ):
        read_settings("test", wrong, stage(tmp_path, "# nothing\n"))
    with pytest.raises(SettingsError, match=r"settings/test.yaml:1:1: 'entry_point' is the text 'window'"):
        read_settings("test", {"TIDEGATE_INFRA_ENTRY_POINT": "both"}, stage(tmp_path, "entry_point: window\n"))


def test_an_empty_variable_means_the_default(tmp_path: Path) -> None:
    file = "entry_point: both\ndomain: {name: a.example.com, certificate_arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/a'}\n"
    empty = {"TIDEGATE_INFRA_DOMAIN": "", "TIDEGATE_INFRA_ENTRY_POINT": "null"}
    settings = read_settings("test", empty, stage(tmp_path, file))
    assert (settings.domain, settings.entry_point) == (None, "http_api")


@pytest.mark.parametrize("name", ["", "x", "Prod", "a b", "../prod", "a" * 17, "pre-prod", "prod\n"])
def test_a_stage_has_a_name_that_resources_can_have(name: str) -> None:
    with pytest.raises(SettingsError, match="is not the name of a stage"):
        read_settings(name, NO_VARIABLES)


def test_an_unknown_stage_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"stage 'staging' has no settings: .*\(stages: dev, prod\)"):
        read_settings("staging", NO_VARIABLES)


def test_the_page_about_settings_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m infra settings`"


def test_operators_are_told_what_cannot_change() -> None:
    text = (PAGE.parent / "operations.md").read_text(encoding="utf-8")
    for name, mark in fixed_fields().items():
        assert f"| `{name}` |" in text, name
        assert mark.why in text, name


def test_the_functions_settings_leave_the_infrastructures_variables_alone() -> None:
    assert FunctionSettings.from_environment({"TIDEGATE_INFRA_ENTRY_POINT": "both"}) == FunctionSettings()


CALLERS = "authorizer: {kind: jwt, issuer: 'https://issuer.example.com/', audience: [tidegate], scopes: [infer]}\n"
OPERATORS = (
    "console: {{authorizer: {{kind: jwt, issuer: 'https://{issuer}/', audience: [{audience}], scopes: [{scopes}]}}}}\n"
)


@pytest.mark.parametrize(
    ("issuer", "audience", "scopes", "accepted"),
    [
        ("issuer.example.com", "tidegate", "", False),
        ("issuer.example.com", "other, tidegate", "infer, operate", False),
        ("issuer.example.com", "tidegate", "operate", True),
        ("issuer.example.com", "operators", "", True),
        ("other.example.com", "tidegate", "", True),
    ],
)
def test_callers_tokens_open_no_console(
    tmp_path: Path, issuer: str, audience: str, scopes: str, accepted: bool
) -> None:
    text = CALLERS + OPERATORS.format(issuer=issuer, audience=audience, scopes=scopes)
    if accepted:
        assert read_settings("test", NO_VARIABLES, stage(tmp_path, text)).console is not None
        return
    with pytest.raises(SettingsError, match="the tokens of callers would open the console"):
        read_settings("test", NO_VARIABLES, stage(tmp_path, text))
