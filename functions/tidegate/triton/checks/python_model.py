"""The class that Triton calls: it is there, its methods can be called, and `execute` gives a list of responses."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.python_source import CLASS, Module, Sources
from tidegate.triton.python_code import Function, may_have, may_set, own_nodes

ARGUMENTS = {"initialize": 1, "execute": 1, "finalize": 0, "auto_complete_config": 1, "is_ready": 0}
"""How many arguments Triton gives each method, beside `self`."""

FINAL = "TRITONSERVER_RESPONSE_COMPLETE_FINAL"
"""The flag of the last response of a request."""

MAX_HOPS = 8
CLOSE = 0.8
"""How alike two names are, from 0 to 1, for one to be taken for the other misspelt."""

AT_LOAD = "the load would hang"


@dataclass(frozen=True, slots=True)
class Method:
    """A method and the module that defines it; `owner` is the class."""

    module: Module
    owner: ast.ClassDef
    function: Function


def check_python_model(model: ModelFolder, sources: Sources, module: Module) -> None:
    """Check the class of a `model.py` that parses."""
    found = find_class(sources, module)
    if found is None:
        close = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        hint = f"rename {close[0]!r}" if len(close) == 1 else f"define class {CLASS}"
        if CLASS in close:
            hint = "move it out of what never runs in a server"
        model.report(
            "python-class", f"there is no class {CLASS}, which Triton looks for", hint, file=module.file, line=1
        )
        _check_endless(model, module, module.tree.body, AT_LOAD)
        return
    place, owner = found
    for each in sources.reachable(module):
        _check_endless(model, each, each.tree.body, AT_LOAD)
    if owner is None:
        return
    methods, complete = methods_of(sources, place, owner)
    for name, method in methods.items():
        if name in ARGUMENTS:
            _check_signature(model, method)
    _check_misspelt(model, module, methods)
    _check_assigned(model, place, owner)
    if "__init__" in methods:
        _check_signature(model, methods["__init__"], 0)
    if "execute" in methods:
        _check_execute(model, module, sources, methods["execute"])
    elif complete and not any(may_set(each.tree, "execute") for each in sources.reachable(module)):
        hint = "def execute(self, requests): … returns a list with one response for each request"
        model.report("python-execute", f"class {CLASS} has no method execute", hint, file=place.file, line=owner.lineno)
    for name, when in (("__init__", AT_LOAD), ("initialize", AT_LOAD), ("execute", "every request would hang")):
        if name in methods:
            _check_endless(model, methods[name].module, methods[name].function.body, when)


def find_class(
    sources: Sources, module: Module, name: str = CLASS, hops: int = 0
) -> tuple[Module, ast.ClassDef | None] | None:
    """Where a class is defined, through imports beside the model.

    None: nothing of that name is there. A class of None: it is there, and where it comes from cannot be seen.
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
    """Whether a statement is `if __name__ == "__main__"`, which is never so in a server."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and isinstance(node.test.left, ast.Name)
        and node.test.left.id == "__name__"
    )


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
    """The methods of a class with those that it inherits, and whether these are all: every base could be seen."""
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
    methods.update({name: Method(module, owner, node) for name, node in defined.items()})
    stored = {node.id for node in own if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for name in (*ARGUMENTS, "__init__"):
        if name in stored or (name not in defined and may_have(owner, name)):
            # It is assigned or imported: it is there, and what it is cannot be seen.
            methods.pop(name, None)
            complete = False
    return methods, complete


def _check_misspelt(model: ModelFolder, module: Module, methods: Mapping[str, Method]) -> None:
    """Report a method that nothing calls and whose name is almost one of Triton's."""
    used = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    for name, method in methods.items():
        close = get_close_matches(name, ARGUMENTS.keys() - methods.keys(), 1, CLOSE)
        # A missing `execute` is a finding of its own.
        if close and close[0] != "execute" and name not in ARGUMENTS and name not in used and not name.startswith("_"):
            message = f"nothing calls {name}"
            hint = f"did you mean {close[0]!r}, which Triton calls?"
            model.report("python-method", message, hint, file=method.module.file, line=method.function.lineno)


def _check_assigned(model: ModelFolder, module: Module, owner: ast.ClassDef) -> None:
    """Report `execute = None` and other constants, which cannot be called."""
    for node in owner.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        if any(isinstance(target, ast.Name) and target.id == "execute" for target in node.targets):
            message = f"execute is {node.value.value!r}, which cannot be called"
            hint = "def execute(self, requests)"
            model.report("python-execute", message, hint, file=module.file, line=node.lineno)


def _check_signature(model: ModelFolder, method: Method, given: int | None = None) -> None:
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
        model.report("python-signature", message, wanted, file=method.module.file, line=function.lineno)


def _check_execute(model: ModelFolder, module: Module, sources: Sources, method: Method) -> None:
    """Check what `execute` gives back; a decoupled model, or one that sends its responses itself, gives nothing."""
    function, file = method.function, method.module.file
    modules = list(sources.reachable(module))
    sends = any(
        isinstance(node, ast.Attribute) and node.attr == "get_response_sender"
        for each in modules
        for node in ast.walk(each.tree)
    )
    nodes = list(own_nodes(function.body))
    if not any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in nodes) and _raises(function.body):
        message = "execute only raises: every request fails with status 500"
        hint = "return a list with one response for each request"
        model.report("python-execute", message, hint, file=file, line=function.lineno)
        return
    if sends:
        _check_final(model, modules, method)
    if model.message.model_transaction_policy.decoupled or sends:
        return
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes):
        message = "execute yields, so it gives a generator and no list"
        model.report(
            "python-execute", message, "collect the responses and return them", file=file, line=function.lineno
        )
        return
    returns = [node for node in nodes if isinstance(node, ast.Return)]
    values = [node.value for node in returns if node.value is not None and not _is_none(node.value)]
    if not values:
        message = "execute returns nothing: Triton never answers"
        hint = "return a list with one response for each request"
        model.report("python-execute", message, hint, file=file, line=function.lineno)
        return
    for node in returns:
        if node.value is None or _is_none(node.value):
            hint = "return a list with one response for each request"
            model.report(
                "python-execute",
                "execute returns nothing here: Triton never answers",
                hint,
                file=file,
                line=node.lineno,
            )
    for value in values:
        _check_returned(model, file, function, value)
    _check_early_return(model, file, function)


def _raises(body: list[ast.stmt]) -> bool:
    """Whether statements that return nothing always end in an exception, as far as they show it."""
    for statement in body:
        match statement:
            case ast.Raise():
                return True
            case ast.If() if statement.orelse and _raises(statement.body) and _raises(statement.orelse):
                return True
            case ast.Try():
                handled = [_raises(handler.body) for handler in statement.handlers]
                inner = _raises(statement.body) or _raises(statement.orelse)
                if _raises(statement.finalbody) or (inner and all(handled)):
                    return True
            case _:
                pass
    return False


def _check_final(model: ModelFolder, modules: list[Module], method: Method) -> None:
    """Report code that sends responses itself and never says which is the last: the request would never end."""
    if not any(_may_say_last(node) for each in modules for node in ast.walk(each.tree)):
        message = f"a response sender is used, and nothing sends {FINAL}: Triton never answers"
        hint = f"sender.send(flags=pb_utils.{FINAL})"
        model.report("python-execute", message, hint, file=method.module.file, line=method.function.lineno)


def _may_say_last(node: ast.AST) -> bool:
    """Whether code names the flag of the last response, or gives `send` flags that may be it."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name) | ast.Constant(value=name):
            return bool(name == FINAL)
        case ast.Call(func=ast.Attribute(attr="send")):
            flags = [word.value for word in node.keywords if word.arg in ("flags", None)] + node.args[1:2]
            starred = [argument for argument in node.args if isinstance(argument, ast.Starred)]
            return any(not isinstance(each, ast.Constant) or each.value not in (0, None) for each in flags + starred)
        case _:
            return False


def _check_returned(model: ModelFolder, file: str, function: Function, value: ast.expr) -> None:
    hint = "return a list with one response for each request"
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("tuple", "iter", "set"):
        message = f"execute returns {value.func.id}(…) and no list"
        model.report("python-execute", message, hint, file=file, line=value.lineno)
    elif isinstance(value, ast.Call) and _called_name(value) in ("InferenceResponse", "Tensor"):
        message = f"execute returns one {_called_name(value)} and no list"
        model.report("python-execute", message, hint, file=file, line=value.lineno)
    elif isinstance(
        value,
        ast.Dict | ast.Constant | ast.JoinedStr | ast.DictComp | ast.GeneratorExp | ast.Set | ast.SetComp | ast.Tuple,
    ):
        message = f"execute returns {_noun(value)} and no list"
        model.report("python-execute", message, hint, file=file, line=value.lineno)
    elif isinstance(value, ast.ListComp) and _is_none(value.elt):
        message = "execute returns None for each request: Triton never answers"
        model.report("python-execute", message, hint, file=file, line=value.lineno)
    elif isinstance(value, ast.List) and not any(isinstance(item, ast.Starred) for item in value.elts):
        joined = model.message.HasField("dynamic_batching") and model.message.max_batch_size > 1
        if (joined or not value.elts) and not _guarded(function, value):
            message = f"execute returns {len(value.elts)} response{'' if len(value.elts) == 1 else 's'}, however many requests come"
            model.report("python-execute", message, hint, file=file, line=value.lineno)


def _guarded(function: Function, value: ast.expr) -> bool:
    """Whether a returned list stands under a condition, which may know how many requests there are."""
    return any(
        isinstance(node, ast.If | ast.Try | ast.Match | ast.For) and any(inner is value for inner in ast.walk(node))
        for node in own_nodes(function.body)
    )


def _check_early_return(model: ModelFolder, file: str, function: Function) -> None:
    """Report a return that ends the loop over the requests in its first turn."""
    arguments = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    requests = arguments[-1] if arguments else ""
    for node in own_nodes(function.body):
        if not isinstance(node, ast.For) or not any(
            isinstance(each, ast.Name) and each.id == requests for each in ast.walk(node.iter)
        ):
            continue
        for statement in node.body:
            if isinstance(statement, ast.Return):
                message = "execute returns inside its loop: only the first request is answered"
                hint = "move the return out of the loop"
                model.report("python-execute", message, hint, file=file, line=statement.lineno)


def _check_endless(model: ModelFolder, module: Module, body: list[ast.stmt], consequence: str) -> None:
    """Report a `while True` without a way out."""
    for node in own_nodes(body):
        if (
            isinstance(node, ast.While)
            and isinstance(node.test, ast.Constant)
            and node.test.value
            and _never_ends(node)
        ):
            message = f"this loop never ends: {consequence}"
            model.report("python-endless", message, "end it, or run it in a thread", file=module.file, line=node.lineno)


def _never_ends(loop: ast.While) -> bool:
    return not any(
        isinstance(node, ast.Break | ast.Return | ast.Raise | ast.Yield | ast.YieldFrom | ast.Await)
        or (isinstance(node, ast.Call) and _called_name(node) in ("exit", "_exit", "quit"))
        for node in own_nodes(loop.body)
    )


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _noun(value: ast.expr) -> str:
    match value:
        case ast.Dict() | ast.DictComp():
            return "a dictionary"
        case ast.GeneratorExp():
            return "a generator"
        case ast.Tuple():
            return "a tuple"
        case ast.Set() | ast.SetComp():
            return "a set"
        case _:
            return "a constant"
