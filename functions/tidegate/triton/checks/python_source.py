"""The Python files of a version: `model.py` and the modules beside it that it imports, parsed and never run.

Where the stub looks for modules: the version's folder and the model's folder are appended to the path, so they come last
(https://github.com/triton-inference-server/python_backend, `src/pb_stub.cc`).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.triton.checks.files import read_data
from tidegate.triton.checks.findings import Report

MAX_SOURCE_BYTES = 4 * 1024 * 1024
UTILITIES = ("triton_python_backend_utils", "c_python_backend_utils")
CLASS = "TritonPythonModel"


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file; `file` is its name in findings."""

    path: Path
    file: str
    tree: ast.Module


@dataclass(slots=True)
class Sources:
    """The modules of one version, each parsed once.

    Args:
        model: the model's folder.
        version: the version's folder.
        report: takes what does not parse.
    """

    model: Path
    version: Path
    report: Report
    _modules: dict[Path, Module | None] = field(default_factory=dict)
    _reachable: dict[Path, tuple[Module, ...]] = field(default_factory=dict)

    def module(self, path: Path) -> Module | None:
        """The module in a file; None, and one finding, where it does not parse."""
        if path not in self._modules:
            self._modules[path] = self._parse(path)
        return self._modules[path]

    def find(self, name: str, level: int = 0) -> Path | None:
        """The file of a module by its dotted name, among those beside the model; None where there is none.

        A package without `__init__.py` is found as its folder.
        """
        folders = [self.version] if level == 1 else [self.version, self.model]
        for folder in folders:
            base = folder.joinpath(*name.split(".")) if name else folder
            for candidate in (base / "__init__.py", base.with_name(f"{base.name}.py")):
                if candidate.is_file():
                    return candidate
            if name and base.is_dir() and folder == self.version:
                return base
        return None

    def reachable(self, start: Module) -> tuple[Module, ...]:
        """A module and all modules beside it that it imports, directly and through others."""
        if start.path not in self._reachable:
            self._reachable[start.path] = tuple(self._reached_from(start))
        return self._reachable[start.path]

    def _reached_from(self, start: Module) -> Iterator[Module]:
        pending, seen = [start], {start.path}
        while pending:
            module = pending.pop()
            yield module
            for name, level, _ in imported_modules(module.tree):
                path = self.find(name, level)
                if path is not None and path.suffix == ".py" and path not in seen:
                    seen.add(path)
                    found = self.module(path)
                    if found is not None:
                        pending.append(found)

    def _parse(self, path: Path) -> Module | None:
        file = path.relative_to(self.model).as_posix()
        data = read_data(path, file, self.report, MAX_SOURCE_BYTES)
        if data is None:
            return None
        line, problem, hint = 0, "", ""
        try:
            # As bytes, so that the encoding is the one that an import takes: declared, or UTF-8 outside comments.
            with warnings.catch_warnings(action="ignore"):
                return Module(path, file, ast.parse(data, str(path)))
        except SyntaxError as error:
            line, problem = error.lineno or _line_of_null(data), error.msg
            if "codec can't decode" in problem:
                hint = "save it in UTF-8, or declare its encoding in the first line, as in # coding: latin-1"
        except (RecursionError, MemoryError):
            problem = "nested too deeply"
        except ValueError as error:
            line, problem = _line_of_null(data), str(error)
        self.report("python-syntax", f"this does not parse: {problem}", hint, file=file, line=line)
        return None


def _line_of_null(data: bytes) -> int:
    """The line of a null character, of which Python does not say where it is; 0 where there is none."""
    return data.count(b"\n", 0, data.index(b"\0")) + 1 if b"\0" in data else 0


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int, ast.Import | ast.ImportFrom]]:
    """The dotted names of every module that is imported anywhere, with the level of relative imports.

    Of `from a import b` it gives `a` and `a.b`, since `b` may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, node
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, node
            for alias in node.names:
                yield ".".join(filter(None, (node.module, alias.name))), node.level, node
