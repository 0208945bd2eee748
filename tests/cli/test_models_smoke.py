"""`tidegate models smoke` on the real Triton, over models that misbehave in every way that Triton lets pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.parts import need
from tests.support.stack import ROOT, Server
from tests.triton.misbehaving import write_misbehaving, write_model

TIMEOUT_S = 8
"""Long enough for a sound model on a busy machine."""
MODELS = (
    "sound", "wrong_type", "wrong_shape", "dropped_rows", "not_a_number", "mean_of_batch", "random_answers",
    "missing_output", "more_outputs", "raises", "crashes", "one_sample", "off_by_one", "unasked", "choosy",
    "choosy_about_variations", "alone", "pads", "in_sequences", "chain", "text_ids", "streams",
    "another_name", "sequence_chain", "widening_chain", "grouped_chain", "hangs_at_load", "hangs_in_execute", "sound_step",
)  # fmt: skip


@dataclass(slots=True)
class Run:
    """One run of the command: its outcome, and the servers that it started."""

    code: int
    output: str
    errors: str
    servers: dict[int, Server] = field(default_factory=dict)

    @property
    def document(self) -> Any:
        return json.loads(self.output)

    def kinds(self, model: str) -> set[str]:
        return {finding["kind"] for finding in self.document["findings"] if finding["model"] == model}

    def finding(self, kind: str, model: str) -> Any:
        found = [each for each in self.document["findings"] if (each["kind"], each["model"]) == (kind, model)]
        assert found, self.document["findings"]
        return found[0]

    def model(self, name: str) -> Any:
        return next(model for model in self.document["models"] if model["name"] == name)


def smoke(repository: Path, *arguments: str) -> Run:
    """Run the command as a user does, and look at the servers that it starts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment["TIDEGATE_CACHE_DIR"] = str(ROOT / ".cache" / "tidegate")
    environment["TIDEGATE_SERVER_START_TIMEOUT_S"] = "180"
    need("pytriton")
    command = [sys.executable, "-m", "tidegate.cli", "models", "smoke", str(repository), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    servers: dict[int, Server] = {}
    watcher = threading.Thread(target=_watch, args=(process, repository, servers))
    watcher.start()
    output, errors = process.communicate(timeout=180)
    watcher.join()
    return Run(process.returncode, output, errors, servers)


def _watch(process: subprocess.Popen[str], repository: Path, servers: dict[int, Server]) -> None:
    while process.poll() is None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) not in servers:
                try:
                    words = (entry / "cmdline").read_text(errors="replace").split("\0")
                except OSError:
                    continue
                if f"--model-repository={repository.resolve()}" in words and words[0].endswith("tritonserver"):
                    prefix = next(word for word in words if "shm-region-prefix-name=" in word).partition("name=")[2]
                    servers[int(entry.name)] = Server(int(entry.name), prefix)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All models tried in one run, so that they share Triton servers as far as these live."""
    repository = write_misbehaving(tmp_path_factory.mktemp("misbehaving") / "models")
    yield smoke(repository, *MODELS, "--timeout-s", str(TIMEOUT_S), "--json")


@pytest.mark.parametrize(
    "model",
    [
        "sound",
        "more_outputs",
        "random_answers",
        "choosy_about_variations",
        "alone",
        "pads",
        "in_sequences",
        "another_name",
        "sequence_chain",
    ],
)
def test_a_model_that_behaves_has_no_finding(run: Run, model: str) -> None:
    """An output that is not declared (`more_outputs`) never leaves Triton; `models check` tells of it."""
    assert run.kinds(model) == set()
    seen = run.model(model)
    assert seen["samples"] >= 1
    assert 0 < seen["p50_ms"] < TIMEOUT_S * 1000
    assert seen["load_ms"] > 0


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("wrong_type", "output-data-type", "output 'Y' is FP64, declared is TYPE_FP32"),
        ("wrong_shape", "output-shape", "output 'Y' has the shape [1, 4], declared is [1, 2]"),
        ("dropped_rows", "output-rows", "output 'Y' has 1 rows for 3 of the input"),
        ("not_a_number", "output-not-finite", "output 'Y' has 1 values that are NaN or infinite, of 2"),
        ("mean_of_batch", "batch-differs", "output 'Y' of a row differs when other rows are in its batch"),
        ("one_sample", "batch-differs", "output 'Y' of a row differs when other rows are in its batch"),
        ("missing_output", "output-missing", "output 'Y' did not come"),
        ("raises", "answer-failed", "no luck today"),
        ("crashes", "model-crashed", "is not healthy"),
        ("off_by_one", "output-unexpected", "differs from what is expected in 1 of 2 values, first at [0, 0]: 0.5, not 1.5"),
        ("hangs_at_load", "load-hung", f"did not finish loading within {TIMEOUT_S} s"),
        ("hangs_in_execute", "answer-hung", f"no answer within {TIMEOUT_S} s"),
    ],
)  # fmt: skip
def test_what_triton_lets_pass_is_found(run: Run, model: str, kind: str, message: str) -> None:
    assert message in run.finding(kind, model)["message"]
    assert run.kinds(model) == {kind}


def test_a_finding_names_the_sample_that_shows_it(run: Run) -> None:
    assert run.finding("output-not-finite", "not_a_number")["file"] == "not_a_number/samples/b.json"


def test_a_mistake_of_a_step_is_found_in_the_step(run: Run) -> None:
    finding = next(each for each in run.document["findings"] if each["file"] == "dropped_rows/config.pbtxt")
    assert finding["kind"] == "output-rows"
    assert finding["hint"].startswith("asked as a step by chain/samples/")
    assert run.kinds("chain") == {"output-rows"}
    assert run.kinds("sound_step") == {"samples-missing"}


def test_without_samples_inputs_are_made_from_the_config(run: Run) -> None:
    assert run.kinds("unasked") == {"samples-missing"}
    assert run.model("unasked")["samples"] == 0
    assert run.model("unasked")["requests"] > 2
    assert run.kinds("choosy") == {"samples-missing", "made-up-refused"}
    assert "X must be above 5" in run.finding("made-up-refused", "choosy")["message"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("text_ids", "for inference input 'ID'"),
        ("widening_chain", "unexpected shape for input 'X' for model 'sound_step'"),
    ],
)
def test_a_made_up_request_is_an_error_where_no_other_would_be_answered(run: Run, model: str, reason: str) -> None:
    assert reason in run.finding("answer-failed", model)["message"]
    assert run.kinds(model) == {"samples-missing", "answer-failed"}


def test_a_model_with_decoupled_responses_is_asked_for_a_stream(run: Run) -> None:
    """This one's code returns its responses, as only a model with one response for a request may."""
    assert run.kinds("streams") == {"decoupled", "answer-failed"}


def test_a_load_that_triton_refuses_says_why_and_where(run: Run) -> None:
    """Triton's answer is "failed to poll from model repository"; its log and the check of the files say more."""
    refused = run.finding("load-refused", "grouped_chain")["message"]
    assert "instance group should not be specified for ensemble 'grouped_chain'" in refused
    assert "failed to poll" not in refused
    found = run.finding("ensemble-forbidden", "grouped_chain")
    assert found["file"] == "grouped_chain/config.pbtxt"
    assert found["line"] > 1


def test_a_hang_costs_its_server_alone_and_nothing_is_left(run: Run) -> None:
    assert run.code == 1
    assert run.model("hangs_at_load")["load_ms"] is None
    assert run.model("sound_step")["load_ms"] is not None, "tried after both hangs"
    assert len(run.servers) >= 3, "one is replaced after each hang"
    assert [entry for server in run.servers.values() for entry in server.leftovers()] == []


def test_a_run_without_findings_says_what_it_did(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "sound")
    # Without a name: all of the directory, which is this one.
    run = smoke(tmp_path / "models")
    assert (run.code, run.errors) == (0, "")
    assert run.output.startswith("sound: loaded in ")
    assert "2 samples, " in run.output
    assert " ms\n" in run.output
    assert not list((tmp_path / "models").rglob("__pycache__"))


def test_a_model_that_would_hang_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "headless")
    (tmp_path / "models/headless/1/model.py").rename(tmp_path / "models/headless/1/other.py")
    run = smoke(tmp_path / "models", "headless", "--json")
    assert "model.py is missing" in run.finding("load-refused", "headless")["message"]
    assert run.servers == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody",), "unknown model 'nobody': "),
        (("sound", "--rules", "."), "name models, or the rules that serve them, not both"),
        (("sound", "--timeout-s", "0"), "0.0 is not in the range"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_model(tmp_path / "models", "sound")
    run = smoke(tmp_path / "models", *arguments)
    assert run.code == 2
    assert message in run.errors
