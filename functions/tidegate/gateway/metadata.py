"""A cache of models' metadata, and what else their configurations say of inputs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from tidegate.errors import ModelAnswerError
from tidegate.gateway.call import Call
from tidegate.gateway.dispatcher import Dispatcher
from tidegate.oip.metadata import ModelMetadata, read_metadata
from tidegate.oip.paths import model_path
from tidegate.rules.decision import Decision

_MOST_KEPT: Final = 1024


class MetadataCache:
    """Requests models' metadata and caches it by model and version."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._kept: dict[tuple[str, int | None], tuple[float, ModelMetadata]] = {}

    async def get(
        self, decision: Decision, deadline_s: float, max_age_s: float, all_versions: bool = False
    ) -> ModelMetadata:
        """Return the metadata of the decision's target, at most `max_age_s` seconds old.

        If a fallback serves the decision, its metadata is returned, and not cached. `all_versions` requests the metadata of
        the model rather than of the version that the target pins.

        Raises:
            DispatchError: no target answered.
            ModelRefusedError: the answer is an error.
            ModelAnswerError: the answer is not metadata.
        """
        target = decision.target
        key = (target.model, None if all_versions else target.version)
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] <= max_age_s:
            return kept[1]
        path = model_path(target.model) if all_versions else None
        outcome = await self._dispatcher.dispatch(decision, Call("GET", path=path), deadline_s)
        metadata = read_metadata(outcome.response.status, outcome.response.body, outcome.target.model)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        if outcome.target == target:
            self._kept[key] = self._clock(), metadata
        return metadata

    async def required_inputs(self, decision: Decision, deadline_s: float) -> frozenset[str]:
        """Return the inputs that the configuration of the decision's target declares, and not as optional. It is not cached.

        Raises:
            DispatchError: no target answered.
            ModelAnswerError: the answer is no configuration.
        """
        outcome = await self._dispatcher.dispatch(decision, Call("GET", "/config"), deadline_s)
        try:
            inputs = json.loads(outcome.response.body)["input"]
            return frozenset(str(each["name"]) for each in inputs if not each.get("optional"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            model = outcome.target.model
            raise ModelAnswerError(f"the configuration of model {model!r} is not readable") from error
