"""Reads what the functions emitted from CloudWatch.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html. Each metric that is read has a price, and
each statistic of it counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from tidegate.aws.clients import AwsClients
from tidegate.metrics import Dimension, Metric

MOST_QUERIES = 500
"""Of one request to the service."""

Values = tuple[tuple[Dimension, str], ...]
"""The dimensions of a series, each with its value."""


class Statistic(StrEnum):
    COUNT = "SampleCount"
    SUM = "Sum"
    P50 = "p50"
    P99 = "p99"


class Wanted(NamedTuple):
    """A statistic of one series."""

    metric: Metric
    series: Values
    statistic: Statistic


class MetricReads:
    """Reads metrics of one namespace. Both methods raise `StoreError` where CloudWatch does not answer."""

    def __init__(self, clients: AwsClients, namespace: str) -> None:
        self._clients = clients
        self._namespace = namespace

    async def series(self, metric: Metric, function: str) -> list[Values]:
        """Return the series that a function emitted of a metric within the last three hours, without equal ones."""
        asked = {
            "Namespace": self._namespace,
            "MetricName": metric.metric_name,
            "Dimensions": [{"Name": str(Dimension.SERVICE), "Value": function}],
            "RecentlyActive": "PT3H",
        }

        def work(client: Any) -> list[Mapping[str, Any]]:
            pages = client.get_paginator("list_metrics").paginate(**asked)
            return [each for page in pages for each in page["Metrics"]]

        found = await self._clients.call("cloudwatch", "a list of metrics", work)
        known = {str(each) for each in Dimension}
        listed = (
            tuple((Dimension(each["Name"]), each["Value"]) for each in metric["Dimensions"])
            for metric in found
            # An operator may have metrics of other dimensions in the namespace.
            if all(each["Name"] in known for each in metric["Dimensions"])
        )
        return list({frozenset(each): each for each in listed}.values())

    async def read(
        self, wanted: Sequence[Wanted], start_s: int, end_s: int, period_s: int
    ) -> dict[Wanted, Mapping[int, float]]:
        """Return of each wanted statistic its values by the start of their period. Periods without a value are left out.

        Args:
            wanted: the statistics.
            start_s: the start of the first period, in Unix seconds; a whole minute.
            end_s: the end of the last period.
            period_s: the length of a period; whole minutes.
        """

        def work(client: Any) -> list[Mapping[str, Any]]:
            paginator = client.get_paginator("get_metric_data")
            results = []
            for queries in self._queries(wanted, period_s):
                pages = paginator.paginate(
                    MetricDataQueries=queries,
                    StartTime=datetime.fromtimestamp(start_s, UTC),
                    EndTime=datetime.fromtimestamp(end_s, UTC),
                )
                results += [each for page in pages for each in page["MetricDataResults"]]
            return results

        found: dict[Wanted, dict[int, float]] = {each: {} for each in wanted}
        if wanted:
            for result in await self._clients.call("cloudwatch", "metrics", work):
                values = found[wanted[int(result["Id"][1:])]]
                for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                    values[int(at.timestamp())] = value
        return dict(found)

    def _queries(self, wanted: Sequence[Wanted], period_s: int) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, len(wanted), MOST_QUERIES):
            yield [
                {
                    "Id": f"q{number}",
                    "MetricStat": {
                        "Metric": {
                            "Namespace": self._namespace,
                            "MetricName": each.metric.metric_name,
                            "Dimensions": [{"Name": str(name), "Value": value} for name, value in each.series],
                        },
                        "Period": period_s,
                        "Stat": str(each.statistic),
                    },
                }
                for number, each in enumerate(wanted[first : first + MOST_QUERIES], first)
            ]
