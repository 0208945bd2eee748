"""The model repository as it is committed: what Triton, the control plane and the licences need of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from .conftest import MODELS, PURCHASE, RANKING, ROOT, SEARCH

ENSEMBLES = RANKING + SEARCH + PURCHASE


def config(model: str) -> ModelConfig:
    return text_format.Parse((MODELS / model / "config.pbtxt").read_text("utf-8"), ModelConfig())


def steps() -> list[str]:
    return sorted(path.parent.name for path in MODELS.glob("*/config.pbtxt") if path.parent.name not in ENSEMBLES)


@pytest.mark.parametrize("model", ENSEMBLES)
def test_ensembles_pin_steps_that_exist_and_have_a_version_folder_that_git_keeps(model: str) -> None:
    made = config(model)
    assert made.platform == "ensemble"
    for step in made.ensemble_scheduling.step:
        assert (MODELS / step.model_name / "config.pbtxt").is_file()
        assert step.model_version == 1
    assert (MODELS / model / "1" / ".keep").read_text("utf-8").strip()


@pytest.mark.parametrize("model", steps())
def test_steps_are_configured_in_full_for_machines_without_a_gpu(model: str) -> None:
    made = config(model)
    assert made.name == model
    assert made.backend in ("python", "onnxruntime")
    assert made.max_batch_size == 64
    assert [group.count for group in made.instance_group] == [1]
    assert not any(group.gpus or group.kind == group.KIND_GPU for group in made.instance_group)
    assert made.version_policy.HasField("all"), "a new version of a step must not retire the one that ensembles pin"
    assert (MODELS / model / "1" / "model.py").is_file() == (made.backend == "python")


def test_every_step_is_part_of_an_ensemble() -> None:
    used = {step.model_name for model in ENSEMBLES for step in config(model).ensemble_scheduling.step}
    assert sorted(used) == steps()


def test_copies_of_the_parameter_reader_are_identical() -> None:
    copies = {path.read_bytes() for path in MODELS.glob("*/1/request_parameters.py")}
    assert len(copies) == 1


def test_artefacts_are_never_committed(artefacts: Path) -> None:
    built = [
        path
        for path in (*artefacts.glob("*/1/*"), *artefacts.glob("*/facts/*"))
        if path.suffix not in (".py", ".pyc") and path.name != ".keep"
    ]
    built = [path for path in built if path.is_file()]
    assert built
    command = ["git", "check-ignore", "--stdin"]
    listed = "\n".join(map(str, built))
    done = subprocess.run(command, cwd=ROOT, input=listed, capture_output=True, text=True, timeout=20, check=False)
    assert sorted(done.stdout.splitlines()) == sorted(map(str, built))
