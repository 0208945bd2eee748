"""The traffic of a deployment, read from CloudWatch."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.metric_reads import MOST_QUERIES, MetricReads
from tidegate.console.cloudwatch import CloudWatchTraffic
from tidegate.console.traffic import Figures
from tidegate.errors import StoreError
from tidegate.metrics import BY_OBJECTIVE, BY_RULE, Dimension, Metric

from tests.support.aws import closed_port, local_server

_numbers = itertools.count()


def figures(
    requests: int, errors: int, fallbacks: int, p50: float | None = None, p99: float | None = None, s: float = 60.0
) -> Figures:
    return Figures(requests, errors, 0, fallbacks, s, p50, p99)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with local_server("tests.support.cloudwatch") as address:
        yield address


class Emitted:
    """A namespace of a test's own, in which the gateway's function has emitted something."""

    def __init__(self, url: str) -> None:
        self.clients = AwsClients(AwsConfig(endpoint_url=url, region="us-east-1", timeout_s=20.0))
        self.namespace = f"Test{next(_numbers)}"
        self.minute = int(time.time() // 60) * 60 - 120
        self.traffic = CloudWatchTraffic(MetricReads(self.clients, self.namespace), lambda: self.minute + 125.0)

    def request(
        self,
        objective: str,
        rule: str,
        variant: str = "none",
        model: str = "svd",
        *,
        ms: float = 10.0,
        at: int = 0,
        fails: bool = False,
        fallback: bool = False,
    ) -> None:
        """A decided request, `at` minutes before the newest one that is shown."""
        named = dict(zip(BY_RULE[1:], (objective, rule, variant, model), strict=True))
        values = {Metric.DISPATCH_TIME: ms, Metric.SERVER_ERRORS: int(fails), Metric.FALLBACKS: int(fallback)}
        self.put(values, dict.fromkeys(()), at)
        self.put(values, {each: named[each] for each in BY_OBJECTIVE[1:]}, at)
        self.put(values, named, at)

    def put(self, values: dict[Metric, float], dimensions: dict[Dimension, Any], at: int = 0) -> None:
        named = [{"Name": str(Dimension.SERVICE), "Value": "gateway"}]
        named += [{"Name": str(name), "Value": value} for name, value in dimensions.items()]
        moment = datetime.fromtimestamp(self.minute - 60 * at + 5, UTC)
        self.clients.client("cloudwatch").put_metric_data(
            Namespace=self.namespace,
            MetricData=[
                {"MetricName": metric.metric_name, "Dimensions": named, "Value": value, "Timestamp": moment}
                for metric, value in values.items()
            ],
        )


@pytest.fixture
def emitted(url: str) -> Emitted:
    # moto gives the figures of all namespaces together.
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    return Emitted(url)


def test_figures_are_those_of_each_objective_and_of_all(emitted: Emitted) -> None:
    for ms in (10.0, 20.0, 30.0):
        emitted.request("ranking", "default", ms=ms)
    emitted.request("ranking", "default", ms=40.0, fails=True)
    emitted.request("search", "default", ms=50.0, fallback=True)
    emitted.request("search", "default", ms=1.0, at=1)
    # Not decided: in no figure, although the function emits it.
    emitted.put({Metric.SERVER_ERRORS: 1}, {})

    async def reads() -> None:
        traffic = emitted.traffic
        found = await traffic.objectives(60)
        assert found == {"ranking": figures(4, 1, 0, 20.0, 40.0), "search": figures(1, 0, 1, 50.0, 50.0)}
        assert await traffic.whole(60) == figures(5, 1, 1, 30.0, 50.0)
        assert (await traffic.objectives(120))["search"] == figures(2, 0, 1, 1.0, 50.0, 120.0)
        assert (await traffic.whole(60)).requests_per_s == 5 / 60
        assert await traffic.last_at() is None

    asyncio.run(reads())


def test_a_rule_is_the_sum_of_its_variants_and_a_model_of_all_that_it_answered(emitted: Emitted) -> None:
    emitted.request("ranking", "canary", "svd", "svd", ms=10.0)
    emitted.request("ranking", "canary", "ease", "ease", ms=20.0)
    emitted.request("ranking", "canary", "ease", "popularity", ms=30.0, fallback=True)
    emitted.request("ranking", "default", ms=40.0)

    async def reads() -> None:
        found = await emitted.traffic.rules("ranking", 900)
        assert found.keys() == {"canary", "default"}
        canary = found["canary"]
        assert canary.whole == figures(3, 0, 1, s=900.0), "percentiles of several series are unknown"
        assert canary.variants == {
            "svd": figures(1, 0, 0, 10.0, 10.0, 900.0),
            "ease": figures(2, 0, 1, s=900.0),
        }
        assert found["default"].whole == figures(1, 0, 0, 40.0, 40.0, 900.0)
        assert found["default"].variants == {}
        assert await emitted.traffic.rules("search", 900) == {}
        assert {name: each.requests for name, each in (await emitted.traffic.models(900)).items()} == {
            "svd": 2,
            "ease": 1,
            "popularity": 1,
        }

    asyncio.run(reads())


def test_what_came_before_the_rules_changed_is_in_no_figure_of_them(emitted: Emitted) -> None:
    emitted.request("ranking", "default", at=0)
    emitted.request("ranking", "default", at=2)

    async def requests(since: float) -> int:
        found = await emitted.traffic.rules("ranking", 900, since)
        return found["default"].whole.requests if found else 0

    async def reads() -> None:
        assert await requests(0.0) == 2
        # The minute in which they changed has requests of both.
        assert await requests(emitted.minute - 90.0) == 1
        assert await requests(emitted.minute + 1.0) == 0

    asyncio.run(reads())


def test_the_history_has_a_figure_for_each_minute(emitted: Emitted) -> None:
    for _ in range(6):
        emitted.request("ranking", "default", ms=10.0)
    emitted.request("search", "default", ms=30.0, fails=True)
    emitted.request("search", "default", ms=20.0, at=14)
    emitted.request("search", "default", ms=20.0, at=15)

    async def reads() -> None:
        whole = await emitted.traffic.history()
        assert (whole.step_s, whole.end) == (60, emitted.minute + 60)
        assert list(whole.requests_per_s) == [1 / 60, *[0.0] * 13, 7 / 60]
        assert list(whole.error_share) == [0.0, *[None] * 13, 1 / 7]
        assert (whole.p50_ms[-1], whole.p99_ms[-1], whole.p50_ms[1]) == (10.0, 30.0, None)
        ranking = await emitted.traffic.history("ranking")
        assert list(ranking.requests_per_s) == [*[0.0] * 14, 6 / 60]
        assert list((await emitted.traffic.history("nothing")).requests_per_s) == [0.0] * 15

    asyncio.run(reads())


def test_a_minute_is_read_once_for_all_viewers(emitted: Emitted) -> None:
    emitted.request("ranking", "default")
    asked: list[str] = []
    emitted.clients.client("cloudwatch").meta.events.register(
        "before-call", lambda model, **_: asked.append(model.name)
    )

    async def reads() -> None:
        await asyncio.gather(*(emitted.traffic.whole(60) for _ in range(20)))
        assert asked == ["ListMetrics", "GetMetricData", "GetMetricData"], "by objective, and of all"
        await emitted.traffic.objectives(60)
        assert len(asked) == 3
        emitted.minute += 60
        assert await emitted.traffic.whole(60) == Figures()
        assert len(asked) == 6

    asyncio.run(reads())


def test_more_series_than_one_request_takes_are_all_read(emitted: Emitted) -> None:
    count = MOST_QUERIES // 5 + 3
    for number in range(count):
        named = dict(zip(BY_OBJECTIVE[1:], (f"objective_{number}",), strict=True))
        emitted.put({Metric.DISPATCH_TIME: float(number)}, named)
    found = asyncio.run(emitted.traffic.objectives(60))
    assert {name: each.p50_ms for name, each in found.items()} == {
        f"objective_{number}": float(number) for number in range(count)
    }


def test_of_others_metrics_nothing_is_read(emitted: Emitted) -> None:
    client = emitted.clients.client("cloudwatch")
    moment = datetime.fromtimestamp(emitted.minute + 5, UTC)
    strange = [{"Name": "service", "Value": "gateway"}, {"Name": "Their", "Value": "own"}]
    for dimensions in (strange, [{"Name": "service", "Value": "resolve"}]):
        client.put_metric_data(
            Namespace=emitted.namespace,
            MetricData=[{"MetricName": "DispatchTime", "Dimensions": dimensions, "Value": 1.0, "Timestamp": moment}],
        )
    assert asyncio.run(emitted.traffic.whole(60)) == Figures()


def test_a_service_that_does_not_answer_is_asked_again() -> None:
    with closed_port() as address:
        clients = AwsClients(AwsConfig(endpoint_url=address, region="us-east-1", timeout_s=1.0))
        traffic = CloudWatchTraffic(MetricReads(clients, "Tidegate"))

        async def reads() -> None:
            for _ in range(2):
                with pytest.raises(StoreError, match=r"CloudWatch at .* did not answer for a list of metrics"):
                    await traffic.whole(60)

        asyncio.run(reads())
