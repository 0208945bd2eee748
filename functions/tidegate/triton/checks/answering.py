"""What loads and then answers no request: decoupled responses, text correlation IDs, configs that Triton must complete."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.checks.tensors import completes
from tidegate.triton.model_config import has_text_ids


def check_answering(model: ModelFolder, repository: Repository, completed: Mapping[str, frozenset[str] | None]) -> None:
    """Check that a request to `infer` can be answered by a model that Triton loads.

    `completed` has what its code adds to the config: names of each kind, `input` and `output`.
    """
    check_decoupled(model, repository)
    _check_text_ids(model)
    _check_completion(model, completed)


def is_decoupled(name: str, repository: Repository) -> bool:
    """Whether a model has decoupled responses, or a step of it has; Triton then refuses `infer` for all of it.

    What an ensemble says of itself does not count: Triton takes it from the steps.
    """
    closure = (repository.model(each) for each in repository.closure([name]))
    return any(
        each is not None and not each.is_ensemble and each.message.model_transaction_policy.decoupled
        for each in closure
    )


def check_decoupled(model: ModelFolder, repository: Repository) -> None:
    """Check that a model, and every step of it, answers each request once."""
    if not is_decoupled(model.name, repository):
        return
    line, reason = model.config.line("model_transaction_policy"), "its responses are decoupled"
    for number, step in enumerate(model.message.ensemble_scheduling.step):
        if is_decoupled(step.model_name, repository):
            line = model.config.line("ensemble_scheduling", 0, "step", number)
            reason = f"the responses of step {number + 1} ({step.model_name}) are decoupled"
    hint = "answer each request once and set decoupled: false, or have callers resolve and then stream over gRPC"
    model.report("decoupled", f"{reason}: Triton answers every infer request with 501", hint, line=line)


def _check_text_ids(model: ModelFolder) -> None:
    if has_text_ids(model.message):
        line = model.config.line("sequence_batching", 0, "control_input")
        message = "a text correlation ID: Triton 2.51 answers 400 unless the sequence_id has exactly 128 bytes"
        model.report(
            "sequence-text-id", message, "say data_type: TYPE_UINT64, and have callers send numbers", line=line
        )


def _check_completion(model: ModelFolder, completed: Mapping[str, frozenset[str] | None]) -> None:
    """Report inputs and outputs that only Triton's completion of configs declares."""
    config = model.config
    if not config.whole() or not model.versions or not completes(model):
        return
    open_kinds = [kind for kind in ("input", "output") if not getattr(model.message, kind)]
    hint = "declare it in config.pbtxt: deployed servers run with --disable-auto-complete-config unless set otherwise"
    if not config.present and model.backend:
        message = "there is no config.pbtxt, so the model loads only where servers complete configs"
        model.report("config-completed", message, hint, file="", line=0)
    elif open_kinds and model.backend:
        message = f"no {' and no '.join(open_kinds)} is declared: every request fails where servers complete no configs"
        model.report("config-completed", message, hint, line=1)
    elif model.backend == "python":
        for kind, declared in (("input", model.input_names), ("output", model.output_names)):
            for name in sorted((completed[kind] or frozenset()) - declared):
                message = f"auto_complete_config adds {kind} {name!r}, which the config does not declare"
                model.report("config-completed", message, hint, line=config.line(kind))
