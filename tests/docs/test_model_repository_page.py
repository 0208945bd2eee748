"""The models and commands of docs/model-repository.md are what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks
from tests.support.parts import need

PAGE = blocks("docs/model-repository.md")
SAMPLE = "my_models/short_text/samples/words.json"
ACCEPTED = "my_models/accepted.yaml"
BLEND = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "TEXT")
        asked = pb_utils.InferenceRequest(model_name="text_length", requested_output_names=["LENGTH"], inputs=[text])
        return asked.exec()
"""
MEASURED = re.compile(r"\b[0-9.]+ (s|ms|bytes|requests)\b")


def written(block: Block) -> tuple[str, str] | None:
    """The file that a block shows, and its text."""
    first, _, rest = block.text.partition("\n")
    if block.language == "json":
        return SAMPLE, block.text
    return (first.removeprefix("# "), rest) if first.startswith("# my_models/") else None


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block with what each prints."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page's models."""
    need("onnx", "pytriton")
    root = tmp_path_factory.mktemp("page")
    files = dict(found for block in PAGE if (found := written(block)) is not None)
    assert len(files) == 5
    # It accepts a warning of a further model, which `test_the_pages_warning_is_accepted` adds.
    accepted = files.pop(ACCEPTED)
    (root / "accepted.yaml").write_text(accepted)
    for name, text in {**files, "my_models/short_text/1/.keep": "An ensemble has no files of its own.\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TIDEGATE_CACHE_DIR": str(ROOT / ".cache" / "tidegate")}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_command_prints_what_the_page_shows(place: Path) -> None:
    shown = [each for block in PAGE if block.language == "console" for each in commands(block)]
    assert {command.split()[2] for command, _ in shown if command.startswith("tidegate ")} == {
        "check", "smoke", "graph",
    }  # fmt: skip
    for command, expected in shown:
        done = run(command, place)
        lines, wanted = (sorted(MEASURED.sub(r"N \1", text).splitlines()) for text in (done.stdout, expected))
        assert lines == wanted, command
        assert done.returncode == (1 if "error[" in expected else 0), command


def test_the_pages_warning_is_accepted(place: Path, tmp_path: Path) -> None:
    models = shutil.copytree(place / "my_models", tmp_path / "my_models")
    blend = models / "blend"
    shutil.copytree(models / "text_length", blend)
    (blend / "config.pbtxt").write_text((blend / "config.pbtxt").read_text().replace('"text_length"', '"blend"'))
    (blend / "1/model.py").write_text(BLEND)
    assert "warning[code-model]" in run("tidegate models check my_models blend", tmp_path).stdout
    shutil.copy(place / "accepted.yaml", models)
    done = run("tidegate models check my_models blend", tmp_path)
    assert (done.returncode, "1 warning accepted" in done.stdout) == (0, True), done.stdout


def test_the_pages_python_runs_and_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    need("onnx", "example models")
    (block,) = (each for each in PAGE if each.language == "python" and written(each) is None)
    program = block.text.replace('"triton_models"', repr(str(ROOT / "triton_models")))
    exec(compile(program, str(block), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == ""
