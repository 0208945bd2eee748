"""The Python files of a version: `model.py` and the modules beside it that it imports, parsed and never run.

Triton's stub appends the version's folder and the model's folder to the path, so they come last
(https://github.com/triton-inference-server/python_backend, `src/pb_stub.cc`).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.models.closure import closure
from tidegate.models.lint.files import read_data
from tidegate.models.lint.findings import Report

MAX_SOURCE_BYTES = 4 * 1024 * 1024
UTILITIES = ("triton_python_backend_utils", "c_python_backend_utils")
CLASS = "TritonPythonModel"


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file; `file` is its name in findings."""

    path: Path
    file: str
    tree: ast.Module
    found: Report

    def report(self, node: ast.stmt | ast.expr, kind: str, message: str, hint: str = "") -> None:
        self.found(kind, message, hint, file=self.file, line=node.lineno)


@dataclass(slots=True)
class Sources:
    """The modules in the folders of a model and of one version of it, each parsed once."""

    model: Path
    version: Path
    report: Report
    _modules: dict[Path, Module | None] = field(default_factory=dict)
    _reachable: dict[Path, tuple[Module, ...]] = field(default_factory=dict)

    def module(self, path: Path) -> Module | None:
        """Return the module in a file; None, and one finding, if it does not parse."""
        if path not in self._modules:
            self._modules[path] = self._parse(path)
        return self._modules[path]

    def find(self, name: str, level: int = 0) -> Path | None:
        """Return the file of a module beside the model, by its dotted name; of a package without `__init__.py`, the folder."""
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
        """Return a module and the modules beside it that it imports, directly and through others."""
        if start.path not in self._reachable:
            found = (self.module(path) for path in closure([start.path], self._imported))
            self._reachable[start.path] = tuple(module for module in found if module is not None)
        return self._reachable[start.path]

    def _imported(self, path: Path) -> list[Path]:
        module = self.module(path)
        imported = () if module is None else imported_modules(module.tree)
        found = (self.find(name, level) for name, level, _ in imported)
        return [each for each in found if each is not None and each.suffix == ".py"]

    def _parse(self, path: Path) -> Module | None:
        file = path.relative_to(self.model).as_posix()
        data = read_data(path, file, self.report, MAX_SOURCE_BYTES)
        if data is None:
            return None
        hint, line_of_null = "", data.count(b"\n", 0, data.find(b"\0")) + 1 if b"\0" in data else 0
        try:
            # As bytes, so that the encoding is the declared one, as in an import.
            with warnings.catch_warnings(action="ignore"):
                return Module(path, file, ast.parse(data, str(path)), self.report)
        except SyntaxError as error:
            line, problem = error.lineno or line_of_null, error.msg
            if "codec can't decode" in problem:
                hint = "save it in UTF-8, or declare its encoding in the first line, as in # coding: latin-1"
        except (RecursionError, MemoryError):
            line, problem = 0, "nested too deeply"
        except ValueError as error:
            line, problem = line_of_null, str(error)
        self.report("python-syntax", f"this does not parse: {problem}", hint, file=file, line=line)
        return None


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int, ast.Import | ast.ImportFrom]]:
    """Yield the dotted name of every imported module, with the level of relative imports; for `from a import b`, `a` and `a.b`,
    as `b` may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, node
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, node
            for alias in node.names:
                yield ".".join(filter(None, (node.module, alias.name))), node.level, node
