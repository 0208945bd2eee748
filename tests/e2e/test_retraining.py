"""A retrained model is live in two commands, on a running stack with real servers and stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.publishing import TIMES, last_line, publish_arguments, published, run, write_ensemble
from tests.support.callers import Callers
from tests.support.model_folders import write_model
from tests.support.stack import RunningStack, eventually, running_stack, write_rules

SHARDS = {"a": 2}
ON = {"trained": ["a"], "piped": ["a"]}
MODEL = b"""from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.answer = np.array([int((folder / "weights.txt").read_text())], dtype=np.int32)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("VERSION", self.answer)]) for _ in requests]
"""
CONFIG = b"""name: "trained"
backend: "python"
max_batch_size: 0
input [ { name: "SLEEP_MS" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "VERSION" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
version_policy: { all {} }
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "trained", {"config.pbtxt": CONFIG, "1/model.py": MODEL, "1/weights.txt": b"10"})
    write_ensemble(folder, "piped", 1, step="trained")
    return folder


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rules(tmp_path_factory.mktemp("rules"), SHARDS, ON, main="trained", pinned="trained/1", whole="piped")


@pytest.fixture(scope="module")
def stack(models: Path, rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    # Of its own: the stack follows its rules, and would publish each edit by itself.
    shutil.copytree(rules, root / "rules")
    with running_stack(root / "rules", models, root / "errors", variables=TIMES) as running:
        yield running
        assert "Traceback" not in running.errors


def answers(stack: RunningStack) -> tuple[int, int, int]:
    return stack.version("main"), stack.version("pinned"), stack.version("whole")


def retrain(stack: RunningStack, models: Path, rules: Path, weights: bytes, *options: str) -> None:
    """Write new weights over the live ones, and two commands."""
    newest = max(path.name for path in (models / "trained").iterdir() if path.name.isdecimal())
    (models / "trained" / newest / "weights.txt").write_bytes(weights)
    refused = run(*publish_arguments(stack, rules, models))
    assert refused.returncode == 1
    assert "tidegate models version trained" in last_line(refused.stdout)["error"]
    places = ("--models", str(models), "--rules", str(rules), "--stack", stack.url)
    made = run("models", "version", "trained", "--yes", *places, *options)
    assert made.returncode == 0, made.stdout + made.stderr
    published(stack, rules, models)


def test_a_retrained_model_is_live_in_two_commands_and_no_caller_notices(
    stack: RunningStack, models: Path, rules: Path
) -> None:
    assert answers(stack) == (10, 10, 10)
    with Callers(stack, "main") as callers, Callers(stack, "whole", per_s=10) as others:
        assert eventually(lambda: len(callers.answers) > 10)
        retrain(stack, models, rules, b"20")
        assert eventually(lambda: answers(stack) == (20, 20, 20)), "whoever named the old version names the new one"
        retrain(stack, models, rules, b"30", "--keep-pins")
        assert eventually(lambda: answers(stack) == (30, 20, 20)), "those who are pinned keep what they had"
    assert (callers.failures, others.failures) == ([], [])
    assert (models / "trained/1/weights.txt").read_bytes() == b"10"
