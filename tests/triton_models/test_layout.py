"""The model repository as it is committed: what Triton, the control plane and the licences need of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.examples import ENSEMBLES, MODELS
from tests.support.parts import ROOT
from training.artefacts import STAMP


def config(model: str) -> ModelConfig:
    return text_format.Parse((MODELS / model / "config.pbtxt").read_text("utf-8"), ModelConfig())


def steps() -> list[str]:
    """The steps of the project's ensembles; what else is in the repository is a user's, and none of these tests' concern."""
    return sorted({step.model_name for model in ENSEMBLES for step in config(model).ensemble_scheduling.step})


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


def test_copies_of_the_parameter_reader_are_identical() -> None:
    copies = [path for model in steps() if (path := MODELS / model / "1" / "request_parameters.py").is_file()]
    assert len(copies) > 1
    assert len({path.read_bytes() for path in copies}) == 1


def test_artefacts_are_never_committed(artefacts: Path) -> None:
    stamp = json.loads((artefacts / STAMP).read_text("utf-8"))
    built = [artefacts / path for path in stamp["artefacts"]]
    assert all(path.is_file() for path in built)
    command = ["git", "check-ignore", "--stdin"]
    listed = "\n".join(map(str, built))
    done = subprocess.run(command, cwd=ROOT, input=listed, capture_output=True, text=True, timeout=300, check=False)
    assert sorted(done.stdout.splitlines()) == sorted(map(str, built))
