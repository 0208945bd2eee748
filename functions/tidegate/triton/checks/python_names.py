"""Names that nothing defines: Python finds them when the line runs, which is at the load or at a caller's request."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import Module, Sources

_ALWAYS = frozenset(dir(builtins)) | {
    "__file__", "__path__", "__class__", "__annotations__", "__dict__", "__module__", "__qualname__", "__builtins__",
    "WindowsError",
}  # fmt: skip
_MAKERS = {"exec", "eval", "globals", "locals", "vars"}


def check_python_names(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches; a module that may make names at run time is left alone."""
    for each in sources.reachable(module):
        if _makes_names(each.tree):
            continue
        unknown = _undefined(each)
        if not unknown:
            continue
        known, reported = _module_names(_table(each)), set()
        for node in _run_names(each.tree):
            if node.id in unknown and node.id not in reported:
                reported.add(node.id)
                hint = did_you_mean(node.id, known, "name")
                message = f"nothing defines the name {node.id!r}"
                model.report("python-name", message, hint, file=each.file, line=node.lineno)


def _makes_names(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and (node.id in _MAKERS or node.id == "NameError"):
            return True
    return False


def _table(module: Module) -> symtable.SymbolTable:
    # As bytes, which it takes in the encoding that they declare, whatever its stub says.
    return symtable.symtable(module.path.read_bytes(), str(module.path), "exec")  # type: ignore[arg-type]


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _is_bound(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def _module_names(table: symtable.SymbolTable) -> set[str]:
    names = {symbol.get_name() for symbol in table.get_symbols() if _is_bound(symbol)}
    for each in _tables(table):
        # What a function declares global and assigns is there after it ran.
        names |= {s.get_name() for s in each.get_symbols() if s.is_declared_global() and s.is_assigned()}
    return names


def _undefined(module: Module) -> set[str]:
    try:
        table = _table(module)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()
    known = _module_names(table) | _ALWAYS
    found = set()
    for each in _tables(table):
        for symbol in each.get_symbols():
            free = not _is_bound(symbol) if each is table else symbol.is_global()
            if symbol.is_referenced() and free and symbol.get_name() not in known:
                found.add(symbol.get_name())
    return found


def _run_names(tree: ast.Module) -> Iterator[ast.Name]:
    """Every name that is read when the code runs, in the order of lines: annotations are left out."""
    hints: set[int] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            hint = getattr(node, field, None)
            if isinstance(hint, ast.AST):
                hints |= {id(inner) for inner in ast.walk(hint)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in hints]
    yield from sorted(names, key=lambda node: (node.lineno, node.col_offset))
