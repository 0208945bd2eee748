"""Checks that the files that a model's code opens exist, in the model's own folder.

Only literal paths are followed: from `args["model_repository"]` and `args["model_version"]` or
`__file__`, through `Path`, `/`, `os.path.join` and f-strings, and through names that are assigned once.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.models.lint.files import is_machine_path
from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.python_source import Module, Sources
from tidegate.models.python_code import assigned_values, called_name

_PICKLE_READERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib"}
_JOINS = {"Path", "PurePath", "PosixPath", "PurePosixPath", "join", "str", "fspath", "abspath", "realpath", "normpath"}
_SAME = {"resolve", "absolute", "as_posix"}
_READERS = {"open", "load", "loadtxt", "genfromtxt", "read_csv", "read_parquet", "InferenceSession", "load_model"}
_CAREFUL = {
    "exists", "is_file", "isfile", "FileNotFoundError", "OSError", "IOError", "write_text", "write_bytes", "save",
    "savez", "savez_compressed", "dump", "touch", "chdir",
}  # fmt: skip
"""Names in code that can do without a file, writes it, or changes the working directory."""

_PATH_READERS = {"open", "read_text", "read_bytes"}
"""Methods of a path."""

_LIBRARIES = {"io", "codecs", "gzip", "bz2", "lzma", "Image", "wave", "np", "numpy", "joblib", "torch", "onnx"}
"""Libraries whose `open` and `load` take a path; those of others take the name of a member, or of something known."""

_WRITING = re.compile("[wax]")
_NAMED_AS_A_FILE = re.compile(r".+\.[A-Za-z]\w*")

_PATHS = {"Path", "PosixPath", "joinpath", "with_name", "resolve", "absolute"}
MAX_HOPS = 8
LONGEST_PATH = 255


def check_python_files(model: CheckedFolder, sources: Sources, module: Module) -> None:
    _check_strays(module)
    words = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    if words & _CAREFUL:
        return
    # Absolute, so that only paths that the code leaves relative are.
    root = model.path.absolute()
    paths = _Paths(root, sources.version.absolute(), module, _assigned_once(module.tree))
    reported: set[Path] = set()
    careful = set(_careful(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and id(node) not in careful:
            _check_relative(model, module, paths, node)
        if not isinstance(node, ast.Call | ast.BinOp | ast.JoinedStr):
            continue
        path = paths.of(node)
        if path is None or not path.suffix or path in reported or not path.is_relative_to(root):
            continue
        if not path.exists():
            reported.add(path)
            message = f"{path.relative_to(root).as_posix()} is opened here, and it is not there"
            module.report(node, "code-file", message, _near(path))


def _check_strays(module: Module) -> None:
    # Texts that are statements are documentation.
    texts = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            if is_machine_path(node.value):
                hint = "build it from the folder that initialize is given, or from __file__"
                module.report(node, "absolute-path", f"a path of one machine: {node.value[:120]!r}", hint)
        elif isinstance(node, ast.Call) and _reads_pickle(node):
            hint = "use ONNX, .npz with allow_pickle=False, or JSON"
            module.report(node, "stray-pickle", "this reads a pickle, which runs whatever the file says", hint)


def _reads_pickle(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return False
    owner, name = call.func.value.id, call.func.attr
    if owner in _PICKLE_READERS:
        return name in ("load", "loads", "Unpickler")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if owner in ("np", "numpy") and name == "load":
        value = keywords.get("allow_pickle")
        return isinstance(value, ast.Constant) and value.value is True
    if owner == "torch" and name == "load":
        value = keywords.get("weights_only")
        return not (isinstance(value, ast.Constant) and value.value is True)
    return owner in ("pd", "pandas") and name == "read_pickle"


def _check_relative(model: CheckedFolder, module: Module, paths: _Paths, call: ast.Call) -> None:
    """Report a file that is read by a relative path: the server's working directory has no files of models."""
    path = paths.read_by(call)
    if path is None or path.is_absolute() or path == Path():
        return
    beside = any((folder / path).is_file() for folder in (paths.version, model.path))
    is_open = isinstance(call.func, ast.Name) and call.func.id == "open"
    # A word may be the name of something that a library has or downloads, as in `spacy.load("en_core_web_sm")`.
    if beside or is_open or _NAMED_AS_A_FILE.fullmatch(path.name):
        there = "not beside the code" if beside else "where no model has files"
        hint = "Path(__file__).with_name(…), or build it from args: model_repository, model_version"
        module.report(
            call, "code-file", f"{str(path)!r} is looked for in the server's working directory, {there}", hint
        )


def _careful(tree: ast.Module) -> Iterator[int]:
    """Yield the ids of nodes whose exceptions may be caught, or that only run if the module is a script."""
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
    """Return the values of names and attributes that are bound once."""
    bound = Counter(
        node.arg if isinstance(node, ast.arg) else ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store))
    )
    return {name: values[0] for name, values in assigned_values(tree).items() if len(values) == 1 == bound[name]}


@dataclass(frozen=True, slots=True)
class _Paths:
    """Resolves expressions of one module to paths."""

    model: Path
    version: Path
    module: Module
    names: dict[str, ast.expr]

    def of(self, node: ast.AST, hops: int = 0) -> Path | None:
        """Return the path that an expression is; None if that is unknown."""
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
        """Return the path of the file that a call reads; None if it reads none, or an unknown one."""
        attribute = call.func if isinstance(call.func, ast.Attribute) else None
        name = called_name(call)
        named = next((word.value for word in call.keywords if word.arg in ("file", "fname", "filename")), None)
        arguments = call.args or ([named] if named is not None else [])
        is_reader = name in _READERS
        if attribute is not None and name in ("open", "load"):
            is_reader = isinstance(attribute.value, ast.Name) and attribute.value.id in _LIBRARIES
        read: ast.expr | None = arguments[0] if is_reader and arguments else None
        mode = call.args[1:2]
        if attribute is not None and name in _PATH_READERS and self._is_path(attribute.value):
            read, mode = attribute.value, call.args[:1]
        mode += [word.value for word in call.keywords if word.arg == "mode"]
        written = any(not isinstance(each, ast.Constant) or _WRITING.search(str(each.value)) for each in mode)
        if name == "open" and written:
            return None
        path = None if read is None else self.of(read)
        return None if path is None or ":" in str(path) or len(str(path)) > LONGEST_PATH else path

    def _is_path(self, node: ast.expr, hops: int = 0) -> bool:
        """Return whether an expression is a `Path` and not a text."""
        if isinstance(node, ast.BinOp):
            return True
        if isinstance(node, ast.Call):
            return called_name(node) in _PATHS
        known = self.names.get(ast.unparse(node)) if isinstance(node, ast.Name | ast.Attribute) else None
        return known is not None and hops < MAX_HOPS and self._is_path(known, hops + 1)

    def _called(self, call: ast.Call, hops: int) -> Path | None:
        attribute = call.func if isinstance(call.func, ast.Attribute) else None
        name = called_name(call)
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
