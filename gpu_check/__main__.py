"""`python -m gpu_check`: pack what `check.py` needs on a machine without a network, and with `--dry-run` run it here on the CPU."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from tidegate.rules import compile_directory

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "functions" / "tidegate"
OUT = Path("build/gpu-check.tar.xz")
MOST_BYTES = 60 * 2**20
TARGET = "3.12"
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
ROOT = "gpu-check"

PURE = ("starlette", "anyio", "idna", "typing_extensions")
COMPILED = ("httptools",)
"""The distributions that the gateway imports beside the standard library."""

LEFT_OUT = re.compile(r"__pycache__|\.pyc$|web/console/assets/|/cli/project/|nvidia_pytriton\.libs/libpython")
"""What is neither imported nor loaded there."""


def pack(out: Path, pythons: Sequence[str], preset: Literal[0, 6] = 6) -> int:
    """Write the archive for some versions of Python, compressed by xz's `preset`. Return its size in bytes.

    Raises:
        SystemExit: a part is missing, or the archive is larger than `MOST_BYTES`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(out, "w:xz", preset=preset) as archive:
        for name, content in _files(pythons, Path(folder)):
            if LEFT_OUT.search(name):
                continue
            if isinstance(content, Path):
                archive.add(content, f"{ROOT}/{name}", recursive=False, filter=_plain)
            else:
                info = tarfile.TarInfo(f"{ROOT}/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    size = out.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{out} has {size / 2**20:.0f} MiB, more than {MOST_BYTES / 2**20:.0f}")
    return size


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def _files(pythons: Sequence[str], folder: Path) -> Iterator[tuple[str, Path | bytes]]:
    yield "check.py", HERE / "check.py"
    yield "rules.bundle", compile_directory(HERE / "rules")
    models = HERE / "models"
    for path in _below(models):
        yield f"models/{path.relative_to(models)}", path
    yield "models/mlp_cpu/1/model.py", models / "mlp_gpu" / "1" / "model.py"
    for path in _below(PACKAGE):
        yield f"site/tidegate/{path.relative_to(PACKAGE)}", path
    for name in PURE:
        yield from ((f"site/{relative}", path) for relative, path in _distribution(name))
    yield from _triton(pythons)
    for python in pythons:
        for name in COMPILED:
            found = _distribution(name) if python == OWN else _wheel(name, python, folder)
            yield from ((f"site-{python}/{relative}", path) for relative, path in found)


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _distribution(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the installed files of a distribution, with its metadata."""
    for file in importlib.metadata.distribution(name).files or ():
        path = Path(str(file.locate()))
        if ".." not in file.parts and path.is_file():
            yield str(file), path


def _wheel(name: str, python: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of the wheel of a distribution for another Python, which pip fetches, in the version that is installed."""
    version = importlib.metadata.version(name)
    platforms = [f"--platform={each}_x86_64" for each in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    target = folder / f"{name}-{python}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        [*command, f"--python-version={python}", *platforms, f"--dest={target}", f"{name}=={version}"], check=False
    )
    if done.returncode:
        raise SystemExit(f"pip could not fetch {name}=={version} for Python {python}")
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(target / "content")
    for path in _below(target / "content"):
        yield str(path.relative_to(target / "content")), path


def _triton(pythons: Sequence[str]) -> Iterator[tuple[str, Path]]:
    site = next((Path(entry) for entry in sys.path if (Path(entry) / "pytriton" / "tritonserver").is_dir()), None)
    if site is None:
        raise SystemExit("Triton's wheel is missing: make env")
    home, libraries = site / "pytriton" / "tritonserver", site / "nvidia_pytriton.libs"
    folders = [
        home / "bin",
        home / "backends",
        *(home / "python_backend_stubs" / python for python in pythons),
        libraries,
    ]
    for folder in folders:
        if not folder.is_dir():
            raise SystemExit(f"{folder} is missing: the wheel has no part for that Python")
        for path in _below(folder):
            yield f"site/{path.relative_to(site)}", path


def dry_run(archive: Path, python: str, seconds: float, say: Callable[[str], object] = print) -> int:
    """Unpack the archive, and run its script on the CPU. Return its exit code."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        command = [python, "-I", str(Path(folder) / ROOT / "check.py"), "--cpu", f"--seconds={seconds:g}"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
        say(done.stdout)
        return done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help=f"the archive (default: {OUT})")
    parser.add_argument(
        "--python", action="append", help=f"a Python that it is for, again for several (default: {TARGET} and {OWN})"
    )
    parser.add_argument("--dry-run", action="store_true", help="unpack it here, and run all but the GPU's part")
    parser.add_argument(
        "--dry-run-python",
        default=shutil.which("python3") or sys.executable,
        help="the interpreter for that; it needs NumPy",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement of a dry run takes")
    chosen = parser.parse_args(arguments)
    size = pack(chosen.out, chosen.python or sorted({TARGET, OWN}))
    print(f"{chosen.out}: {size / 2**20:.1f} MiB", file=sys.stderr)
    return dry_run(chosen.out, str(Path(chosen.dry_run_python).absolute()), chosen.seconds) if chosen.dry_run else 0


if __name__ == "__main__":
    sys.exit(main())
