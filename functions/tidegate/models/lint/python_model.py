"""Checks that the class that Triton calls exists, that its methods can be called, and that its load ends."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.python_execute import check_execute
from tidegate.models.lint.python_source import CLASS, Module, Sources
from tidegate.models.python_code import Function, called_name, may_have, may_set, own_nodes

ARGUMENTS = {"initialize": 1, "execute": 1, "finalize": 0, "auto_complete_config": 1, "is_ready": 0}
"""How many arguments Triton gives each method, beside `self`."""


MAX_HOPS = 8
CLOSE = 0.8
"""Least similarity, from 0 to 1, of a name that counts as another one misspelt."""

AT_LOAD = "the load would hang"


@dataclass(frozen=True, slots=True)
class Method:
    module: Module
    function: Function


def check_python_model(model: CheckedFolder, sources: Sources, module: Module) -> None:
    found = find_class(sources, module)
    if found is None:
        close = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        hint = f"rename {close[0]!r}" if len(close) == 1 else f"define class {CLASS}"
        if CLASS in close:
            hint = "move it out of what never runs in a server"
        message = f"there is no class {CLASS}, which Triton looks for"
        model.report("python-class", message, hint, file=module.file, line=1)
        _check_endless(module, module.tree.body, AT_LOAD)
        return
    place, owner = found
    for each in sources.reachable(module):
        _check_endless(each, each.tree.body, AT_LOAD)
    if owner is None:
        return
    methods, complete = methods_of(sources, place, owner)
    for name, method in methods.items():
        if name in ARGUMENTS:
            _check_signature(method)
    _check_misspelt(module, methods)
    _check_assigned(place, owner)
    if "__init__" in methods:
        _check_signature(methods["__init__"], 0)
    if "execute" in methods:
        check_execute(model, sources, module, methods["execute"].module, methods["execute"].function)
    elif complete and not any(may_set(each.tree, "execute") for each in sources.reachable(module)):
        hint = "def execute(self, requests): … returns a list with one response for each request"
        place.report(owner, "python-execute", f"class {CLASS} has no method execute", hint)
    for name, when in (("__init__", AT_LOAD), ("initialize", AT_LOAD), ("execute", "every request would hang")):
        if name in methods:
            _check_endless(methods[name].module, methods[name].function.body, when)


def find_class(
    sources: Sources, module: Module, name: str = CLASS, hops: int = 0
) -> tuple[Module, ast.ClassDef | None] | None:
    """Return a class and the module that defines it, following imports beside the model.

    None if nothing has that name; a class of None if its definition is unknown.
    """
    unseen: tuple[Module, None] | None = None
    for node in own_nodes([node for node in module.tree.body if not _is_main_guard(node)]):
        match node:
            case ast.ClassDef() if node.name == name:
                return module, node
            case ast.ImportFrom():
                for alias in node.names:
                    if alias.name == "*":
                        unseen = (module, None)
                    if (alias.asname or alias.name) == name:
                        return _imported_class(sources, module, node, alias.name, hops)
            case ast.Import() if any(alias.asname == name for alias in node.names):
                unseen = (module, None)
            case ast.Name(ctx=ast.Store()) if node.id == name:
                unseen = (module, None)
            case _:
                pass
    return unseen


def _is_main_guard(node: ast.stmt) -> bool:
    match node:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case _:
            return False


def _imported_class(
    sources: Sources, module: Module, node: ast.ImportFrom, name: str, hops: int
) -> tuple[Module, ast.ClassDef | None]:
    path = sources.find(node.module or "", node.level)
    other = sources.module(path) if path is not None and path.suffix == ".py" and hops < MAX_HOPS else None
    found = find_class(sources, other, name, hops + 1) if other is not None else None
    return found or (module, None)


def methods_of(
    sources: Sources, module: Module, owner: ast.ClassDef, hops: int = 0
) -> tuple[Mapping[str, Method], bool]:
    """Return the methods of a class, with those that it inherits, and whether these are all of them."""
    methods: dict[str, Method] = {}
    complete = not owner.keywords and not owner.decorator_list
    for base in reversed(owner.bases):
        found = find_class(sources, module, base.id, hops + 1) if isinstance(base, ast.Name) else None
        if isinstance(base, ast.Name) and base.id in ("object", "ABC"):
            continue
        if found is None or found[1] is None or hops >= MAX_HOPS or found[1] is owner:
            complete = False
            continue
        inherited, whole = methods_of(sources, found[0], found[1], hops + 1)
        methods.update(inherited)
        complete = complete and whole
    own = list(own_nodes(owner.body))
    defined = {node.name: node for node in own if isinstance(node, Function)}
    methods.update({name: Method(module, node) for name, node in defined.items()})
    stored = {node.id for node in own if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for name in (*ARGUMENTS, "__init__"):
        if name in stored or (name not in defined and may_have(owner, name)):
            # It is assigned or imported, so that its definition is unknown.
            methods.pop(name, None)
            complete = False
    return methods, complete


def _check_misspelt(module: Module, methods: Mapping[str, Method]) -> None:
    """Report a method that nothing calls, with a name similar to one that Triton calls."""
    used = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    for name, method in methods.items():
        close = get_close_matches(name, ARGUMENTS.keys() - methods.keys(), 1, CLOSE)
        # A missing `execute` is another finding.
        if close and close[0] != "execute" and name not in ARGUMENTS and name not in used and not name.startswith("_"):
            hint = f"did you mean {close[0]!r}, which Triton calls?"
            method.module.report(method.function, "python-method", f"nothing calls {name}", hint)


def _check_assigned(module: Module, owner: ast.ClassDef) -> None:
    """Report `execute = None` and other constants."""
    for node in owner.body:
        match node:
            case ast.Assign(targets=targets, value=ast.Constant(value=value)):
                if any(isinstance(target, ast.Name) and target.id == "execute" for target in targets):
                    message = f"execute is {value!r}, which cannot be called"
                    module.report(node, "python-execute", message, "def execute(self, requests)")
            case _:
                pass


def _check_signature(method: Method, given: int | None = None) -> None:
    function = method.function
    given = ARGUMENTS[function.name] if given is None else given
    decorators = {node.id for node in function.decorator_list if isinstance(node, ast.Name)}
    if decorators - {"staticmethod", "classmethod"} or len(decorators) < len(function.decorator_list):
        return
    static = "staticmethod" in decorators
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    taken = len(positional) - (0 if static else 1)
    required = taken - len(arguments.defaults)
    keywords = [
        name.arg for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is None
    ]
    fits = required <= given and (given <= taken or arguments.vararg is not None) and not keywords
    if function.name == "auto_complete_config" and not decorators:
        fits = False
    if not fits:
        wanted = {
            "execute": "def execute(self, requests)",
            "initialize": "def initialize(self, args)",
            "auto_complete_config": "@staticmethod def auto_complete_config(config)",
        }.get(function.name, f"def {function.name}(self)")
        message = f"Triton cannot call {function.name}({ast.unparse(arguments)})"
        method.module.report(function, "python-signature", message, wanted)


def _check_endless(module: Module, body: list[ast.stmt], consequence: str) -> None:
    for node in own_nodes(body):
        match node:
            case ast.While(test=ast.Constant(value=value)) if value and _never_ends(node):
                message = f"this loop never ends: {consequence}"
                module.report(node, "python-endless", message, "end it, or run it in a thread")
            case _:
                pass


def _never_ends(loop: ast.While) -> bool:
    return not any(
        isinstance(node, ast.Break | ast.Return | ast.Raise | ast.Yield | ast.YieldFrom | ast.Await)
        or (isinstance(node, ast.Call) and called_name(node) in ("exit", "_exit", "quit"))
        for node in own_nodes(loop.body)
    )
