"""Asks an ensemble's steps one by one with what flows between them, so that a mistake is found where it is made.

Triton hands tensors from step to step unchecked; the ensemble's own answer shows only what comes out at its end.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.golden.requests import GoldenRequest, in_sequence
from tidegate.triton.golden.tensors import Array, bfloats
from tidegate.triton.model_config import CONFIG
from tidegate.triton.smoke.asking import Asker


async def ask_steps(asker: Asker, repository: Repository, ensemble: ModelFolder, request: GoldenRequest) -> None:
    """Ask the steps of an ensemble as a request to it would, up to the first whose answer is wrong.

    Steps that batch where the ensemble does not, or the other way round, are not asked, nor what depends on them.
    """
    tensors: dict[str, Array] = dict(request.inputs)
    waiting = list(ensemble.message.ensemble_scheduling.step)
    while waiting:
        ready = [step for step in waiting if all(name in tensors for name in step.input_map.values())]
        if not ready:
            return
        for step in ready:
            waiting.remove(step)
            model = repository.model(step.model_name)
            if model is None or model.message.model_transaction_policy.decoupled:
                continue
            if (model.message.max_batch_size > 0) != request.batches:
                continue
            asked = replace(
                request,
                model=step.model_name,
                file=f"{step.model_name}/{CONFIG}",
                inputs={name: tensors[tensor] for name, tensor in step.input_map.items()},
                expected={},
                bfloats=bfloats(model.message.input),
            )
            closure = (repository.model(each) for each in repository.closure([step.model_name]))
            asked = in_sequence(asked, [each.message for each in closure if each is not None])
            before = len(asker.findings)
            answer = await asker.ask(model, asked, step.model_version if step.model_version > 0 else None)
            new = asker.findings[before:]
            asker.findings[before:] = [replace(each, hint=f"asked as a step by {request.file}") for each in new]
            if new or answer is None:
                return
            mapped = {tensor: answer[name].array for name, tensor in step.output_map.items() if name in answer}
            tensors |= mapped
