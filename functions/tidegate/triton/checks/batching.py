"""Dynamic batching, sequence batching, queues, and the response cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.triton.checks.folder import ModelFolder

LONG_DELAY_US = 1_000_000

ID_TYPES = frozenset({"TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"})
"""The data types that Triton takes for a correlation ID."""


def check_batching(model: ModelFolder) -> None:
    """Check how requests are joined and queued. The conditions are those of ValidateModelConfig in Triton's core."""
    config = model.message
    if config.HasField("dynamic_batching") and not model.is_ensemble:
        _check_dynamic(model)
    if config.HasField("sequence_batching"):
        _check_sequences(model)
    if config.response_cache.enable:
        _check_cache(model)


def _check_dynamic(model: ModelFolder) -> None:
    batching, lines = model.message.dynamic_batching, model.config
    place = ("dynamic_batching",)
    if model.message.max_batch_size == 0 and lines.whole():
        hint = "set max_batch_size, or remove dynamic_batching"
        message = "dynamic_batching has nothing to join: max_batch_size is 0"
        model.report("batching-idle", message, hint, line=lines.line(*place))
    _check_preferred(model, "dynamic-batching", batching.preferred_batch_size, (*place, 0, "preferred_batch_size"))
    _check_delay(model, batching.max_queue_delay_microseconds, (*place, 0, "max_queue_delay_microseconds"))
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        message = f"default_priority_level {default} is not one of the {levels} priority_levels"
        line = lines.line(*place, 0, "default_priority_level")
        model.report("dynamic-batching", message, f"say 1 to {levels}", line=line)
    for level in batching.priority_queue_policy:
        if levels and not 1 <= level <= levels:
            message = f"priority_queue_policy has level {level}, of {levels} priority_levels"
            line = lines.line(*place, 0, "priority_queue_policy")
            model.report("dynamic-batching", message, f"say 1 to {levels}", line=line)
    if batching.preserve_ordering:
        _check_ordering(model, batching)


def _check_ordering(model: ModelFolder, batching: Any) -> None:
    line = model.config.line("dynamic_batching", 0, "preserve_ordering")
    if batching.priority_levels > 1:
        message = "preserve_ordering excludes several priority_levels"
        model.report("dynamic-batching", message, "remove one of them", line=line)
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if any(policy.default_timeout_microseconds and policy.timeout_action == policy.DELAY for policy in policies):
        message = "preserve_ordering excludes the timeout_action DELAY"
        model.report("dynamic-batching", message, "say REJECT, or remove preserve_ordering", line=line)


def _check_preferred(model: ModelFolder, kind: str, sizes: Iterable[int], place: tuple[str | int, ...]) -> None:
    most = model.message.max_batch_size
    for number, size in enumerate(sizes):
        if size < 1 or size > most > 0:
            message = f"preferred_batch_size {size} is not from 1 to max_batch_size {most}"
            model.report(kind, message, "leave preferred_batch_size out", line=model.config.line(*place, number))


def _check_delay(model: ModelFolder, delay_us: int, place: tuple[str | int, ...]) -> None:
    if delay_us > LONG_DELAY_US:
        message = f"a request waits up to {delay_us / 1e6:g} s for company"
        model.report("queue-delay", message, "the field is in microseconds", line=model.config.line(*place))


def _check_sequences(model: ModelFolder) -> None:
    batching, lines = model.message.sequence_batching, model.config
    place = ("sequence_batching", 0)
    _check_controls(model)
    if batching.HasField("oldest"):
        sizes = batching.oldest.preferred_batch_size
        _check_preferred(model, "sequence-batching", sizes, (*place, "oldest", 0, "preferred_batch_size"))
        _check_delay(
            model, batching.oldest.max_queue_delay_microseconds, (*place, "oldest", 0, "max_queue_delay_microseconds")
        )
    utilization = batching.direct.minimum_slot_utilization
    if not 0 <= utilization <= 1:
        line = lines.line(*place, "direct", 0, "minimum_slot_utilization")
        model.report("sequence-batching", f"minimum_slot_utilization is {utilization:g}", "say 0 to 1", line=line)


def _check_controls(model: ModelFolder) -> None:
    batching, lines = model.message.sequence_batching, model.config
    seen: set[str] = set()
    kinds: set[int] = set()
    for number, control_input in enumerate(batching.control_input):
        line = lines.line("sequence_batching", 0, "control_input", number)
        name = control_input.name
        if not name or name in seen:
            message = f"control_input {name!r} is duplicated" if name else "a control_input without a name"
            model.report("sequence-batching", message, "one name for each", line=line)
        seen.add(name)
        for control in control_input.control:
            if control.kind in kinds:
                kind = control.Kind.Name(control.kind)
                model.report("sequence-batching", f"{kind} has several tensors", "keep one", line=line)
            kinds.add(control.kind)
            _check_control(model, control, line)


def _check_control(model: ModelFolder, control: Any, line: int) -> None:
    values = [control.int32_false_true, control.fp32_false_true, control.bool_false_true]
    given = [each for each in values if each]
    kind = control.Kind.Name(control.kind)
    if kind == "CONTROL_SEQUENCE_CORRID":
        if given or not control.data_type:
            model.report("sequence-batching", f"{kind} takes a data_type and no values", "say data_type", line=line)
        elif (name := _data_type(control)) not in ID_TYPES:
            hint = f"one of {', '.join(sorted(ID_TYPES))}"
            model.report("sequence-batching", f"{kind} has data_type {name}, which Triton refuses", hint, line=line)
    elif len(given) != 1 or len(given[0]) != 2:
        message = f"{kind} needs exactly one of int32_false_true, fp32_false_true and bool_false_true, with 2 values"
        model.report("sequence-batching", message, "say int32_false_true: [ 0, 1 ]", line=line)


def _data_type(control: Any) -> str:
    values = control.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(values[control.data_type].name) if control.data_type in values else str(control.data_type)


def _check_cache(model: ModelFolder) -> None:
    config, line = model.message, model.config.line("response_cache")
    if config.HasField("sequence_batching"):
        model.report("response-cache", "sequences cannot be cached", "disable response_cache", line=line)
    if config.model_transaction_policy.decoupled:
        model.report("response-cache", "decoupled answers cannot be cached", "disable response_cache", line=line)
