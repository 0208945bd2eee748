"""Sends requests to one loaded model: row by row, in batches, step by step, and again to measure its time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tidegate.errors import EndpointError, EndpointTimeoutError
from tidegate.model_layout import CONFIG
from tidegate.models.golden.answers import differing, outputs_of, validate_answer
from tidegate.models.golden.requests import GoldenRequest, bfloats, in_sequence, joined, varied
from tidegate.models.golden.streams import stream_request, validate_stream
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import CheckedFolder, Repository
from tidegate.oip.arrays import Array, Output
from tidegate.oip.framing import MalformedAnswerError
from tidegate.ports import Endpoint, HttpRequest, HttpResponse, Transport

BATCH = 3
TIMED_CALLS = 25
TIMED_S = 2.0

Answer = dict[str, Output]


class ServerLostError(Exception):
    """The server hangs or has ended."""


class ModelLostError(Exception):
    """The model's process has ended."""


@dataclass(slots=True)
class Asker:
    """Sends requests to one endpoint; `findings` collects what is wrong with the answers, `requests` counts what was sent.

    What sends requests raises `ServerLostError` (no answer in time, or the server ended) and `ModelLostError`.
    """

    transport: Transport
    endpoint: Endpoint
    timeout_s: float
    findings: list[ModelFinding] = field(default_factory=list)
    requests: int = 0

    async def ask(self, model: CheckedFolder, request: GoldenRequest, version: int | None = None) -> Answer | None:
        """Send a request and check the answer; return its outputs, or None if they cannot be read."""
        return self._judge(model, request, await self._send(request, version))

    async def ask_stream(self, model: CheckedFolder, request: GoldenRequest) -> None:
        """Send a request to a model with decoupled responses, and check all of them together."""
        response = await self._exchange(request, stream_request(model.config, request, None))
        found = validate_stream(model.config, request, response)
        self._note(*found)
        if any(each.kind == "model-crashed" for each in found):
            raise ModelLostError

    async def ask_all(self, model: CheckedFolder, requests: Sequence[GoldenRequest]) -> list[GoldenRequest]:
        """Send every row by itself, then rows in batches, and compare; return the rows that were answered."""
        rows = [request.row(number) for request in requests for number in range(request.rows)]
        answers = [await self.ask(model, row) for row in rows]
        answered = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
        size = min(BATCH, model.config.max_batch_size)
        for group in _alike([row for row, _ in answered], size):
            pairs = [answered[place] for place in group]
            for start in range(0, len(pairs), size):
                others = [row for row, _ in pairs[:start]]
                await self._ask_batch(model, pairs[start : start + size], others, size)
        return [row for row, _ in answered]

    async def median_ms(self, request: GoldenRequest) -> float:
        taken: list[float] = []
        http, end = request.http(), time.monotonic() + TIMED_S
        while len(taken) < TIMED_CALLS and (not taken or time.monotonic() < end):
            started = time.perf_counter()
            await self._exchange(request, http)
            taken.append((time.perf_counter() - started) * 1000)
        return statistics.median(taken)

    async def _ask_batch(
        self,
        model: CheckedFolder,
        rows: Sequence[tuple[GoldenRequest, Answer]],
        others: Sequence[GoldenRequest],
        size: int,
    ) -> None:
        """Send rows together, and compare each with its own answer. A batch that is too small is filled with others, then
        with variations of the first row, or with its copies if the model refuses those."""
        asked = [*(row for row, _ in rows), *others][:size]
        first, answer = asked[0], None
        if len(asked) < size:
            request = joined([*asked, *(varied(first, number) for number in range(1, size))][:size])
            response = await self._send(request)
            if response.status == 200:
                # A variation may be meaningless, and its answer NaN.
                answer = self._judge(model, request, response, forgiven=("output-not-finite",))
        if answer is None:
            answer = await self.ask(model, joined([*asked, *[first] * size][:size]))
        if answer is not None:
            for number, (row, single) in enumerate(rows):
                await self._compare(row, single, answer, number)

    def _judge(
        self, model: CheckedFolder, request: GoldenRequest, response: HttpResponse, forgiven: Sequence[str] = ()
    ) -> Answer | None:
        found = [each for each in validate_answer(model.config, request, response) if each.kind not in forgiven]
        self._note(*found)
        if any(each.kind == "model-crashed" for each in found):
            raise ModelLostError
        return _decoded(response)

    def _note(self, *findings: ModelFinding) -> None:
        self.findings += [finding for finding in findings if finding not in self.findings]

    async def _compare(self, row: GoldenRequest, single: Answer, batch: Answer, number: int) -> None:
        for name, output in single.items():
            if name not in batch or len(batch[name].array) <= number or not len(output.array):
                continue
            alone, beside = output.array, batch[name].array[number : number + 1]
            if not _same(row, alone, beside) and await self._repeats(row, name, alone):
                message = f"output {name!r} of a row differs when other rows are in its batch"
                self._note(row.finding("batch-differs", message, _hint(row, alone, beside)))

    async def _repeats(self, row: GoldenRequest, name: str, before: Array) -> bool:
        # A model that does not give the same answer twice cannot be compared with itself.
        again = _decoded(await self._send(row))
        return again is not None and name in again and _same(row, before, again[name].array)

    async def _send(self, request: GoldenRequest, version: int | None = None) -> HttpResponse:
        return await self._exchange(request, request.http(version))

    async def _exchange(self, request: GoldenRequest, http: HttpRequest) -> HttpResponse:
        self.requests += 1
        try:
            return await self.transport.send(self.endpoint, http, self.timeout_s)
        except EndpointTimeoutError as error:
            self._note(request.finding("answer-hung", f"no answer within {self.timeout_s:g} s"))
            raise ServerLostError from error
        except EndpointError as error:
            self._note(request.finding("model-crashed", f"the server ended while it answered: {error}"))
            raise ServerLostError from error


def in_batches(rows: Sequence[GoldenRequest], most: int) -> list[GoldenRequest]:
    """Return one batch, at most `most` long, for each group of rows that can share one; a single row is repeated."""
    size = min(BATCH, most)
    groups = [[rows[place] for place in group] for group in _alike(rows, size)]
    return [joined([*group, *[group[0]] * size][:size]) for group in groups]


def _alike(rows: Sequence[GoldenRequest], most: int) -> list[list[int]]:
    """Return the indexes of rows that can share a batch, in groups; none for batches of one row, or for sequences."""
    left = [] if most < 2 or any(row.is_sequence for row in rows) else list(range(len(rows)))
    groups: list[list[int]] = []
    while left:
        groups.append([place for place in left if rows[place].like(rows[left[0]])])
        left = [place for place in left if place not in groups[-1]]
    return groups


def _decoded(response: HttpResponse) -> Answer | None:
    if response.status != 200:
        return None
    try:
        return outputs_of(response)
    except MalformedAnswerError:
        return None


def _same(row: GoldenRequest, left: Array, right: Array) -> bool:
    """Return whether two answers to a row are the same; one may be longer if the rest of it is padding."""
    if left.ndim != right.ndim or (left.dtype != right.dtype and left.dtype.kind != right.dtype.kind):
        return False
    common = tuple(slice(0, min(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    if differing(left[common], right[common], row.absolute, row.relative).any():
        return False
    for array in (left, right):
        rest = np.ones(array.shape, np.bool_)
        rest[common] = False
        if any(array[rest].tolist()):
            return False
    return True


def _hint(row: GoldenRequest, alone: Array, beside: Array) -> str:
    if alone.shape != beside.shape:
        return f"alone it has the shape {list(alone.shape)}, beside others {list(beside.shape)}"
    wrong = differing(alone, beside, row.absolute, row.relative)
    first = tuple(map(int, np.argwhere(wrong)[0]))
    return f"alone {alone[first]!s:.40}, beside others {beside[first]!s:.40}; a sample may say a tolerance"


async def ask_steps(asker: Asker, repository: Repository, ensemble: CheckedFolder, request: GoldenRequest) -> None:
    """Send each step of an ensemble what a request to the ensemble would, up to the first wrong answer.

    Triton does not check the tensors between steps, and the ensemble's answer shows only its last ones. Steps that batch
    while the ensemble does not, or the reverse, are left out, with those that depend on them.
    """
    tensors: dict[str, Array] = dict(request.inputs)
    waiting = list(ensemble.config.ensemble_scheduling.step)
    while waiting:
        ready = [step for step in waiting if all(name in tensors for name in step.input_map.values())]
        if not ready:
            return
        for step in ready:
            waiting.remove(step)
            model = repository.model(step.model_name)
            if model is None or model.config.model_transaction_policy.decoupled:
                continue
            if (model.config.max_batch_size > 0) != request.batches:
                continue
            asked = replace(
                request,
                model=step.model_name,
                file=f"{step.model_name}/{CONFIG}",
                inputs={name: tensors[tensor] for name, tensor in step.input_map.items()},
                expected={},
                bfloats=bfloats(model.config.input),
            )
            asked = in_sequence(asked, repository.configs_of(step.model_name))
            before = len(asker.findings)
            answer = await asker.ask(model, asked, step.model_version if step.model_version > 0 else None)
            new = asker.findings[before:]
            asker.findings[before:] = [replace(each, hint=f"asked as a step by {request.file}") for each in new]
            if new or answer is None:
                return
            tensors |= {tensor: answer[name].array for name, tensor in step.output_map.items() if name in answer}
