"""Settings come from the environment, and what is wrong with one is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tidegate.bootstrap.functions import shard_directory
from tidegate.errors import SettingsError
from tidegate.settings import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({"PATH": "/usr/bin"})
    assert settings == Settings()
    assert (settings.default_timeout_ms, settings.max_body_bytes, settings.load_timeout_s) == (10_000, 67_108_864, 30.0)


def test_an_empty_text_is_refused_where_it_would_mean_the_default() -> None:
    with pytest.raises(SettingsError, match="TIDEGATE_ENDPOINT_NETWORKS"):
        Settings.from_environment({"TIDEGATE_ENDPOINT_NETWORKS": ""})


def test_values_are_typed() -> None:
    environment = {
        "TIDEGATE_DEFAULT_TIMEOUT_MS": "250",
        "TIDEGATE_ATTEMPT_SHARE": "0.8",
        "TIDEGATE_TRITON_HOME": "/opt/tritonserver",
        "TIDEGATE_BUCKET": "tidegate-models",
        "TIDEGATE_AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "TIDEGATE_REGISTRY_TABLE": "",
        "TIDEGATE_GPU_METRICS_PORT": "9400",
    }
    settings = Settings.from_environment(environment)
    assert settings.default_timeout_ms == 250
    assert settings.attempt_share == 0.8
    assert settings.triton_home == Path("/opt/tritonserver")
    assert (settings.bucket, settings.aws_endpoint_url) == ("tidegate-models", "http://127.0.0.1:5000")
    assert settings.registry_table is None
    assert settings.gpu_metrics_port == 9400
    assert Settings.from_environment({"TIDEGATE_GPU_METRICS_PORT": ""}).gpu_metrics_port is None


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "80.5", ""])
def test_a_shard_at_no_port_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match=r"^TIDEGATE_SHARD_ENDPOINTS must be a JSON object"):
        shard_directory(json.dumps({"alpha": f"alpha.internal:{port}"}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TIDEGATE_DEFAULT_TIMEOUT_MS", "1s", "must be a whole number from 1 to 3600000, not '1s'"),
        ("TIDEGATE_DEFAULT_TIMEOUT_MS", "0", "must be a whole number from 1 to"),
        ("TIDEGATE_BREAKER_FAILURES", "2.5", "must be a whole number"),
        ("TIDEGATE_ATTEMPT_SHARE", "1.5", "must be a number from 0.01 to 1, not '1.5'"),
        ("TIDEGATE_ATTEMPT_SHARE", "nan", "must be a number"),
        ("TIDEGATE_MAX_BODY_BYTES", "-1", "must be a whole number of at least 1, not '-1'"),
        ("TIDEGATE_BUCKET", "Ab", r"must be the name of a bucket \(3 to 63 lower-case letters.*\), not 'Ab'"),
        ("TIDEGATE_REGISTRY_TABLE", "a table", "must be the name of a table"),
        ("TIDEGATE_AWS_ENDPOINT_URL", "127.0.0.1:5000", "must be an http:// or https:// address without a path"),
        ("TIDEGATE_AWS_REGION", "eu", "must be a region such as eu-west-1"),
        ("TIDEGATE_GPU_METRICS_PORT", "99999", "must be a whole number from 1 to 65535, not '99999'"),
        ("TIDEGATE_GPU_METRICS_PORT", "0", "must be a whole number from 1 to 65535"),
        ("TIDEGATE_LOAD_TIMEOUT", "5", "is not a setting; did you mean TIDEGATE_LOAD_TIMEOUT_S?"),
        ("TIDEGATE_XYZ", "5", "is not a setting; the settings are TIDEGATE_"),
    ],
)
def test_a_wrong_variable_is_named_with_what_would_be_right(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} {message}"):
        Settings.from_environment({name: text})


def test_every_setting_is_documented() -> None:
    assert all(entry.metadata["doc"].endswith(".") for entry in dataclasses.fields(Settings))
