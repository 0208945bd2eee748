"""Parameters of the config that the code cannot do without: `config["parameters"]["name"]` fails where there is none."""

from __future__ import annotations

import ast

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import Module, Sources


def check_python_parameters(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check `model.py` and the modules beside it that it reaches."""
    if not model.config.present or not model.config.whole():
        return
    known = set(model.message.parameters)
    for each in sources.reachable(module):
        holders = _holders(each.tree)
        spared = _spared(each.tree)
        for node in ast.walk(each.tree):
            match node:
                case ast.Subscript(value=owner, slice=ast.Constant(value=str()), ctx=ast.Load()) if _holds(
                    owner, holders
                ):
                    name = str(node.slice.value) if isinstance(node.slice, ast.Constant) else ""
                    if name not in known and name not in spared and id(node) not in spared:
                        message = f"the config has no parameter {name!r}"
                        hint = did_you_mean(name, known, "parameter")
                        if not known:
                            hint = f'add parameters {{ key: "{name}" value: {{ string_value: "…" }} }}'
                        model.report("code-parameter", message, hint, file=each.file, line=node.lineno)
                case _:
                    pass


def _is_parameters(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "parameters"


def _holds(node: ast.AST, holders: set[str]) -> bool:
    return _is_parameters(node) or (isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in holders)


def _holders(tree: ast.Module) -> set[str]:
    """Names that are the config's parameters and nothing else."""
    found: dict[str, list[bool]] = {}
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        for target in targets:
            found.setdefault(ast.unparse(target), []).append(_is_parameters(value))
        if isinstance(node, ast.arg):
            found.setdefault(node.arg, []).append(False)
    return {name for name, values in found.items() if all(values)}


def _spared(tree: ast.Module) -> set[str | int]:
    """Names that the code looks for first, and nodes where it is ready for an error."""
    spared: set[str | int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
            spared.add(str(node.left.value))
        elif isinstance(node, ast.Try):
            spared |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return spared
