"""Names that nothing defines, in Python or in the config: their line fails when it runs."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from typing import TypeGuard

from tidegate.language.words import did_you_mean
from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.python_model import ARGUMENTS
from tidegate.models.lint.python_source import CLASS, Module
from tidegate.models.python_code import Function, assigned_values, bound_names, own_nodes

_ALWAYS = frozenset(dir(builtins)) | {
    "__file__", "__path__", "__class__", "__annotations__", "__dict__", "__module__", "__qualname__", "__builtins__",
    "WindowsError",
}  # fmt: skip
_MAKERS = {"exec", "eval", "globals", "locals", "vars"}

_DYNAMIC = {"setattr", "vars", "getattr", "super"}


def check_python_names(model: CheckedFolder, module: Module) -> None:
    """Check the names, the attributes of `self` and the parameters of the config that a module reads."""
    _check_names(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name == CLASS:
            _check_attributes(module, node)
    if model.text.present and model.text.whole():
        _check_parameters(module, set(model.config.parameters))


def _check_names(module: Module) -> None:
    if _makes_names(module.tree):
        return
    try:
        # As bytes, which it takes in the encoding that they declare, whatever its stub says.
        table = symtable.symtable(module.path.read_bytes(), str(module.path), "exec")  # type: ignore[arg-type]
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    known = _module_names(table)
    unknown = set(_unbound(table)) - known - _ALWAYS
    for node in _run_names(module.tree):
        if node.id in unknown:
            unknown.remove(node.id)
            hint = did_you_mean(node.id, known, "name")
            module.report(node, "python-name", f"nothing defines the name {node.id!r}", hint)


def _makes_names(tree: ast.Module) -> bool:
    """Return whether a module may bind names that its text does not have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and (node.id in _MAKERS or node.id == "NameError"):
            return True
    return False


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _is_bound(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def _module_names(table: symtable.SymbolTable) -> set[str]:
    names = {symbol.get_name() for symbol in table.get_symbols() if _is_bound(symbol)}
    for each in _tables(table):
        # What a function declares global and assigns.
        names |= {s.get_name() for s in each.get_symbols() if s.is_declared_global() and s.is_assigned()}
    return names


def _unbound(table: symtable.SymbolTable) -> Iterator[str]:
    for each in _tables(table):
        for symbol in each.get_symbols():
            free = not _is_bound(symbol) if each is table else symbol.is_global()
            if symbol.is_referenced() and free:
                yield symbol.get_name()


def _run_names(tree: ast.Module) -> Iterator[ast.Name]:
    """Yield the names in code, by line, without those in annotations."""
    hints: set[int] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            hint = getattr(node, field, None)
            if isinstance(hint, ast.AST):
                hints |= {id(inner) for inner in ast.walk(hint)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in hints]
    yield from sorted(names, key=lambda node: (node.lineno, node.col_offset))


def _check_attributes(module: Module, owner: ast.ClassDef) -> None:
    """Report attributes of `self` that are read and never set, if only this class could set them."""
    bound = bound_names(owner.body)
    if bound is None or owner.bases or owner.keywords or owner.decorator_list or _is_dynamic(owner):
        return
    unseen = bound - {node.name for node in own_nodes(owner.body) if isinstance(node, Function)}
    called = {node.func.attr for node in ast.walk(owner) if isinstance(node, ast.Call) and _is_of_self(node.func)}
    if unseen & {*called, *ARGUMENTS, "__init__"}:
        return  # a method that is imported or assigned may set anything
    there = bound | {
        node.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    read = [node for node in _of_self(owner) if isinstance(node.ctx, ast.Load)]
    reported: set[str] = set()
    for node in sorted(read, key=lambda each: each.lineno):
        if node.attr not in there | reported and not node.attr.startswith("__"):
            reported.add(node.attr)
            hint = did_you_mean(node.attr, there, "attribute")
            module.report(node, "python-name", f"nothing sets self.{node.attr}", hint)


def _of_self(owner: ast.ClassDef) -> list[ast.Attribute]:
    return [node for node in ast.walk(owner) if _is_of_self(node)]


def _is_of_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_dynamic(owner: ast.ClassDef) -> bool:
    """Return whether attributes may be set indirectly: `self` is passed on, or names are computed."""
    held = {id(node.value) for node in _of_self(owner)}
    for node in ast.walk(owner):
        if isinstance(node, ast.Name) and (node.id in _DYNAMIC or (node.id == "self" and id(node) not in held)):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ("__dict__", "__class__"):
            return True
        if isinstance(node, ast.ClassDef) and node is not owner:
            return True
        if isinstance(node, Function) and node.name in ("__getattr__", "__getattribute__"):
            return True
    return False


def _check_parameters(module: Module, known: set[str]) -> None:
    """Report parameters that the code reads without a default, as in `config["parameters"]["name"]`."""
    holders, spared = _holders(module.tree), _spared(module.tree)
    for node in ast.walk(module.tree):
        match node:
            case ast.Subscript(value=owner, slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                holds = isinstance(owner, ast.Name | ast.Attribute) and ast.unparse(owner) in holders
                if (holds or _is_parameters(owner)) and name not in known and not spared & {name, id(node)}:
                    hint = did_you_mean(name, known, "parameter")
                    if not known:
                        hint = f'add parameters {{ key: "{name}" value: {{ string_value: "…" }} }}'
                    module.report(node, "code-parameter", f"the config has no parameter {name!r}", hint)
            case _:
                pass


def _is_parameters(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "parameters"


def _holders(tree: ast.Module) -> set[str]:
    """Return names that are only ever the config's parameters."""
    holders = {name for name, values in assigned_values(tree).items() if all(map(_is_parameters, values))}
    return holders - {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _spared(tree: ast.Module) -> set[str | int]:
    """Return names that the code tests for, and nodes whose errors it may catch."""
    spared: set[str | int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            spared.add(str(node.left.value))
        elif isinstance(node, ast.Try):
            spared |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return spared
