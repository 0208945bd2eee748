"""Instance groups: the same config has to load on a machine with GPUs and on one without."""

from __future__ import annotations

from typing import Any

from tidegate.triton.checks.folder import ModelFolder

GPU_ONLY = frozenset({"tensorrt", "tensorrtllm", "vllm"})
"""Backends that no machine without a GPU can load, so that KIND_GPU says nothing new."""

MANY = 32


def check_instances(model: ModelFolder) -> None:
    """Check a model's instance groups; an ensemble has none."""
    config, lines = model.message, model.config
    if model.is_ensemble or not model.backend or config.ByteSize() == 0:
        # An empty config is one that Triton writes itself.
        return
    if not config.instance_group and lines.whole():
        hint = "say instance_group [ { kind: KIND_AUTO count: 1 } ]"
        model.report(
            "instance-count", "no instance_group: machine and backend decide how many instances there are", hint, line=1
        )
    names: dict[str, int] = {}
    for number, group in enumerate(config.instance_group):
        _check_device(model, number, group)
        _check_count(model, number, group)
        if group.name in names:
            hint = f"it stands first on line {names[group.name]}"
            line = lines.line("instance_group", number, "name")
            model.report("instance-group", f"the name {group.name!r} is duplicated", hint, line=line)
        if group.name:
            names.setdefault(group.name, lines.line("instance_group", number, "name"))
        if group.profile and model.backend != "tensorrt":
            line = lines.line("instance_group", number, "profile")
            model.report("instance-group", "profile is for TensorRT alone", "remove it", line=line)
    if config.instance_group and all(group.passive for group in config.instance_group):
        line = lines.line("instance_group", 0, "passive")
        model.report("instance-group", "every group is passive, so nothing answers", "remove passive", line=line)


def _check_device(model: ModelFolder, number: int, group: Any) -> None:
    line = model.config.line("instance_group", number, "kind")
    hint = "say KIND_AUTO, which takes a GPU where there is one"
    if group.gpus:
        at = model.config.line("instance_group", number, "gpus")
        message = f"gpus: {list(group.gpus)} names devices that another machine does not have"
        model.report("instance-device", message, "remove gpus", line=at)
    if group.kind == group.KIND_GPU and model.backend not in GPU_ONLY:
        model.report("instance-device", "KIND_GPU does not load on a machine without a GPU", hint, line=line)


def _check_count(model: ModelFolder, number: int, group: Any) -> None:
    whole = model.config.whole("instance_group", number)
    line = model.config.line("instance_group", number, "count")
    if group.count < 0:
        model.report("instance-count", f"count is {group.count}", "say how many, from 1", line=line)
    elif group.count == 0 and whole:
        message = "no count: the ONNX backend then starts 2 instances on a CPU, others 1"
        model.report("instance-count", message, "say count: 1", line=line)
    elif group.count > MANY and model.backend == "python":
        message = f"{group.count} instances are as many processes of some 70 MB each"
        model.report("instance-count", message, "start with count: 1 and measure", line=line)
