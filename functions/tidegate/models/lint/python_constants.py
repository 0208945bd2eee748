"""Texts that names of a module can be: followed through constants, loops over constants, and attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Names = frozenset[str]


@dataclass(slots=True)
class Constants:
    """The texts that names and attributes of a module can be; None if anything else is assigned. `x[]` are the items of x."""

    values: dict[str, Names | None] = field(default_factory=dict)

    def add(self, name: str, value: Names | None) -> None:
        before = self.values.get(name, frozenset())
        self.values[name] = None if value is None or before is None else before | value

    def texts(self, node: ast.expr) -> Names | None:
        """Return the texts that an expression can be; None if that is unknown."""
        match node:
            case ast.Constant(value=str()):
                return frozenset({str(node.value)})
            case ast.Name():
                return self.values.get(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                return self.values.get(f"self.{node.attr}")
            case ast.IfExp():
                return self._all([node.body, node.orelse])
            case _:
                return None

    def items(self, node: ast.expr) -> Names | None:
        """Return the texts that a loop over an expression goes through."""
        match node:
            case ast.Tuple() | ast.List() | ast.Set():
                return self._all(node.elts)
            case ast.Dict():
                return self._all(node.keys)
            case ast.Name():
                return self.values.get(f"{node.id}[]")
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                return self.values.get(f"self.{node.attr}[]")
            case ast.Call(func=ast.Name(id="sorted" | "list" | "tuple" | "set" | "reversed"), args=[only]):
                return self.items(only)
            case ast.Call(func=ast.Attribute(attr="keys", value=mapping), args=[]):
                return self.items(mapping)
            case _:
                return None

    def _all(self, nodes: Sequence[ast.expr | None]) -> Names | None:
        found: Names = frozenset()
        for node in nodes:
            texts = None if node is None else self.texts(node)
            if texts is None:
                return None
            found |= texts
        return found


def constants_of(tree: ast.Module) -> Constants:
    """Return the texts that the names of a module can be, all scopes taken together."""
    constants = Constants()
    for _ in range(2):
        # The second round uses the constants that the first found.
        fresh = Constants(dict(constants.values))
        found = Constants()
        for node in ast.walk(tree):
            for target, value, is_loop in assignments(node):
                _bind(target, value, is_loop, fresh, found)
        constants = found
    return constants


def assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None, bool]]:
    match node:
        case ast.Assign():
            yield from ((target, node.value, False) for target in node.targets)
        case ast.AnnAssign() if node.value is not None:
            yield node.target, node.value, False
        case ast.NamedExpr():
            yield node.target, node.value, False
        case ast.AugAssign():
            yield node.target, None, False
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            yield node.target, node.iter, True
        case ast.withitem() if node.optional_vars is not None:
            yield node.optional_vars, None, False
        case ast.arg():
            yield ast.Name(node.arg), None, False
        case ast.ExceptHandler(name=str()):
            yield ast.Name(str(node.name)), None, False
        case _:
            pass


def _bind(target: ast.expr, value: ast.expr | None, is_loop: bool, known: Constants, found: Constants) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        _bind_several(target, value, is_loop, known, found)
        return
    key = _key(target)
    if key is None:
        return
    if value is None:
        found.add(key, None)
        found.add(f"{key}[]", None)
    elif is_loop:
        found.add(key, known.items(value))
    else:
        found.add(key, known.texts(value))
        found.add(f"{key}[]", known.items(value))


def _bind_several(
    target: ast.Tuple | ast.List, value: ast.expr | None, is_loop: bool, known: Constants, found: Constants
) -> None:
    """Bind `a, b = …` item by item if both sides are literal, and the targets of loops over `zip` and the like."""
    sides: list[ast.expr | None] = [None] * len(target.elts)
    loops = False
    match value:
        case ast.Tuple() | ast.List() if not is_loop and len(value.elts) == len(target.elts):
            sides = list(value.elts)
        case ast.Call(func=ast.Name(id="enumerate"), args=[items, *_]) if is_loop and len(target.elts) == 2:
            sides, loops = [None, items], True
        case ast.Call(func=ast.Name(id="zip"), args=arguments) if is_loop and len(arguments) == len(target.elts):
            sides, loops = list(arguments), True
        case ast.Call(func=ast.Attribute(attr="items", value=mapping), args=[]) if is_loop and len(target.elts) == 2:
            sides, loops = [mapping, None], True
        case _:
            pass
    for each, side in zip(target.elts, sides, strict=True):
        _bind(each, side, loops, known, found)


def _key(target: ast.expr) -> str | None:
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"):
        return f"self.{target.attr}"
    return None
