"""How requests reach instances of a model: instance groups, batching, sequences, queues, and the response cache.

The conditions are those of ValidateModelConfig in Triton's core, and that the same config loads on a machine with GPUs and
on one without.
"""

from __future__ import annotations

from typing import Any

from tidegate.models.config import data_type
from tidegate.models.lint.folder import CheckedFolder, Field, report_duplicates

GPU_ONLY = frozenset({"tensorrt", "tensorrtllm", "vllm"})
"""Backends that need a GPU anyway."""

MANY = 32

LONG_DELAY_US = 1_000_000
ID_TYPES = frozenset({"TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"})
"""The data types that Triton takes for a correlation ID."""


def check_scheduling(model: CheckedFolder) -> None:
    config = model.config
    _check_instances(model)
    if config.HasField("dynamic_batching") and not model.is_ensemble:
        _check_dynamic(model)
    if config.HasField("sequence_batching"):
        _check_sequences(model)
    if config.response_cache.enable:
        hint, at = "disable response_cache", ("response_cache",)
        if config.HasField("sequence_batching"):
            model.report("response-cache", "sequences cannot be cached", hint, at=at)
        if config.model_transaction_policy.decoupled:
            model.report("response-cache", "decoupled answers cannot be cached", hint, at=at)


def _check_instances(model: CheckedFolder) -> None:
    # Triton completes an empty config.
    if model.is_ensemble or not model.backend or model.config.ByteSize() == 0:
        return
    groups = list(model.fields("instance_group"))
    if not groups and model.text.whole():
        message = "no instance_group: machine and backend decide how many instances there are"
        model.report("instance-count", message, "say instance_group [ { kind: KIND_AUTO count: 1 } ]", line=1)
    for group in groups:
        _check_group(model, group)
    report_duplicates(groups, "instance-group", "the name")
    if groups and all(group.value.passive for group in groups):
        message = "every group is passive, so nothing answers"
        groups[0].report("instance-group", message, "remove passive", "passive")


def _check_group(model: CheckedFolder, group: Field) -> None:
    value, count = group.value, group.value.count
    if value.gpus:
        message = f"gpus: {list(value.gpus)} names devices that another machine does not have"
        group.report("instance-device", message, "remove gpus", "gpus")
    if value.kind == value.KIND_GPU and model.backend not in GPU_ONLY:
        hint = "say KIND_AUTO, which takes a GPU where there is one"
        group.report("instance-device", "KIND_GPU does not load on a machine without a GPU", hint, "kind")
    if value.profile and model.backend != "tensorrt":
        group.report("instance-group", "profile is for TensorRT alone", "remove it", "profile")
    if count < 0:
        group.report("instance-count", f"count is {count}", "say how many, from 1", "count")
    elif count == 0 and group.whole:
        message = "no count: the ONNX backend then starts 2 instances on a CPU, others 1"
        group.report("instance-count", message, "say count: 1", "count")
    elif count > MANY and model.backend == "python":
        message = f"{count} instances are as many processes of some 70 MB each"
        group.report("instance-count", message, "start with count: 1 and measure", "count")


def _check_dynamic(model: CheckedFolder) -> None:
    batching = Field(model, ("dynamic_batching", 0), model.config.dynamic_batching)
    if model.config.max_batch_size == 0 and model.text.whole():
        message = "dynamic_batching has nothing to join: max_batch_size is 0"
        batching.report("batching-idle", message, "set max_batch_size, or remove dynamic_batching")
    _check_queue(model, "dynamic-batching", batching)
    value = batching.value
    levels, default = value.priority_levels, value.default_priority_level
    if levels and not 1 <= default <= levels:
        message = f"default_priority_level {default} is not one of the {levels} priority_levels"
        batching.report("dynamic-batching", message, f"say 1 to {levels}", "default_priority_level")
    for level in value.priority_queue_policy:
        if levels and not 1 <= level <= levels:
            message = f"priority_queue_policy has level {level}, of {levels} priority_levels"
            batching.report("dynamic-batching", message, f"say 1 to {levels}", "priority_queue_policy")
    if value.preserve_ordering:
        if levels > 1:
            message = "preserve_ordering excludes several priority_levels"
            batching.report("dynamic-batching", message, "remove one of them", "preserve_ordering")
        policies = [value.default_queue_policy, *value.priority_queue_policy.values()]
        if any(policy.default_timeout_microseconds and policy.timeout_action == policy.DELAY for policy in policies):
            message = "preserve_ordering excludes the timeout_action DELAY"
            batching.report("dynamic-batching", message, "say REJECT, or remove preserve_ordering", "preserve_ordering")


def _check_queue(model: CheckedFolder, kind: str, batching: Field) -> None:
    """Check the sizes of batches, and the longest wait for more requests."""
    most, delay_us = model.config.max_batch_size, batching.value.max_queue_delay_microseconds
    for number, size in enumerate(batching.value.preferred_batch_size):
        if size < 1 or size > most > 0:
            message = f"preferred_batch_size {size} is not from 1 to max_batch_size {most}"
            batching.report(kind, message, "leave preferred_batch_size out", "preferred_batch_size", number)
    if delay_us > LONG_DELAY_US:
        message = f"a request waits up to {delay_us / 1e6:g} s for company"
        batching.report("queue-delay", message, "the field is in microseconds", "max_queue_delay_microseconds")


def _check_sequences(model: CheckedFolder) -> None:
    batching = Field(model, ("sequence_batching", 0), model.config.sequence_batching)
    _check_controls(model)
    if batching.value.HasField("oldest"):
        _check_queue(model, "sequence-batching", Field(model, (*batching.place, "oldest", 0), batching.value.oldest))
    utilization = batching.value.direct.minimum_slot_utilization
    if not 0 <= utilization <= 1:
        message = f"minimum_slot_utilization is {utilization:g}"
        batching.report("sequence-batching", message, "say 0 to 1", "direct", 0, "minimum_slot_utilization")


def _check_controls(model: CheckedFolder) -> None:
    names: set[str] = set()
    kinds: set[int] = set()
    for control_input in model.fields("sequence_batching", "control_input"):
        name = control_input.value.name
        if not name or name in names:
            message = f"control_input {name!r} is duplicated" if name else "a control_input without a name"
            control_input.report("sequence-batching", message, "one name for each")
        names.add(name)
        for control in control_input.value.control:
            if control.kind in kinds:
                message = f"{control.Kind.Name(control.kind)} has several tensors"
                control_input.report("sequence-batching", message, "keep one")
            kinds.add(control.kind)
            _check_control(control_input, control)


def _check_control(control_input: Field, control: Any) -> None:
    values = [control.int32_false_true, control.fp32_false_true, control.bool_false_true]
    given = [each for each in values if each]
    kind, name = control.Kind.Name(control.kind), data_type(control)
    if kind == "CONTROL_SEQUENCE_CORRID":
        if not given and control.data_type and name in ID_TYPES:
            return
        if given or not control.data_type:
            message, hint = f"{kind} takes a data_type and no values", "say data_type"
        else:
            message, hint = (
                f"{kind} has data_type {name}, which Triton refuses",
                f"one of {', '.join(sorted(ID_TYPES))}",
            )
    elif len(given) != 1 or len(given[0]) != 2:
        message = f"{kind} needs exactly one of int32_false_true, fp32_false_true and bool_false_true, with 2 values"
        hint = "say int32_false_true: [ 0, 1 ]"
    else:
        return
    control_input.report("sequence-batching", message, hint)
