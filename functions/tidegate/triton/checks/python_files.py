"""Files that a model's code opens: they are there, and are looked for where they are.

Only paths that the code writes out are followed: from `args["model_repository"]` and `args["model_version"]` or
`__file__`, through `Path`, `/`, `os.path.join` and f-strings, and through names that are assigned once.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import Module, Sources

_JOINS = {"Path", "PurePath", "PosixPath", "PurePosixPath", "join", "str", "fspath", "abspath", "realpath", "normpath"}
_SAME = {"resolve", "absolute", "as_posix"}
_READERS = {"open", "load", "loadtxt", "genfromtxt", "read_csv", "read_parquet", "InferenceSession", "load_model"}
_CAREFUL = {
    "exists", "is_file", "isfile", "FileNotFoundError", "OSError", "IOError", "write_text", "write_bytes", "save",
    "savez", "savez_compressed", "dump", "touch", "chdir",
}  # fmt: skip
"""What code says that does without a file, makes it, or changes the working directory."""

_ITSELF = {"open", "read_text", "read_bytes"}
"""What a path opens itself with."""

_LIBRARIES = {"io", "codecs", "gzip", "bz2", "lzma", "Image", "wave", "np", "numpy", "joblib", "torch", "onnx"}
"""Whose `open` and `load` take a path; others take the name of a member of an archive, or of something they know."""

_WRITING = re.compile("[wax]")
_NAMED_AS_A_FILE = re.compile(r".+\.[A-Za-z]\w*")

_PATHS = {"Path", "PosixPath", "joinpath", "with_name", "resolve", "absolute"}
MAX_HOPS = 8
LONGEST_PATH = 255


def check_python_files(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches."""
    # Absolute, since a repository may be named by a relative path: only what the code itself leaves relative is so then.
    root = model.path.absolute()
    for each in sources.reachable(module):
        words = {node.id for node in ast.walk(each.tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(each.tree) if isinstance(node, ast.Attribute)}
        if words & _CAREFUL:
            continue
        paths = _Paths(root, sources.version.absolute(), each, _assigned_once(each.tree))
        reported: set[Path] = set()
        careful = set(_careful(each.tree))
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Call) and id(node) not in careful:
                _check_relative(model, each, paths, node)
            if not isinstance(node, ast.Call | ast.BinOp | ast.JoinedStr):
                continue
            path = paths.of(node)
            if path is None or not path.suffix or path in reported or not path.is_relative_to(root):
                continue
            if not path.exists():
                reported.add(path)
                message = f"{path.relative_to(root).as_posix()} is opened here, and it is not there"
                model.report("code-file", message, _near(path), file=each.file, line=node.lineno)


def _check_relative(model: ModelFolder, module: Module, paths: _Paths, call: ast.Call) -> None:
    """Report a file that is read by a relative path: the server's working directory has no files of models."""
    path = paths.read_by(call)
    if path is None or path.is_absolute() or path == Path():
        return
    text = str(path)
    beside = any((folder / path).is_file() for folder in (paths.version, model.path))
    if beside or _takes_path(call, path):
        there = "not beside the code" if beside else "where no model has files"
        message = f"{text!r} is looked for in the server's working directory, {there}"
        hint = "Path(__file__).with_name(…), or build it from args: model_repository, model_version"
        model.report("code-file", message, hint, file=module.file, line=call.lineno)


def _takes_path(call: ast.Call, path: Path) -> bool:
    """Whether what a call is given is surely a path: a word alone may be the name of something that a library brings or
    downloads, as in `spacy.load("en_core_web_sm")`."""
    is_open = isinstance(call.func, ast.Name) and call.func.id == "open"
    return is_open or _NAMED_AS_A_FILE.fullmatch(path.name) is not None


def _careful(tree: ast.Module) -> Iterator[int]:
    """The nodes that run where an exception may be caught, or where the module is run as a script."""
    for node in ast.walk(tree):
        match node:
            case ast.Try(handlers=[_, *_]):
                guarded = node.body
            case ast.If() if any(isinstance(each, ast.Name) and each.id == "__name__" for each in ast.walk(node.test)):
                guarded = node.body
            case _:
                continue
        yield from (id(inner) for statement in guarded for inner in ast.walk(statement))


def _near(path: Path) -> str:
    try:
        there = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file() and entry.suffix == path.suffix)
    except OSError:
        there = []
    return f"there: {', '.join(there[:5])}" if there else "build it, or correct the name"


def _assigned_once(tree: ast.Module) -> dict[str, ast.expr]:
    """What names, and attributes of `self`, are assigned, where that is one thing."""
    bound = Counter(
        node.arg if isinstance(node, ast.arg) else ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store))
    )
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(ast.unparse(target), []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.setdefault(ast.unparse(node.target), []).append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1 == bound[name]}


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
                return self.module.path.absolute()
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

    def read_by(self, call: ast.Call) -> Path | None:
        """The path of the file that a call reads; None where it reads none, or which one is unknown."""
        attribute = call.func if isinstance(call.func, ast.Attribute) else None
        name = attribute.attr if attribute is not None else getattr(call.func, "id", "")
        named = next((word.value for word in call.keywords if word.arg in ("file", "fname", "filename")), None)
        arguments = call.args or ([named] if named is not None else [])
        is_reader = name in _READERS
        if attribute is not None and name in ("open", "load"):
            is_reader = isinstance(attribute.value, ast.Name) and attribute.value.id in _LIBRARIES
        read: ast.expr | None = arguments[0] if is_reader and arguments else None
        mode = call.args[1:2]
        if attribute is not None and name in _ITSELF and self._is_path(attribute.value):
            read, mode = attribute.value, call.args[:1]
        mode += [word.value for word in call.keywords if word.arg == "mode"]
        written = any(not isinstance(each, ast.Constant) or _WRITING.search(str(each.value)) for each in mode)
        if name == "open" and written:
            return None
        path = None if read is None else self.of(read)
        return None if path is None or ":" in str(path) or len(str(path)) > LONGEST_PATH else path

    def _is_path(self, node: ast.expr, hops: int = 0) -> bool:
        """Whether an expression makes a `Path`, and not a text."""
        if isinstance(node, ast.BinOp):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            return name in _PATHS
        known = self.names.get(ast.unparse(node)) if isinstance(node, ast.Name | ast.Attribute) else None
        return known is not None and hops < MAX_HOPS and self._is_path(known, hops + 1)

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
