"""The tensors that a Python model's `auto_complete_config` adds to its config, as far as its code states them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tidegate.triton.checks.files import regular_size
from tidegate.triton.checks.folder import ModelFolder, each_version


def completed_names(model: ModelFolder, kind: str) -> frozenset[str] | None:
    """The names of the inputs (or outputs, by `kind`) that the code adds; None where it adds some that cannot be told."""
    names: set[str] = set()
    for tree in _trees(model, f"add_{kind}"):
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == f"add_{kind}"
        ]
        for call in calls:
            found = _names(call.args[0], tree) if call.args else None
            if found is None:
                return None
            names |= found
    return frozenset(names)


def _trees(model: ModelFolder, word: str) -> Iterator[ast.Module]:
    """The Python files of a model that say a word."""
    for _, folder in each_version(model):
        for path in sorted(folder.rglob("*.py")):
            if regular_size(path) is None:
                continue
            try:
                text = path.read_text(encoding="utf-8-sig")
                if word in text:
                    yield ast.parse(text)
            except (OSError, ValueError, SyntaxError, RecursionError):
                # What does not parse is reported where the code is checked.
                continue


def _names(argument: ast.expr, tree: ast.Module) -> set[str] | None:
    """The names of the tensors that an argument can be: a dictionary, or a name that only dictionaries are bound to."""
    if isinstance(argument, ast.Dict):
        for key, value in zip(argument.keys, argument.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "name" and isinstance(value, ast.Constant):
                return {str(value.value)}
        return None
    if not isinstance(argument, ast.Name):
        return None
    bound = [each for node in ast.walk(tree) for each in _bound(node, argument.id, tree)]
    if not bound:
        return None
    names: set[str] = set()
    for each in bound:
        found = _names(each, tree) if isinstance(each, ast.Dict) else None
        if found is None:
            return None
        names |= found
    return names


def _bound(node: ast.AST, name: str, tree: ast.Module) -> list[ast.expr]:
    """What a node binds to a name: the value of an assignment, the items of the list that a loop goes through."""
    if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in node.targets):
        return [node.value]
    if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == name:
        items = node.iter
        if isinstance(items, ast.Name):
            lists = [
                each.value
                for each in ast.walk(tree)
                if isinstance(each, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == items.id for t in each.targets)
            ]
            items = lists[0] if len(lists) == 1 else items
        return list(items.elts) if isinstance(items, ast.List | ast.Tuple) else [items]
    return []
