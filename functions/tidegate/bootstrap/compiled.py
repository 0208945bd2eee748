"""Finds the compiled copy of this package, which `make compiled` builds.

In the copy, mypyc (https://mypyc.readthedocs.io) has compiled the modules that a request passes, which saves CPU time under
load (docs/architecture.md, "Libraries"). Beside them is Envoy's filter, which runs them in Envoy. The copy is a part of the Python environment, in a folder named after the digest of
its sources. So a copy of other sources is never found, and an edited module is never ignored.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import tidegate

PACKAGE = Path(tidegate.__file__).parent

# What a gateway never reads, so that editing it leaves the copy as it is.
_LEFT_OUT = ("analysis", "capacity", "cli", "console", "testing", "web/console/assets")
_DIGITS = 16


def copied_files(package: Path = PACKAGE) -> Iterator[Path]:
    """Yield the files of the package that belong to a copy, in order, relative to `package`."""
    for path in sorted(package.rglob("*")):
        relative = path.relative_to(package)
        if not path.is_file() or "__pycache__" in relative.parts:
            continue
        if not any(relative.is_relative_to(each) for each in _LEFT_OUT):
            yield relative


def compiled_folder(package: Path = PACKAGE, prefix: Path = Path(sys.prefix)) -> Path:
    """Return the folder for the compiled copy of a package in an environment. With a copy, it goes on the module path."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag}\n".encode())
    for path in copied_files(package):
        content = (package / path).read_bytes()
        digest.update(b"%s\n%d\n%s" % (path.as_posix().encode(), len(content), content))
    return prefix / "share" / "tidegate" / "compiled" / digest.hexdigest()[:_DIGITS]


FILTER = Path("tidegate", "envoy", "in_process_filter.so")
"""Envoy's filter in a copy, where Python can run in another program: its library is shared."""


def find_filter() -> Path | None:
    """Return Envoy's filter that decides in its process, of these sources; None if there is none."""
    file = compiled_folder() / FILTER
    return file if file.is_file() else None


def find_compiled() -> Path | None:
    """Return the folder of the compiled copy of this package; None if there is none."""
    folder = compiled_folder()
    return folder if folder.is_dir() else None
