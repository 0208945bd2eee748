"""OpenTelemetry's variables: what cannot be read is an error before anything starts, which shows no key."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tidegate.errors import SettingsError
from tidegate.tracing.environment import SAMPLERS, check_tracing, traces_endpoint


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("OTEL_TRACES_SAMPLER", "Always_On", "must be one of always_on, "),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, not 'grpc'"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf, not 'http/json'"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be an http:// or https:// address"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key", "must be headers such as api-key=KEY"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "must be seconds, not 'soon'"),
        ("OTEL_PROPAGATORS", "b3", "must name tracecontext"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "must be a whole number of at least 1, not '0'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "must not be above OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1.5", "must be a whole number of at least 1, not '1.5'"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error(name: str, value: str, right: str) -> None:
    with pytest.raises(SettingsError, match=name) as error:
        check_tracing({name: value})
    assert right in str(error.value)


@pytest.mark.parametrize("share", ["1.5", "-1", "nan", "half"])
def test_the_share_of_a_sampler_is_from_0_to_1(share: str) -> None:
    for sampler in ("traceidratio", "parentbased_traceidratio"):
        with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG must be a share from 0 to 1"):
            check_tracing({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": share})


def test_a_header_that_is_a_key_is_not_shown() -> None:
    with pytest.raises(SettingsError) as error:
        check_tracing({"OTEL_EXPORTER_OTLP_HEADERS": "hunter2"})
    assert "hunter2" not in str(error.value)


def test_what_opentelemetry_allows_is_allowed() -> None:
    for sampler in SAMPLERS:
        check_tracing({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.25"})
    check_tracing(
        {"OTEL_PROPAGATORS": "xray, tracecontext", "OTEL_EXPORTER_OTLP_HEADERS": "a=1,b=2", "OTEL_TRACES_SAMPLER": ""}
    )


def test_the_address_is_that_of_traces_or_the_general_one_with_its_path() -> None:
    assert traces_endpoint({}) == "http://localhost:4318/v1/traces"
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example/base/"}
    assert traces_endpoint(general) == "https://otel.example/base/v1/traces"
    exact = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other:1/x"}
    assert traces_endpoint(general | exact) == "http://other:1/x"


@pytest.mark.parametrize(
    "module",
    [
        "lambdas.gateway", "lambdas.resolve", "lambdas.shadow", "bootstrap.functions", "bootstrap.gateway_process",
        "bootstrap.shadow_process", "bootstrap.local", "cli",
    ],
)  # fmt: skip
def test_no_process_imports_opentelemetry_unless_tracing_is_on(module: str) -> None:
    code = (
        f"import sys, tidegate.{module}\n"
        "from tidegate.bootstrap import build_tracer\n"
        "from tidegate.settings import Settings\n"
        "assert build_tracer(Settings(), print) is None\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'opentelemetry' or name == 'tidegate.tracing.otlp'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_packages_the_error_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from tidegate.bootstrap import build_tracer\n"
        "from tidegate.settings import Settings\n"
        "build_tracer(Settings(tracing='otlp'), print)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "TIDEGATE_TRACING=otlp needs packages that are not installed: pip install 'tidegate[tracing]', or set it to off"
    )
