"""One asset: the locked packages for one architecture, the project's own code, compiled, and the archive of both.

Reproducible: packages are pinned and hash-checked, compiled files carry the digest of their source instead of a time, and
the archive is sorted and undated, so equal sources give equal bytes on any machine with the same Python.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "functions"
TASK_ROOT = "/var/task"
"""The folder into which Lambda unpacks an asset; compiled files name it as their source."""

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
UNDATED = (1980, 1, 1, 0, 0, 0)
PLATFORMS = {
    "arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
}
"""Of each architecture the platforms whose wheels Lambda's runtimes of Python 3.12 and later load: they have glibc 2.34."""

LEFT_OUT = ("cli", "testing", "triton/backends")
"""Folders of the project that no function needs."""

UNSTABLE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of a package's metadata that differ from one installation to the next."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A deployment asset of functions: a folder of packages, with a limit of its unpacked size, without some folders of the project."""

    name: str
    lock: str
    most_bytes: int
    left_out: tuple[str, ...] = LEFT_OUT


ASSETS = (
    Asset("gateway", "requirements/gateway.lock", 25_000_000, (*LEFT_OUT, "web/console/assets")),
    Asset("control", "requirements/control.lock", 175_000_000),
)


@dataclass(frozen=True, slots=True)
class Built:
    """A built asset: its folder, its archive, their sizes in bytes, and the archive's SHA-256."""

    asset: Asset
    architecture: str
    folder: Path
    archive: Path
    unpacked_bytes: int
    archive_bytes: int
    sha256: str

    @property
    def is_within_bound(self) -> bool:
        """Whether the unpacked size is within the limit."""
        return self.unpacked_bytes <= self.asset.most_bytes


def find_python(version: str) -> Path | None:
    """The interpreter of a Python version (such as `3.13`) on this machine: this one, or one on the PATH."""
    if version == THIS_PYTHON:
        return Path(sys.executable)
    found = shutil.which(f"python{version}")
    return Path(found) if found else None


def build(asset: Asset, architecture: str, out: Path, python_version: str, interpreter: Path) -> Built:
    """Build an asset for an architecture (`arm64` or `x86_64`) and a Python version below `out`.

    `interpreter` runs that version: bytecode can be compiled by no other.

    Raises:
        subprocess.CalledProcessError: a package could not be had; pip has said why on standard error.
    """
    folder = out / f"{asset.name}-{architecture}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _install(ROOT / asset.lock, PLATFORMS[architecture], python_version, folder)
    _copy_project(folder, asset.left_out)
    _strip(folder)
    _compile(folder, interpreter)
    archive = folder.with_suffix(".zip")
    _pack(folder, archive)
    unpacked = sum(path.stat().st_size for path in _files(folder))
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Built(asset, architecture, folder, archive, unpacked, len(content), digest)


def _install(lock: Path, platforms: Sequence[str], python_version: str, folder: Path) -> None:
    # The lock file has the dependencies, without those that Lambda's runtime brings.
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder),
        *(f"--platform={each}" for each in platforms), "--implementation", "cp", "--python-version", python_version,
        "--only-binary=:all:", "--no-deps", "--no-compile", "--require-hashes", "--requirement", str(lock),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _copy_project(folder: Path, folders: Sequence[str]) -> None:
    left_out = {SOURCES / "tidegate" / each for each in folders}

    def ignored(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(directory) / name in left_out]

    shutil.copytree(SOURCES / "tidegate", folder / "tidegate", ignore=ignored)


def _strip(folder: Path) -> None:
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for path in list(folder.rglob("*")):
        if path.is_dir() and path.name in ("__pycache__", "tests"):
            shutil.rmtree(path)
        elif path.is_file() and path.parent.name.endswith(".dist-info") and path.name in UNSTABLE:
            path.unlink()


def _compile(folder: Path, interpreter: Path) -> None:
    # Lambda's folder cannot be written, so a cold start would compile every module in vain.
    command = [
        str(interpreter), "-m", "compileall", "-q", "-s", str(folder), "-p", TASK_ROOT,
        "--invalidation-mode", "unchecked-hash", str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in _files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), UNDATED)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.suffix == ".so" else 0o644) << 16
            packed.writestr(entry, path.read_bytes())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
