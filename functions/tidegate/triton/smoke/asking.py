"""Asks one loaded model: row by row, in batches, and again for the time that it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidegate.errors import EndpointError, EndpointTimeoutError
from tidegate.ports import Endpoint, HttpRequest, HttpResponse, Transport
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.golden.answers import differing, validate_answer
from tidegate.triton.golden.made_up import varied
from tidegate.triton.golden.requests import GoldenRequest, joined
from tidegate.triton.golden.tensors import Array
from tidegate.triton.golden.wire import MalformedAnswerError, Output, decode

BATCH = 3
TIMED_CALLS = 25
TIMED_S = 2.0

Answer = dict[str, Output]


class ServerLostError(Exception):
    """The server hangs or has ended, so that it cannot be asked any more."""


class ModelLostError(Exception):
    """The model's process has ended, so that asking it more tells nothing."""


@dataclass(slots=True)
class Asker:
    """Asks models on one endpoint; `findings` takes what is wrong with the answers, `requests` counts what was sent."""

    transport: Transport
    endpoint: Endpoint
    timeout_s: float
    findings: list[ModelFinding] = field(default_factory=list)
    requests: int = 0

    async def ask(self, model: ModelFolder, request: GoldenRequest, version: int | None = None) -> Answer | None:
        """Send a request and judge the answer; gives its outputs, or None where there are none to go on with.

        Raises:
            ServerLostError: no answer came in time, or the server ended.
            ModelLostError: the model's process ended.
        """
        return self._judge(model, request, await self._send(request, version))

    async def ask_all(self, model: ModelFolder, requests: Sequence[GoldenRequest]) -> list[GoldenRequest]:
        """Ask every row by itself, then rows in batches, and compare; gives the rows that were answered.

        Raises what `ask` raises.
        """
        rows = [request.row(number) for request in requests for number in range(request.rows)]
        answers = [await self.ask(model, row) for row in rows]
        answered = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
        size = min(BATCH, model.message.max_batch_size)
        left = [] if size < 2 or any(row.is_sequence for row in rows) else answered
        while left:
            first = left[0][0]
            alike = [pair for pair in left if pair[0].like(first)]
            left = [pair for pair in left if not pair[0].like(first)]
            for start in range(0, len(alike), size):
                chunk = alike[start : start + size]
                await self._ask_batch(model, chunk, [row for row, _ in alike[:start]], size)
        return [row for row, _ in answered]

    async def median_ms(self, request: GoldenRequest) -> float:
        """The median time of an answer, in milliseconds. Raises what `ask` raises."""
        taken: list[float] = []
        http, end = request.http(), time.monotonic() + TIMED_S
        while len(taken) < TIMED_CALLS and (not taken or time.monotonic() < end):
            started = time.perf_counter()
            await self._exchange(request, http)
            taken.append((time.perf_counter() - started) * 1000)
        return statistics.median(taken)

    async def _ask_batch(
        self,
        model: ModelFolder,
        rows: Sequence[tuple[GoldenRequest, Answer]],
        others: Sequence[GoldenRequest],
        size: int,
    ) -> None:
        """Ask rows together, and compare each with its own answer. Too few are filled up with others, then with
        variations of the first, or with itself where the model refuses those."""
        asked = [*(row for row, _ in rows), *others][:size]
        first, answer = asked[0], None
        if len(asked) < size:
            request = joined([*asked, *(varied(first, number) for number in range(1, size))][:size])
            response = await self._send(request)
            if response.status == 200:
                # A variation may mean nothing to the model, which may say so with NaN.
                answer = self._judge(model, request, response, forgiven=("output-not-finite",))
        if answer is None:
            answer = await self.ask(model, joined([*asked, *[first] * size][:size]))
        if answer is not None:
            for number, (row, single) in enumerate(rows):
                await self._compare(row, single, answer, number)

    def _judge(
        self, model: ModelFolder, request: GoldenRequest, response: HttpResponse, forgiven: Sequence[str] = ()
    ) -> Answer | None:
        found = [each for each in validate_answer(model.message, request, response) if each.kind not in forgiven]
        self._note(*found)
        if any(each.kind == "model-crashed" for each in found):
            raise ModelLostError
        return _decoded(response)

    def _note(self, *findings: ModelFinding) -> None:
        self.findings += [finding for finding in findings if finding not in self.findings]

    async def _compare(self, row: GoldenRequest, single: Answer, batch: Answer, number: int) -> None:
        """Report outputs of a row that are not what they are when it is asked alone."""
        for name, output in single.items():
            if name not in batch or len(batch[name].array) <= number or not len(output.array):
                continue
            alone, beside = output.array, batch[name].array[number : number + 1]
            if not _same(row, alone, beside) and await self._repeats(row, name, alone):
                message = f"output {name!r} of a row differs when other rows stand beside it"
                hint = _hint(row, alone, beside)
                self._note(ModelFinding(row.file, 0, "batch-differs", message, hint, row.model))

    async def _repeats(self, row: GoldenRequest, name: str, before: Array) -> bool:
        """Whether a model gives the same answer twice; one that does not cannot be compared with itself."""
        again = _decoded(await self._send(row))
        return again is not None and name in again and _same(row, before, again[name].array)

    async def _send(self, request: GoldenRequest, version: int | None = None) -> HttpResponse:
        return await self._exchange(request, request.http(version))

    async def _exchange(self, request: GoldenRequest, http: HttpRequest) -> HttpResponse:
        self.requests += 1
        try:
            return await self.transport.send(self.endpoint, http, self.timeout_s)
        except EndpointTimeoutError as error:
            message = f"no answer within {self.timeout_s:g} s"
            self._note(ModelFinding(request.file, 0, "answer-hung", message, "", request.model))
            raise ServerLostError from error
        except EndpointError as error:
            message = f"the server ended while it answered: {error}"
            self._note(ModelFinding(request.file, 0, "model-crashed", message, "", request.model))
            raise ServerLostError from error


def in_batches(rows: Sequence[GoldenRequest], most: int) -> list[GoldenRequest]:
    """One batch for each kind of rows that can stand together, at most `most` long; a single row stands beside itself."""
    size, found = min(BATCH, most), []
    left = [] if size < 2 or any(row.is_sequence for row in rows) else list(rows)
    while left:
        alike = [row for row in left if row.like(left[0])]
        found.append(joined([*alike, *[left[0]] * size][:size]))
        left = [row for row in left if not row.like(left[0])]
    return found


def _decoded(response: HttpResponse) -> Answer | None:
    if response.status != 200:
        return None
    try:
        return decode(response)
    except MalformedAnswerError:
        return None


def _same(row: GoldenRequest, left: Array, right: Array) -> bool:
    """Whether two answers to a row are the same; one may be longer where the rest of it is padding."""
    if left.ndim != right.ndim or (left.dtype != right.dtype and left.dtype.kind != right.dtype.kind):
        return False
    common = tuple(slice(0, min(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    if differing(left[common], right[common], row.absolute, row.relative).any():
        return False
    return all(_is_padding(each, common) for each in (left, right))


def _is_padding(array: Array, used: tuple[slice, ...]) -> bool:
    rest = np.ones(array.shape, np.bool_)
    rest[used] = False
    values = array[rest]
    return all(not value for value in values.tolist()) if values.size else True


def _hint(row: GoldenRequest, alone: Array, beside: Array) -> str:
    if alone.shape != beside.shape:
        return f"alone it has the shape {list(alone.shape)}, beside others {list(beside.shape)}"
    wrong = differing(alone, beside, row.absolute, row.relative)
    first = tuple(map(int, np.argwhere(wrong)[0]))
    return f"alone {alone[first]!s:.40}, beside others {beside[first]!s:.40}; a sample may say a tolerance"
