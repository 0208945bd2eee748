"""The text that Prometheus reads, as its own client reads it."""

from __future__ import annotations

import math
import random
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from tidegate.metrics import Emitter, Kind, Metric
from tidegate.metrics.exposition import Exemplar, Family, Format, Histogram, Renderer, negotiated, render

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ODD = 'a "quoted"\\ name\nof two lines, é, 5 %s %(n)d \\0\0'
SERIES = ("main", "rule", ODD, "real", "scorer", None, "a")


def families() -> list[Family]:
    histogram = Histogram((0.1, 1.0, math.inf), (3, 4, 5), 7.25, Exemplar(TRACE, 0.5, 1_800_000_000.0))
    return [
        Family(Metric.REQUESTS, [((*SERIES, "answered"), 12), ((*SERIES, "fallback"), 1)]),
        Family(Metric.REQUEST_DURATION, [(SERIES, histogram)]),
        Family(Metric.RULES, [(("abc", "def"), 1)]),
        Family(Metric.BUNDLE_AGE_SECONDS, [((), 0.25)]),
        Family(Metric.HEALTHY, []),
    ]


@pytest.mark.parametrize("form", Format)
def test_both_formats_are_read_back(form: Format) -> None:
    text = render(families(), form).decode()
    found = {each.name: each for each in (read_text if form is Format.TEXT else read_openmetrics)(text)}
    requests = found["tidegate_requests"]
    assert (requests.type, requests.documentation) == ("counter", Metric.REQUESTS.help)
    assert [(each.name, each.labels["outcome"], each.value) for each in requests.samples] == [
        ("tidegate_requests_total", "answered", 12),
        ("tidegate_requests_total", "fallback", 1),
    ]
    labels = requests.samples[0].labels
    assert (labels["variant"], labels["version"], labels["shard"]) == (ODD, "", "a")
    histogram = found["tidegate_request_duration_seconds"]
    assert histogram.type == "histogram"
    assert [each.value for each in histogram.samples] == [3, 4, 5, 7.25, 5]
    assert [each.labels["le"] for each in histogram.samples[:3]] == ["0.1", "1.0", "+Inf"]
    info = found["tidegate_rules" if form is Format.OPENMETRICS else "tidegate_rules_info"]
    assert info.samples[0].labels == {"revision": "abc", "resolution": "def"}
    assert found["tidegate_rules_age_seconds"].samples[0].value == 0.25
    assert "tidegate_healthy" not in text, "a metric without a sample is left out"


def test_an_exemplar_is_in_the_bucket_of_its_request() -> None:
    text = render(families(), Format.OPENMETRICS).decode()
    (histogram,) = [each for each in read_openmetrics(text) if each.type == "histogram"]
    found = {each.labels.get("le"): each.exemplar for each in histogram.samples if each.exemplar is not None}
    assert found.keys() == {"1.0"}
    assert (found["1.0"].labels, found["1.0"].value) == ({"trace_id": TRACE}, 0.5)
    assert histogram.unit == "seconds"
    assert TRACE not in render(families(), Format.TEXT).decode(), "the text format has no exemplars"


def test_what_is_rendered_again_has_its_new_values() -> None:
    """Whatever was rendered before, in whatever format: values change, and series come and go."""
    chance, renderer, bounds = random.Random(7), Renderer(), (0.1, 1.0, math.inf)
    series = [
        (objective, "%d", "", "real", "m", version, "a") for objective in ("a", "b%", "c") for version in (None, 1)
    ]
    for _ in range(60):
        shown = [key for key in series if chance.random() < 0.7]
        traces = [
            Exemplar(TRACE, chance.choice((0.05, 0.1, 3.0)), 1.5) if chance.random() < 0.5 else None for _ in shown
        ]
        counts = [sorted(chance.randrange(9) for _ in bounds) for _ in shown]
        found = [Histogram(bounds, each, chance.random(), trace) for each, trace in zip(counts, traces, strict=True)]
        families = [
            Family(Metric.REQUEST_DURATION, list(zip(shown, found, strict=True))),
            Family(Metric.DECIDE_TIME, [(key, chance.random()) for key in shown]),
            Family(Metric.HEALTHY, [((), chance.randrange(2))]),
        ]
        form = chance.choice(list(Format))
        text = renderer.render(families, form)
        assert text == render(families, form)
        read = (read_text if form is Format.TEXT else read_openmetrics)(text.decode())
        sums = [each.value for family in read for each in family.samples if each.name.endswith("duration_seconds_sum")]
        assert sums == [each.total for each in found]


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/plain", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/openmetrics-text; q=0", Format.TEXT),
        ("text/plain;q=1, application/openmetrics-text;q=0.5", Format.TEXT),
        ("application/json", Format.TEXT),
        # As Prometheus 3 asks.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format.OPENMETRICS,
        ),
        ("application/openmetrics-text;q=nonsense", Format.TEXT),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accepted: str, form: Format) -> None:
    assert negotiated(accepted) is form


def test_names_follow_the_conventions_of_prometheus() -> None:
    exposed = [metric.exposed for metric in Metric if metric.exposed is not None]
    assert len({each.family for each in exposed}) == len(exposed)
    for each in exposed:
        assert re.fullmatch(r"(tidegate|http_server|rpc_server)_[a-z_]+[a-z]", each.family), each.family
        assert not each.family.endswith(("_total", "_info", "_count", "_sum", "_bucket", "_created"))
        assert not re.search(r"_(ms|us|ns|milliseconds|minutes|percent|kb|mb)(_|$)", each.family), "base units"
        assert each.kind is not Kind.HISTOGRAM or each.unit, each.family
        assert len(set(each.labels)) == len(each.labels)
        assert set(each.emitters) <= set(Emitter)
        assert each.emitters
