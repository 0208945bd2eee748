"""Models' files that are nearly right: `tidegate models check` and the control plane's reader say where they are wrong."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from tidegate.errors import ModelConfigError
from tidegate.models.config import check_python, parse_config
from tidegate.models.golden.samples import read_samples
from tidegate.models.lint.folder import Repository

from .documents import CONFIG, ENSEMBLE, SAMPLE
from .mutations import flow, mutated, smashed
from .running import CORPUS, FUZZED, command, no_hang, sections, write_files

MODEL = b"""\
import numpy as np


class TritonPythonModel:
    def execute(self, requests):
        return [None for request in requests]
"""
SOUND = {
    "scorer/config.pbtxt": CONFIG.encode(),
    "scorer/samples/one.json": json.dumps(SAMPLE).encode(),
    "scorer/1/model.py": MODEL,
    "step/config.pbtxt": CONFIG.replace("scorer", "step").encode(),
    "step/1/model.py": MODEL,
}
TOKENS = ("{", "}", "[", "]", ":", ",", '"', "name", "input", "dims", "-1", "0", "99999999999999999999", "1e400", "nan",
          "TYPE_BF16", "KIND_GPU", "true", "1" * 5000, "\\x00", '"\\377"', "# ", "<", ">", "[type.googleapis.com/x] {}",
          "ensemble_scheduling", "step", "key", "value", "parameters", "2147483648", "-9223372036854775809", "{" * 3000,
          "ensemble_scheduling {" * 200, "'a' \"b\"", "0x7fffffff", "inf", "\u202e", "max_batch_size: -1")  # fmt: skip


def check_repository(files: dict[str, bytes], folder: Path) -> None:
    """Let every reader of a model's files read a repository."""
    root = write_files(folder / "models", files)
    command("models", "check", root)
    with no_hang(), contextlib.suppress(ModelConfigError):
        parse_config(files["scorer/config.pbtxt"], "scorer", "scorer/config.pbtxt")
    with no_hang():
        scorer = Repository(root).model("scorer")
        assert scorer is not None
        read_samples(scorer, streams=False)
    with no_hang(), contextlib.suppress(ModelConfigError):
        check_python(files["scorer/1/model.py"], "scorer/1/model.py")


@pytest.mark.parametrize("entry", sorted((CORPUS / "models").iterdir()), ids=lambda entry: entry.name)
def test_the_corpus_is_read_or_refused(entry: Path, tmp_path: Path) -> None:
    check_repository(SOUND | sections(entry.read_bytes()), tmp_path)


@FUZZED
@given(st.integers(0, 2**64), st.sampled_from([CONFIG, ENSEMBLE]), st.integers(1, 4), st.sampled_from([0, 0, 1, 3]))
def test_a_changed_config_is_read_or_refused(seed: int, config: str, changes: int, smashes: int) -> None:
    random = Random(seed)
    words = config.split(" ")
    for _ in range(changes):
        at = random.randrange(len(words))
        words[at : at + random.choice([0, 1, 1, 3])] = random.choice(
            [[random.choice(TOKENS)], words[at : at + 9] * 2, []]
        )
    data = smashed(" ".join(words).encode(), random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with tempfile.TemporaryDirectory() as folder:
        check_repository(SOUND | {"scorer/config.pbtxt": data}, Path(folder))


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 4), st.sampled_from([0, 0, 1, 3]))
def test_a_changed_sample_is_read_or_refused(seed: int, changes: int, smashes: int) -> None:
    random = Random(seed)
    data = smashed(flow(mutated(SAMPLE, random, changes)).encode("utf-8", "surrogatepass"), random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with tempfile.TemporaryDirectory() as folder:
        check_repository(SOUND | {"scorer/samples/one.json": data}, Path(folder))


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 6))
def test_changed_code_is_read_or_refused(seed: int, smashes: int) -> None:
    random = Random(seed)
    data = smashed(MODEL, random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with tempfile.TemporaryDirectory() as folder:
        check_repository(SOUND | {"scorer/1/model.py": data}, Path(folder))
