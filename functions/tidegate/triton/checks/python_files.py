"""Files that a model's code opens: they are there, and are looked for where they are.

Only paths that the code writes out are followed: from `args["model_repository"]` and `args["model_version"]` or
`__file__`, through `Path`, `/`, `os.path.join` and f-strings, and through names that are assigned once.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import Module, Sources

_JOINS = {"Path", "PurePath", "PosixPath", "PurePosixPath", "join", "str", "fspath", "abspath", "realpath", "normpath"}
_SAME = {"resolve", "absolute", "as_posix"}
_READERS = {"open", "load", "loadtxt", "genfromtxt", "read_csv", "read_parquet", "InferenceSession", "load_model"}
_CAREFUL = {
    "exists", "is_file", "isfile", "FileNotFoundError", "OSError", "IOError", "write_text", "write_bytes", "save",
    "savez", "savez_compressed", "dump", "touch",
}  # fmt: skip
"""What code says that does without a file, or makes it."""

MAX_HOPS = 8


def check_python_files(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches."""
    for each in sources.reachable(module):
        words = {node.id for node in ast.walk(each.tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(each.tree) if isinstance(node, ast.Attribute)}
        if words & _CAREFUL:
            continue
        paths = _Paths(model.path, sources.version, each, _assigned_once(each.tree))
        reported: set[Path] = set()
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Call):
                _check_relative(model, sources, each, node)
            if not isinstance(node, ast.Call | ast.BinOp | ast.JoinedStr):
                continue
            path = paths.of(node)
            if path is None or not path.suffix or path in reported or not path.is_relative_to(model.path):
                continue
            if not path.exists():
                reported.add(path)
                message = f"{path.relative_to(model.path).as_posix()} is opened here, and it is not there"
                model.report("code-file", message, _near(path), file=each.file, line=node.lineno)


def _check_relative(model: ModelFolder, sources: Sources, module: Module, call: ast.Call) -> None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in _READERS or not call.args:
        return
    argument = call.args[0]
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str) or "\0" in argument.value:
        return
    text = argument.value
    if not text or len(text) > 255 or text.startswith("/"):
        return
    if any((folder / text).is_file() for folder in (sources.version, model.path)):
        message = f"{text!r} is looked for in the server's working directory, not beside the code"
        hint = "Path(__file__).with_name(…), or build it from args: model_repository, model_version"
        model.report("code-file", message, hint, file=module.file, line=call.lineno)


def _near(path: Path) -> str:
    try:
        there = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file() and entry.suffix == path.suffix)
    except OSError:
        there = []
    return f"there: {', '.join(there[:5])}" if there else "build it, or correct the name"


def _assigned_once(tree: ast.Module) -> dict[str, ast.expr]:
    """What names, and attributes of `self`, are assigned, where that is one thing."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(ast.unparse(target), []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.setdefault(ast.unparse(node.target), []).append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


@dataclass(frozen=True, slots=True)
class _Paths:
    """Resolves expressions of one module to paths."""

    model: Path
    version: Path
    module: Module
    names: dict[str, ast.expr]

    def of(self, node: ast.AST, hops: int = 0) -> Path | None:
        """The path that an expression is; None where that cannot be told."""
        if hops > MAX_HOPS:
            return None
        match node:
            case ast.Constant(value=str()):
                return Path(str(node.value)) if "\0" not in str(node.value) else None
            case ast.Subscript(slice=ast.Constant(value="model_repository")):
                return self.model
            case ast.Subscript(slice=ast.Constant(value="model_version")):
                return Path(self.version.name)
            case ast.Name(id="__file__"):
                return self.module.path
            case ast.Name() | ast.Attribute(value=ast.Name(id="self")) if ast.unparse(node) in self.names:
                return self.of(self.names[ast.unparse(node)], hops + 1)
            case ast.Attribute(attr="parent"):
                whole = self.of(node.value, hops + 1)
                return None if whole is None else whole.parent
            case ast.BinOp(op=ast.Div()):
                return self._joined([node.left, node.right], hops)
            case ast.JoinedStr():
                return self._text(node, hops)
            case ast.Call():
                return self._called(node, hops)
            case _:
                return None

    def _called(self, call: ast.Call, hops: int) -> Path | None:
        attribute = call.func if isinstance(call.func, ast.Attribute) else None
        name = attribute.attr if attribute is not None else getattr(call.func, "id", "")
        if name in _JOINS and call.args:
            return self._joined(call.args, hops)
        if name == "dirname" and len(call.args) == 1:
            whole = self.of(call.args[0], hops + 1)
            return None if whole is None else whole.parent
        if attribute is None:
            return None
        if name in _SAME and not call.args:
            return self.of(attribute.value, hops + 1)
        if name == "joinpath":
            return self._joined([attribute.value, *call.args], hops)
        if name == "with_name" and len(call.args) == 1:
            whole, last = self.of(attribute.value, hops + 1), self.of(call.args[0], hops + 1)
            return None if whole is None or last is None else whole.parent / last
        return None

    def _joined(self, parts: list[ast.expr], hops: int) -> Path | None:
        paths = [self.of(part, hops + 1) for part in parts]
        known = [path for path in paths if path is not None]
        return known[0].joinpath(*known[1:]) if len(known) == len(paths) else None

    def _text(self, node: ast.JoinedStr, hops: int) -> Path | None:
        pieces = []
        for value in node.values:
            inner = value.value if isinstance(value, ast.FormattedValue) else value
            if isinstance(inner, ast.Constant):
                pieces.append(str(inner.value))
            else:
                path = self.of(inner, hops + 1)
                if path is None:
                    return None
                pieces.append(str(path))
        return Path("".join(pieces))
