"""Models are judged by the image that will serve them, not by the environment of whoever checks them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from tidegate.errors import ModelConfigError
from tidegate.language.program import World
from tidegate.models.images.describe import describe
from tidegate.models.images.image import Image, built_in, find_image, local_image, read_manifest
from tidegate.models.images.serving import shard_images
from tidegate.models.lint.checker import check_closure
from tidegate.models.lint.folder import Repository

from tests.models.lint.base import write_base
from tests.support.stack import ROOT

NVIDIA = "nvcr.io/nvidia/tritonserver:24.10-"
OWN = Image("own", frozenset({"python", "ctranslate2"}), frozenset({"torch"}), all_backends=True, all_modules=True)


def built(variant: str) -> Image:
    image = built_in(NVIDIA + variant)
    assert image is not None
    return image


def found(repository: Path, model: str, *images: Image) -> set[str]:
    return {finding.kind for finding in check_closure(Repository(repository, image=images), [model])}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_base(tmp_path / "models")


@pytest.mark.parametrize(
    ("module", "image", "kinds"),
    [
        ("torch", None, {"import-unverified"}),
        ("torch", built("py3"), {"import-unverified"}),
        ("torch", built("trtllm-python-py3"), set()),
        ("torch", OWN, set()),
        ("boto3", OWN, {"import-missing"}),
        ("pytest", local_image(), set()),
        ("torch_of_tomorrow", local_image(), {"import-missing"}),
        ("trasnformers", None, {"import-missing"}),
        ("trasnformers", built("py3"), {"import-missing"}),
        ("numpy", None, set()),
        ("numpy", built("vllm-python-py3"), set()),
    ],
)
def test_an_import_is_judged_by_the_image(models: Path, module: str, image: Image | None, kinds: set[str]) -> None:
    code = models / "picker/1/model.py"
    code.write_text(f"import {module} as _\n" + code.read_text())
    assert found(models, "picker", *(() if image is None else (image,))) == kinds


@pytest.mark.parametrize(
    ("backend", "image", "kinds"),
    [
        ("ctranslate2", None, {"backend-unverified"}),
        ("ctranslate2", built("py3"), {"backend-unverified"}),
        ("ctranslate2", OWN, set()),
        ("ctranslate2", local_image(), {"backend-unknown"}),
        ("pytorch", None, {"artefact-missing"}),
        ("vllm", built("py3"), {"backend-unknown", "artefact-missing"}),
        ("onnxruntime", built("vllm-python-py3"), {"backend-unknown", "artefact-missing"}),
        ("pyhton", OWN, {"backend-unknown"}),
        ("pyhton", None, {"backend-unknown"}),
    ],
)
def test_a_backend_is_judged_by_the_image(models: Path, backend: str, image: Image | None, kinds: set[str]) -> None:
    config = models / "picker/config.pbtxt"
    config.write_text(config.read_text().replace('backend: "python"', f'backend: "{backend}"'))
    assert found(models, "picker", *(() if image is None else (image,))) == kinds


def test_every_image_that_serves_a_model_must_have_what_it_needs(models: Path) -> None:
    code = models / "picker/1/model.py"
    code.write_text("import torch as _\n" + code.read_text())
    lacking = Image("lacking", frozenset({"python"}), all_backends=True, all_modules=True)
    (finding,) = check_closure(Repository(models, image=(OWN, lacking)), ["picker"])
    assert finding.kind == "import-missing"
    assert "image lacking" in finding.message


def file_system(root: Path) -> Path:
    """An image's file system, as far as it is looked at."""
    for backend, file in (
        ("python", "libtriton_python.so"),
        ("ctranslate2", "libtriton_ctranslate2.so"),
        ("vllm", "model.py"),
    ):
        (root / "opt/tritonserver/backends" / backend).mkdir(parents=True)
        (root / "opt/tritonserver/backends" / backend / file).write_text("x")
    (root / "opt/tritonserver/backends/empty").mkdir()
    packages = root / "usr/local/lib/python3.10/dist-packages"
    for folder in ("torch", "torch-2.4.0+cu124.dist-info", "google", "__pycache__", "not-a-name"):
        (packages / folder).mkdir(parents=True)
    (packages / "six.py").write_text("")
    (packages / "_cffi.cpython-310-x86_64-linux-gnu.so").write_text("")
    return root


def test_a_manifest_is_made_from_a_file_system_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_text(describe(file_system(tmp_path / "root"), "own:1"))
    assert 'torch": "2.4.0+cu124"' in path.read_text()
    assert find_image(str(path)) == Image(
        "own:1",
        frozenset({"python", "ctranslate2", "vllm"}),
        frozenset({"torch", "google", "six", "_cffi"}),
        all_backends=True,
        all_modules=True,
    )


def test_a_container_needs_nothing_but_its_own_python_to_describe_itself(tmp_path: Path) -> None:
    root = file_system(tmp_path / "root")
    # -S: without any installed package, as in an image that has none.
    command = [sys.executable, "-S", "-m", "tidegate.models.images.describe", "--root", str(root), "--name", "own:1"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "functions")}
    )
    assert (done.returncode, done.stdout) == (0, describe(root, "own:1")), done.stderr
    empty = subprocess.run(
        [*command[:5], str(tmp_path), "--name", "own:1"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "functions")},
    )  # fmt: skip
    assert empty.returncode == 1
    assert "there is no Triton" in empty.stderr


def test_a_manifest_has_what_its_base_has(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_text(f"image: own:1\nbase: {NVIDIA}py3\nbackends: [vllm]\nmodules: [boto3]\n")
    image = read_manifest(path)
    assert [image.has_backend(name) for name in ("onnxruntime", "vllm", "tensorrtllm", "dali")] == [
        True,
        True,
        False,
        None,
    ]
    assert [image.has_module(name) for name in ("boto3", "torch")] == [True, None]


def test_the_manifest_of_the_deployed_image_has_what_its_lock_installs() -> None:
    image = read_manifest(ROOT / "routing_rules/images/triton.yaml")
    lock = (ROOT / "requirements/triton.lock").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))}
    modules = packages_distributions()
    installed = {module for module, names in modules.items() if locked.intersection(name.lower() for name in names)}
    assert locked
    assert image.modules == installed
    dockerfile = (ROOT / "infra/triton/Dockerfile").read_text()
    assert built_in(NVIDIA + "py3") is not None
    assert "ARG SOURCE=nvcr.io/nvidia/tritonserver\nARG TAG=24.10-py3\n" in dockerfile


def test_a_manifest_of_another_image_than_its_shard_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/own.yaml").write_text("image: own:2\n")
    world = World({"a": 1}, {}, {}, {}, images={"a": ("own:1", "images/own.yaml")})
    with pytest.raises(ModelConfigError, match=r"'own:1'.*images/own\.yaml.*'own:2'"):
        shard_images(world, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image: own\nmodles: [a]\n", "image.yaml:2: unknown key 'modles'"),
        ("image: own\nbase: python:3.12\n", "image.yaml:2: nothing is known of the image 'python:3.12'"),
        ("image: own\ncomplete: [all]\n", "image.yaml:2: "),
        ("image: [\n", "image.yaml"),
        ("modules: [a]\n", "image"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "image.yaml"
    path.write_text(text)
    with pytest.raises(ModelConfigError) as failure:
        read_manifest(path)
    assert message in str(failure.value)
