"""Models' own metadata, asked of Triton and kept for a while."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.dispatch import Call, Dispatcher
from tidegate.rules.decision import Decision, Target
from tidegate.web.errors import bad_model_answer, model_refused

_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model: `datatype` as the protocol names it, -1 in `shape` for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_dict(self) -> dict[str, object]:
        """The tensor as plain JSON values."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model says about itself: the versions that are served and its tensors. `fetched_s` is when it said so."""

    versions: tuple[int, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    fetched_s: float


class MetadataCache:
    """Asks for models' metadata and keeps the answers by (model, version)."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._kept: dict[tuple[str, int | None], ModelMetadata] = {}

    async def get(
        self, decision: Decision, deadline_s: float, max_age_s: float, all_versions: bool = False
    ) -> ModelMetadata:
        """The metadata of the decision's target, at most `max_age_s` seconds old.

        A decision with fallbacks may be answered by a fallback's metadata: it is then the fallback that serves.
        `all_versions` asks for the model rather than for the version that the target pins.

        Raises:
            DispatchError: nobody answered.
            WebError: the answer is an error, or is no metadata.
        """
        target = decision.target
        key = (target.model, None if all_versions else target.version)
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept.fetched_s <= max_age_s:
            return kept
        path = f"/v2/models/{target.model}" if all_versions else None
        outcome = await self._dispatcher.dispatch(decision, Call("GET", path=path), deadline_s)
        metadata = _read(outcome.response.status, outcome.response.body, outcome.target, self._clock())
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        if outcome.target == target:
            self._kept[key] = metadata
        return metadata


def _read(status: int, body: bytes, target: Target, now_s: float) -> ModelMetadata:
    try:
        document = json.loads(body)
        if status != 200:
            raise model_refused(status, str(document["error"]))
        versions = tuple(sorted(int(version) for version in document.get("versions", ())))
        inputs = tuple(_tensor(tensor) for tensor in document["inputs"])
        outputs = tuple(_tensor(tensor) for tensor in document["outputs"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise bad_model_answer(f"the metadata of model {target.model!r} is not readable ({status})") from error
    return ModelMetadata(versions, inputs, outputs, now_s)


def _tensor(document: Mapping[str, Any]) -> Tensor:
    shape = tuple(int(size) for size in document["shape"])
    return Tensor(str(document["name"]), str(document["datatype"]), shape)
