"""`make compiled`: the compiled copy behaves as the sources do, and only a copy of the same sources is found."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.bootstrap.compiled import FILTER, PACKAGE, compiled_folder, copied_files

from assets import compiling
from tests.support.stack import ROOT

SUITES = (
    "tests/oip",
    "tests/gateway",
    "tests/web",
    "tests/rpc/test_slow_callers.py",
    "tests/rpc/test_transport.py",
    "tests/rpc/test_without_a_stack.py",
)
# What these test is not compiled: the follower, an environment without the copy, and clients.
LEFT_OUT = (
    "tests/gateway/test_follower.py",
    "tests/web/test_footprint.py",
    "tests/web/test_generated_clients.py",
    "tests/web/test_kserve_client.py",
)


def compile_here() -> Path | None:
    """Compile as `make compiled` does; return the copy's folder, or None where this machine cannot compile."""
    done = subprocess.run(
        [sys.executable, "-m", "assets.compiling"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if compiling.can_compile():
        return compiled_folder()
    assert "plain Python" in done.stderr
    assert not compiled_folder().exists()
    return None


def test_the_gateways_tests_pass_on_its_compiled_copy(tmp_path: Path) -> None:
    copy = compile_here()
    if copy is None:
        return
    shutil.copytree(copy, tmp_path / "copy")
    left_out = {path.name for path in PACKAGE.iterdir()} - {path.name for path in (copy / PACKAGE.name).iterdir()}
    for name in left_out - {"__pycache__"}:
        (tmp_path / "copy" / PACKAGE.name / name).symlink_to(PACKAGE / name)
    page = Path("web", "console", "assets")
    (tmp_path / "copy" / PACKAGE.name / page).symlink_to(PACKAGE / page)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "copy")}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    script = "from tidegate.gateway import dispatcher; print(dispatcher.__file__)"
    shown = subprocess.run(
        [sys.executable, "-P", "-c", script], env=environment, capture_output=True, check=True
    ).stdout
    assert shown.endswith(b".so\n")
    options = ["-q", "-x", "-m", "not patches", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"--ignore={each}" for each in LEFT_OUT), *SUITES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_copy_of_other_sources_is_not_found(tmp_path: Path) -> None:
    package = tmp_path / "tidegate"
    for path in copied_files():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE / path, package / path)
    same = compiled_folder(package, tmp_path)
    assert same.name == compiled_folder().name
    page = package / "web" / "console" / "assets" / "page.js"
    page.parent.mkdir()
    page.write_text("// What a gateway never reads.\n")
    assert compiled_folder(package, tmp_path) == same
    module = package / "gateway" / "dispatcher.py"
    module.write_text(module.read_text() + "\n")
    assert compiled_folder(package, tmp_path) != same
    shutil.copyfile(PACKAGE / "gateway" / "dispatcher.py", module)
    assert compiled_folder(package, tmp_path) == same
    module.rename(module.with_name("other.py"))
    assert compiled_folder(package, tmp_path) != same


def test_without_a_compiler_it_says_what_that_means_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "compiled_folder", lambda: tmp_path / "copy")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "no-such-compiler")
    done = CliRunner().invoke(compiling.compile_package)
    assert done.exit_code == 0
    assert "plain Python" in done.output
    assert not (tmp_path / "copy").exists()


def test_every_compiled_module_is_one() -> None:
    assert [each for each in compiling.MODULES if not (PACKAGE / f"{each}.py").is_file()] == []


def test_no_bound_of_a_slice_does_something_in_a_compiled_module() -> None:
    """mypyc evaluates the bounds of a slice twice where it does not know the type of what is sliced: a log line was written twice."""
    harmless = {"len", "max", "min"}
    found = [
        f"{module}.py:{part.lineno}"
        for module in compiling.MODULES
        for part in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
        if isinstance(part, ast.Slice)
        for call in ast.walk(part)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") not in harmless
    ]
    assert not found


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"Py_ENABLE_SHARED": 0}, "no shared library"),
        ({"LIBDIR": "/nowhere", "LDVERSION": "0.0"}, "cannot be compiled"),
    ],
)
def test_a_filter_that_cannot_be_built_leaves_the_copy_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, Any],
    text: str,
) -> None:
    source = (tmp_path / FILTER).with_suffix(".c")
    source.parent.mkdir(parents=True)
    shutil.copyfile(PACKAGE / "envoy" / source.name, source)
    real = sysconfig.get_config_var
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: variables.get(name, real(name)))
    compiling.build_filter(tmp_path)
    assert text in capsys.readouterr().err
    assert [each.name for each in source.parent.iterdir()] == [source.name]
