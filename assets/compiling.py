"""`make compiled`: compile the modules that a request passes with mypyc, into a copy of the package.

The gateway of a local stack runs that copy; see `tidegate.bootstrap.compiled` and docs/performance.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import click
from tidegate.bootstrap.compiled import FILTER, PACKAGE, compiled_folder, copied_files

MODULES = (
    "bootstrap/copy_reader", "bootstrap/log_file", "bootstrap/shadow_link", "byte_budget", "envoy/plans", "header_lines", "strict_json",
    "gateway/bindings", "gateway/call", "gateway/candidates", "gateway/choice", "gateway/concurrency", "gateway/config",
    "gateway/cut_off",
    "gateway/dispatcher", "gateway/failures", "gateway/fair_queue", "gateway/faults", "gateway/grants", "gateway/hedging",
    "gateway/latencies", "gateway/load", "gateway/metadata", "gateway/model_checks", "gateway/outliers", "gateway/places",
    "gateway/private_ids",
    "gateway/quarantine", "gateway/quotas", "gateway/record", "gateway/retry_budget", "gateway/sender", "gateway/sequences",
    "gateway/request", "gateway/service", "gateway/shadow_lanes", "gateway/shadowing", "gateway/spans",
    "gateway/streams", "gateway/traffic", "gateway/verdict", "gateway/watch",
    "listener/answer", "listener/body", "listener/chunked", "listener/connection", "listener/exchange", "listener/head",
    "listener/owner", "listener/sending",
    "oip/error_texts", "oip/events", "oip/infer_message", "oip/json_walk", "oip/protobuf", "oip/request_json", "oip/sequence_id",
    "oip/shapes", "ports/requests", "ports/traffic",
    "rpc/exchange", "rpc/infer",
    "rules/conditions", "rules/decision", "rules/engine", "rules/index", "rules/masks", "rules/resolved", "rules/sticky",
    "rules/values",
    "shadows/copy", "shadows/counts", "shadows/exchange", "shadows/sampled",
    "triton/answer_body", "triton/connection", "triton/known_head", "triton/pool", "triton/request_bytes",
    "triton/rpc_transport", "triton/transport",
    "web/access_log", "web/authorize", "web/bodies", "web/context", "web/decided", "web/entry", "web/head", "web/http",
    "web/in_process", "web/milliseconds", "web/model_answers", "web/routes",
    "web/streams",
    "web/v2", "web/v2_generate", "web/v2_infer",
)  # fmt: skip
"""The compiled modules, without `.py`: those that run for every inference."""

KEPT = 3
"""The number of copies that are kept, the newest ones: branches of a repository share an environment."""

# `make lint` checks all types; where Envoy's image is built, packages that the compiled modules do not import are missing.
# Above -O1 the compiler takes twice as long for no measurable gain: the generated code calls into the interpreter.
SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

flags = ["--strict", "--ignore-missing-imports", "--allow-subclassing-any", "--no-warn-return-any", "--cache-dir=/dev/null"]
setup(
    name="tidegate",
    packages=[],
    ext_modules=mypycify([*flags, *sys.argv[1:]], opt_level="1", debug_level="0"),
    script_args=["build_ext", "--inplace", "--parallel=2"],
)
"""


@click.command()
def compile_package() -> None:
    """Compile the gateway's modules, unless that is done already or this machine has no C compiler or Python headers."""
    root = compiled_folder()
    if root.is_dir():
        return
    if not can_compile():
        click.echo(
            "No C compiler with Python's headers was found: the gateway will run as plain Python, which takes more CPU time "
            "under load. On Debian: apt-get install gcc python3-dev, then make compiled",
            err=True,
        )
        return
    click.echo("Compiling the gateway's modules: one to three minutes", err=True)
    compile_into(root)


def can_compile() -> bool:
    """Return whether a C file that includes Python.h compiles here."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    include = f"-I{sysconfig.get_paths()['include']}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <Python.h>\n")
        try:
            done = subprocess.run(
                [*compiler, include, "-c", str(source), "-o", str(source.with_suffix(".o"))],
                capture_output=True,
                check=False,
            )
        except OSError:
            return False
        return done.returncode == 0


def compile_into(root: Path) -> None:
    """Build the copy, and move it to `root` once it is complete.

    Raises:
        click.ClickException: mypyc or the C compiler failed.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".building-") as folder:
        for path in copied_files():
            copy = Path(folder) / PACKAGE.name / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PACKAGE / path, copy)
        modules = [f"{PACKAGE.name}/{module}.py" for module in MODULES]
        done = subprocess.run(
            [sys.executable, "-P", "-c", SETUP, *modules],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shown = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise click.ClickException(f"the gateway's modules cannot be compiled:\n{shown}")
        shutil.rmtree(Path(folder) / "build")
        build_filter(Path(folder))
        if not root.exists():
            Path(folder).rename(root)
    copies = sorted(
        (each for each in root.parent.iterdir() if each.name[0] != "."), key=lambda each: each.stat().st_mtime
    )
    for old in copies[:-KEPT]:
        shutil.rmtree(old)


def build_filter(root: Path) -> None:
    """Build Envoy's filter in a copy, or say why it cannot be built: all else works without."""
    variable, without = sysconfig.get_config_var, "Envoy will ask its resolvers about every request: "
    if not variable("Py_ENABLE_SHARED"):
        click.echo(f"{without}this Python has no shared library", err=True)
        return
    compiler, folder = (variable("CC") or "cc").split(), variable("LIBDIR")
    target, library = root / FILTER, f"-lpython{variable('LDVERSION')}"
    include = f"-I{sysconfig.get_paths()['include']}"
    options = ["-O2", "-fPIC", "-shared", "-Wall", "-Wextra", include, f"-L{folder}", library, f"-Wl,-rpath,{folder}"]
    done = subprocess.run(
        [*compiler, str(target.with_suffix(".c")), "-o", str(target), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        target.unlink(missing_ok=True)
        click.echo(f"{without}its filter cannot be compiled\n{done.stderr}", err=True)


if __name__ == "__main__":
    compile_package()
