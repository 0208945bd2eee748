"""Finds Triton on this machine, and builds the directories that it needs.

`tritonserver` comes from the `nvidia-pytriton` wheel. It needs a backend directory of real files (links out of it are
refused), and its Python stubs a `python3` on the path. Both are built once into a cache, in a folder named by the digest of
its content, so that stacks that start at the same time share it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import site
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import StackError
from tidegate.triton.numpy_abi import WHEEL, for_numpy_2

BACKENDS = Path(__file__).parent / "backends"
"""Tidegate's own Python-based backends: one folder with a `model.py` each."""

LAYOUT = b"5"
"""Part of the cache's key: increase it when this module writes the same sources differently."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

SHARED = "shared"
"""The folder of Python's shared library, beside `bin`."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A Triton that is ready to start.

    `libraries` is the folder of the shared libraries that it was built with (None: the system's), `python_bin` the folder of the
    `python3` that models run on.
    """

    server: Path
    backend_directory: Path
    libraries: Path | None
    python_bin: Path

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the paths that Triton needs."""
        environment = dict(os.environ)
        environment["PATH"] = os.pathsep.join(filter(None, [str(self.python_bin), environment.get("PATH", os.defpath)]))
        libraries = "" if self.libraries is None else str(self.libraries)
        paths = [str(self.python_bin.parent / SHARED), libraries, environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
        return environment


def has_triton(triton_home: Path | None = None) -> bool:
    """Return whether there is a `tritonserver`, without a check of its other parts."""
    try:
        home = _wheel()[0] if triton_home is None else triton_home
    except StackError:
        return False
    return (home / "bin" / "tritonserver").is_file()


def find_installation(triton_home: Path | None = None, cache_dir: Path | None = None) -> Installation:
    """Find Triton and build what it needs.

    Args:
        triton_home: a folder with `bin/tritonserver`, `backends/python/` and `python_backend_stubs/<version>/`; by default
            the one in the `nvidia-pytriton` wheel.
        cache_dir: the folder for what is built; by default the user's cache.

    Raises:
        StackError: a part of Triton is missing, or the wheel was not tested with this NumPy.
    """
    home, libraries = _wheel() if triton_home is None else (triton_home, None)
    server = home / "bin" / "tritonserver"
    stub = home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    core = home / "backends" / "python" / "libtriton_python.so"
    utilities = home / "backends" / "python" / "triton_python_backend_utils.py"
    for part in (server, stub, core, utilities):
        if not part.is_file():
            raise StackError(f"{part} is missing: {home} holds no whole Triton for Python {PYTHON}")
    cache = _user_cache() if cache_dir is None else cache_dir
    try:
        program = _program(stub, of_wheel=triton_home is None)
        backends = _build_backends(cache, core, utilities, (stub.name, program))
        python_bin = _build_python(cache) / "bin"
    except OSError as error:
        raise StackError(f"cannot build Triton's backend directory in {cache}: {error}") from error
    return Installation(server, backends, libraries, python_bin)


def _user_cache() -> Path:
    # Called only where no setting names the cache, as a user of a container may have no home.
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tidegate")


def _wheel() -> tuple[Path, Path]:
    for entry in sys.path:
        home = Path(entry) / "pytriton" / "tritonserver"
        if home.is_dir():
            return home, Path(entry) / "nvidia_pytriton.libs"
    raise StackError(
        f"no Triton on this machine: install its wheel with `pip install --no-deps {WHEEL}`, or let "
        "TIDEGATE_TRITON_HOME name a folder that holds bin/tritonserver"
    )


def _build_backends(cache: Path, core: Path, utilities: Path, stub: tuple[str, bytes]) -> Path:
    parts = [(core.name, core.read_bytes()), (utilities.name, utilities.read_bytes()), stub]
    files = [(f"python/{name}", content) for name, content in parts]
    for backend in sorted(BACKENDS.iterdir()) if BACKENDS.is_dir() else []:
        if (backend / "model.py").is_file():
            files += [(f"{backend.name}/{name}", content) for name, content in parts]
            sources = (
                path for path in sorted(backend.rglob("*")) if "__pycache__" not in path.parts and path.is_file()
            )
            files += [(f"{backend.name}/{path.relative_to(backend)}", path.read_bytes()) for path in sources]
    digest = hashlib.sha256(LAYOUT)
    for name, content in files:
        digest.update(f"\0{name}\0".encode())
        digest.update(hashlib.sha256(content).digest())

    def build(folder: Path) -> None:
        for name, content in files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if target.name == stub[0] else 0o644)

    return _once(cache / f"backends-{digest.hexdigest()[:16]}", build)


def _program(stub: Path, *, of_wheel: bool) -> bytes:
    """Return a stub's executable for the NumPy that models run on. Raises `StackError` for an unknown stub of the wheel."""
    program = stub.read_bytes()
    numpy_major = _numpy_major()
    if numpy_major < 2:
        return program
    adapted = for_numpy_2(program)
    if adapted is None and of_wheel:
        raise StackError(
            f"{stub} is not the one of {WHEEL}, and was not tested with NumPy {numpy_major}: models could get wrong inputs; "
            f"install the tested wheel with `pip install --no-deps {WHEEL}`, or NumPy 1"
        )
    return program if adapted is None else adapted


def _numpy_major() -> int:
    try:
        return int(importlib.metadata.version("numpy").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


def _build_python(cache: Path) -> Path:
    """Build a Python environment with this one's interpreter and packages that writes no bytecode.

    A stub's interpreter ignores the variables that stop it from writing `__pycache__` beside a `model.py`, and Triton takes that
    folder for a change of the model and loads it again.

    A stub would link to the system's `libpython3.x.so.1.0`, whose patch version may differ from that of this standard library:
    modules such as `ssl` then miss symbols. The library is in a folder of its own, as Triton must not load those beside it.
    """
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    packages = dict.fromkeys([*site.getsitepackages(), sysconfig.get_paths()["purelib"]])
    lines = ["import site, sys; sys.dont_write_bytecode = True"]
    lines += [f"import site; site.addsitedir({path!r})" for path in packages]
    library = _shared_library()
    parts = [LAYOUT.decode(), str(executable), str(library), *lines]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(executable)
        (folder / "pyvenv.cfg").write_text(f"home = {executable.parent}\ninclude-system-site-packages = false\n")
        own = folder / "lib" / f"python{PYTHON}" / "site-packages"
        own.mkdir(parents=True)
        (own / "tidegate_packages.pth").write_text("\n".join(lines) + "\n")
        (folder / SHARED).mkdir()
        if library is not None:
            (folder / SHARED / library.name).symlink_to(library)

    return _once(cache / f"python-{key}", build)


def _shared_library() -> Path | None:
    name = f"libpython{PYTHON}.so.1.0"
    path = Path(sysconfig.get_config_var("LIBDIR") or "", name)
    return path if path.is_file() else None


def _once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder beside `target` and rename it, unless another process was first."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        build(draft)
        draft.chmod(0o755)
        draft.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
