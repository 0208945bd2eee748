"""OpenTelemetry's own environment variables, as far as Tidegate checks them.

The SDK logs what it cannot read and continues with a default; here it is an error, before anything starts.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from tidegate.errors import SettingsError

SAMPLERS = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
)  # fmt: skip
DEFAULT_ENDPOINT = "http://localhost:4318"
MOST_WAITING = 2048
"""The SDK's default of `OTEL_BSP_MAX_QUEUE_SIZE`: the most spans that wait to be exported."""

_QUEUE, _BATCH, _DELAY = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"
_DEFAULT_BATCH = 512


def check_tracing(environment: Mapping[str, str]) -> None:
    """Check that spans can be exported as the environment says.

    Raises:
        SettingsError: the packages are not installed, or a variable has a value that cannot be used.
    """
    # The parents of a missing module raise the error.
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") and find_spec(
            "opentelemetry.sdk.trace"
        )
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsError(
            "TIDEGATE_TRACING=otlp needs packages that are not installed: pip install 'tidegate[tracing]', or set it to off"
        )
    _check_sampler(environment)
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        if environment.get(name, "") not in ("", "http/protobuf"):
            raise SettingsError(
                f"{name} must be http/protobuf, not {environment[name]!r}: spans are exported over HTTP"
            )
    if "tracecontext" not in _listed(environment.get("OTEL_PROPAGATORS") or "tracecontext"):
        raise SettingsError(
            "OTEL_PROPAGATORS must name tracecontext: traces are continued by the header traceparent alone"
        )
    address = urlsplit(traces_endpoint(environment))
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// address")
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        # Not shown: they hold keys.
        if any("=" not in each for each in _listed(environment.get(name, ""))):
            raise SettingsError(f"{name} must be headers such as api-key=KEY, separated by commas")
    for name in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"):
        _number(environment, name, 10.0, "seconds")
    if _whole(environment, _BATCH, _DEFAULT_BATCH) > most_waiting(environment):
        raise SettingsError(f"{_BATCH} must not be above {_QUEUE}")
    _whole(environment, _DELAY, 5000)


def _check_sampler(environment: Mapping[str, str]) -> None:
    sampler = environment.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    if sampler not in SAMPLERS:
        raise SettingsError(f"OTEL_TRACES_SAMPLER must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
    if sampler.endswith("ratio") and _number(environment, "OTEL_TRACES_SAMPLER_ARG", 1.0, "a share from 0 to 1") > 1.0:
        raise SettingsError("OTEL_TRACES_SAMPLER_ARG must be a share from 0 to 1")


def traces_endpoint(environment: Mapping[str, str]) -> str:
    """Return the address that spans are sent to."""
    exact = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exact or f"{(environment.get('OTEL_EXPORTER_OTLP_ENDPOINT') or DEFAULT_ENDPOINT).rstrip('/')}/v1/traces"


def most_waiting(environment: Mapping[str, str]) -> int:
    """Return how many spans may wait to be exported."""
    return _whole(environment, _QUEUE, MOST_WAITING)


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _number(environment: Mapping[str, str], name: str, default: float, words: str) -> float:
    text = environment.get(name) or str(default)
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.0 <= found < float("inf"):
        raise SettingsError(f"{name} must be {words}, not {text!r}")
    return found


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise SettingsError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)
