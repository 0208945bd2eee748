"""The first step of title ranking: a member's id in, the member's history out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from facts import Facts, Found
from facts_config import FactsConfig, FactsError, dynamodb

History = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""The columns of the titles that a member likes, and of those that the member has rated at all."""

REPORT_EVERY_S = 10.0
WARM_UP_MS = 2000


class TritonPythonModel:
    """Looks members' histories up in the table of facts.

    `HISTORY` has 1 for each title that the member likes, `SEEN` is true for each title that the member has rated at
    all, both in catalogue order. A member without a history has neither, and neither has one whose history could not be
    read in time; scorers answer an empty history with popularity.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the catalogue's ids, and reach for the table; a table that cannot be reached does not fail the load."""
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        path = Path(args["model_repository"], args["model_version"], "titles.npz")
        expected = int(config["output"][0]["dims"][0])
        with np.load(path, allow_pickle=False) as titles:
            self.ids = titles["ids"]
        if len(self.ids) != expected:
            raise pb_utils.TritonModelException(f"{path.name} has {len(self.ids)} titles, config.pbtxt says {expected}")
        self.lookups = Lookups(self.name)
        self.facts: Facts[History] | None = None
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        try:
            table = FactsConfig.read(parameters, os.environ)
            self.facts = Facts(table, dynamodb(table), self._history)
            problem = self.facts.warm_up(dynamodb(table, WARM_UP_MS))
        except FactsError as error:
            self.lookups.warn(f"every member is answered as one without a history: {error}")
            return
        if problem:
            self.lookups.warn(f"table {table.table} cannot be read yet ({problem}); it is tried with each request")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Look all members of all requests up at once, and answer each request by itself."""
        batches = [
            pb_utils.get_input_tensor_by_name(request, "MEMBER_ID").as_numpy().reshape(-1) for request in requests
        ]
        members = [member for batch in batches for member in batch]
        if self.facts is None:
            found: Found[History] = Found({}, degraded=len(set(members)), reason="no table")
        else:
            found = self.facts.find(members)
        self.lookups.count(found)
        return [self._answer(batch, found) for batch in batches]

    def finalize(self) -> None:
        """End the threads that read."""
        if self.facts is not None:
            self.facts.close()

    def _answer(self, members: npt.NDArray[np.object_], found: Found[History]) -> Any:
        history = np.zeros((len(members), len(self.ids)), np.float32)
        seen = np.zeros(history.shape, np.bool_)
        for row, member in enumerate(members):
            if member in found.values:
                liked, rated = found.values[member]
                history[row, liked] = 1
                seen[row, rated] = True
        return pb_utils.InferenceResponse([pb_utils.Tensor("HISTORY", history), pb_utils.Tensor("SEEN", seen)])

    def _history(self, text: str) -> History:
        """A member's history from its fact, `{"liked": [ids], "rated": [ids]}`; raises ValueError where it is none."""
        fact = json.loads(text)
        if not isinstance(fact, dict):
            raise ValueError("a history is an object")  # noqa: TRY004  # what a malformed fact raises
        return self._columns(fact.get("liked")), self._columns(fact.get("rated"))

    def _columns(self, ids: Any) -> npt.NDArray[np.intp]:
        """The columns of titles; a title that this catalogue does not have is left out, as facts may be newer."""
        if not isinstance(ids, list) or not all(type(each) is int for each in ids):
            raise ValueError("a history lists ids of titles")
        columns: npt.NDArray[np.intp] = np.flatnonzero(np.isin(self.ids, np.array(ids, np.int64)))
        return columns


class Lookups:
    """Makes look-ups visible: a counter by outcome where the server has metrics, and a line in its log, now and then.

    No line has a member's id.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.unreported = 0
        self.reported = -REPORT_EVERY_S
        self.counters: dict[str, Any] = {}
        try:
            # Kept for as long as its counters: Triton deletes them with it.
            self.family = pb_utils.MetricFamily(
                name="tidegate_facts_lookups",
                description="Keys that were looked up, by how they were answered",
                kind=pb_utils.MetricFamily.COUNTER,
            )
            for outcome in ("cached", "read", "absent", "stale", "degraded"):
                self.counters[outcome] = self.family.Metric(labels={"model": model, "outcome": outcome})
        except pb_utils.TritonModelException:
            # The server runs without metrics.
            self.counters = {}

    def count(self, found: Found[History]) -> None:
        """Count a look-up, and say that members were answered without their history."""
        for outcome, counter in self.counters.items():
            if count := getattr(found, outcome):
                counter.increment(count)
        unread = found.stale + found.degraded
        self.unreported += unread
        now = time.monotonic()
        if unread and now >= self.reported + REPORT_EVERY_S:
            self.warn(f"{self.unreported} members answered without a read of their history ({found.reason})")
            self.unreported, self.reported = 0, now

    def warn(self, text: str) -> None:
        """Write a line into the server's log."""
        pb_utils.Logger.log_warn(f"{self.model}: {text}")
