"""Writes the manifest of an image from its file system. The standard library of Python 3.8 is enough to run it.

Inside a container, which needs nothing but its own `python3`::

    docker run --rm -v "$PWD/functions:/tidegate:ro" -e PYTHONPATH=/tidegate IMAGE \\
        python3 -m tidegate.models.images.describe --name IMAGE > images/triton.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Iterable, Iterator  # noqa: UP035  # runs on older Pythons too

BACKENDS = Path("opt/tritonserver/backends")
_PACKAGES = ("site-packages", "dist-packages")
_INFO = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[^-]+)\.(?:dist|egg)-info")
_PYTHON = re.compile(r"python3\.\d+")
_ROOTS = ("usr/lib", "usr/local/lib", "opt/venv/lib", "root/.local/lib")


def describe(root: Path, name: str) -> str:
    """Return the manifest of the file system below `root`, as YAML.

    Its modules count as complete only if no packages lie outside the folders of the system's Python, as the files do not show
    whether Triton's Python uses those. Inside the image, the Python that runs this knows.

    Raises:
        OSError: there is no Triton, or a folder cannot be read.
    """
    backends = backends_in(root / BACKENDS)
    folders = package_folders(root)
    others = [] if root == Path("/") else other_package_folders(root, folders)
    complete = ["backends"] if others else ["backends", "modules"]
    versions = sorted(pythons_of(folders), key=lambda version: [int(part) for part in version.split(".")])
    lines = [f"# not in modules, since Triton may not use it: /{folder.relative_to(root)}" for folder in others]
    lines += [f"image: {json.dumps(name)}"]
    lines += [f"python: {json.dumps(version)}" for version in versions[-1:]]
    lines += _items("backends", sorted(backends)) + _items("modules", sorted(modules_in(folders)))
    lines += ["distributions:"] if distributions_in(folders) else []
    lines += [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(distributions_in(folders).items())]
    return "\n".join([*lines, f"complete: [{', '.join(complete)}]", ""])


def backends_in(folder: Path) -> set[str]:
    """Return the backends of a backend directory: folders with a library or, of a Python-based one, a `model.py`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no Triton: no directory {folder}")
    return {
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and (any(entry.glob("libtriton_*.so")) or (entry / "model.py").is_file())
    }


def package_folders(root: Path) -> list[Path]:
    """Return the folders of Python packages below a root: those of its system's Python, of the one that runs this if it is
    inside, and those that their `.pth` files add."""
    found = [
        folder
        for base in _ROOTS
        if (root / base).is_dir()
        for python in sorted((root / base).iterdir())
        if python.name == "python3" or _PYTHON.fullmatch(python.name)
        for folder in (python / name for name in _PACKAGES)
        if folder.is_dir()
    ]
    own = [Path(entry) for entry in sys.path if Path(entry).name in _PACKAGES] if root == Path("/") else []
    found = list(dict.fromkeys([*found, *own]))
    return list(dict.fromkeys([*found, *(added for folder in found for added in _added_folders(root, folder))]))


def _added_folders(root: Path, folder: Path) -> Iterator[Path]:
    for file in sorted(folder.glob("*.pth")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                inside = os.path.normpath(Path("/") / folder.relative_to(root) / line.strip())
                if (root / inside.lstrip("/")).is_dir():
                    yield root / inside.lstrip("/")


def other_package_folders(root: Path, known: Iterable[Path]) -> list[Path]:
    """Return further folders of Python packages below a root; links are not followed."""
    found = []
    for place, folders, _ in os.walk(root, onerror=_raise):
        if Path(place) == root:
            folders[:] = [name for name in folders if name not in ("dev", "proc", "sys")]
        here = [Path(place) / name for name in folders if name in _PACKAGES]
        found += [folder for folder in here if folder not in known and modules_in([folder])]
        folders[:] = sorted(name for name in folders if name not in _PACKAGES)
    return found


def _raise(error: OSError) -> None:
    raise error


def pythons_of(folders: Iterable[Path]) -> set[str]:
    """Return the versions of Python of folders of packages, such as `3.10`."""
    names = (folder.parent.name for folder in folders)
    return {name[len("python") :] for name in names if _PYTHON.fullmatch(name)}


def modules_in(folders: Iterable[Path]) -> set[str]:
    """Return the modules and packages that can be imported from folders, by their first names."""
    names: set[str] = set()
    for folder in folders:
        for entry in folder.iterdir() if folder.is_dir() else []:
            names.update(_editable_modules(entry) if _INFO.fullmatch(entry.name) else filter(None, [_module(entry)]))
    return names


def _editable_modules(info: Path) -> set[str]:
    """Return the modules of a distribution in editable mode, which has only its metadata there; empty for any other."""
    origin, modules = info / "direct_url.json", info / "top_level.txt"
    if not origin.is_file() or not re.search(r'"editable"\s*:\s*true', origin.read_text(encoding="utf-8")):
        return set()
    if not modules.is_file():
        return {info.name.partition("-")[0]}
    return {line.partition("/")[0] for line in modules.read_text(encoding="utf-8").split()}


def _module(entry: Path) -> str:
    name = entry.name.partition(".")[0]
    if not name.isidentifier() or name == "__pycache__":
        return ""
    if entry.is_dir():
        return name if entry.name == name else ""
    return name if entry.suffix in (".py", ".so", ".pyd") else ""


def distributions_in(folders: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            match = _INFO.fullmatch(entry.name)
            if match:
                found.setdefault(match["name"], match["version"])
    return found


def _items(key: str, values: list[str]) -> list[str]:
    return [f"{key}:", *(f"  - {json.dumps(value)}" for value in values)] if values else [f"{key}: []"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the manifest of an image from its file system.")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the image's file system is; / inside it")
    parser.add_argument("--name", default="unnamed", help="the image's full name, with its tag")
    given = parser.parse_args(arguments)
    try:
        sys.stdout.write(describe(given.root, given.name))
    except OSError as error:
        sys.stderr.write(f"error: {given.root} cannot be described: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
