"""The local AWS with percentiles, which moto has none of: `python -m tests.support.cloudwatch`."""

from __future__ import annotations

import math
from typing import Any

from moto.cloudwatch.models import Statistics
from tidegate.aws.local_server import main


def percentiles() -> None:
    """Have moto answer `p50` by the value that half of the values do not exceed, and other percentiles alike."""
    known = Statistics.get_statistics_for_type

    def answer(self: Any, stat: str) -> Any:
        if not stat.startswith("p"):
            return known(self, stat)
        values = sorted(self.metric_single_values_list)
        return values[math.ceil(float(stat[1:]) / 100 * len(values)) - 1]

    Statistics.get_statistics_for_type = answer


if __name__ == "__main__":
    percentiles()
    main(0)
