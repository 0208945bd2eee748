"""Checks that `execute` returns a list with one response for each request, made of tensors."""

from __future__ import annotations

import ast

from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.numpy_types import is_scalar
from tidegate.models.lint.python_source import Module, Sources
from tidegate.models.python_code import Function, assigned_to, called_name, own_nodes

FINAL = "TRITONSERVER_RESPONSE_COMPLETE_FINAL"
"""The flag of the last response of a request."""

RIGHT = "return a list with one response for each request"


def check_execute(model: CheckedFolder, sources: Sources, main: Module, module: Module, function: Function) -> None:
    """Check what `execute` returns. `module` defines it; `main`, the `model.py`, may import that."""
    modules = sources.reachable(main)
    sends = any(
        isinstance(node, ast.Attribute) and node.attr == "get_response_sender"
        for each in modules
        for node in ast.walk(each.tree)
    )
    nodes = list(own_nodes(function.body))
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes)
    returns = [node for node in nodes if isinstance(node, ast.Return)]
    if not returns and not yields and _raises(function.body):
        module.report(function, "python-execute", "execute only raises: every request fails with status 500", RIGHT)
        return
    if sends and not any(_may_say_last(node) for each in modules for node in ast.walk(each.tree)):
        message = f"a response sender is used, and nothing sends {FINAL}: Triton never answers"
        module.report(function, "python-execute", message, f"sender.send(flags=pb_utils.{FINAL})")
    if model.config.model_transaction_policy.decoupled or sends:
        return
    if yields:
        message = "execute yields, so it gives a generator and no list"
        module.report(function, "python-execute", message, "collect the responses and return them")
        return
    values = [node.value for node in returns if node.value is not None and not _is_none(node.value)]
    if not values:
        module.report(function, "python-execute", "execute returns nothing: Triton never answers", RIGHT)
        return
    for node in returns:
        if node.value is None or _is_none(node.value):
            module.report(node, "python-execute", "execute returns nothing here: Triton never answers", RIGHT)
    for value in values:
        _check_returned(model, module, function, value)
    _check_early_return(module, function)


def check_responses(module: Module) -> None:
    """Check the arguments of responses and tensors, in any function of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            _check_call(module, node)
        elif isinstance(node, Function) and node.name == "execute":
            _check_filled(module, node)


def _raises(body: list[ast.stmt]) -> bool:
    """Return whether statements, none of which returns, always raise an exception."""
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


def _may_say_last(node: ast.AST) -> bool:
    """Return whether code names the flag of the last response, or calls `send` with flags that may be it."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name) | ast.Constant(value=name):
            return bool(name == FINAL)
        case ast.Call(func=ast.Attribute(attr="send")):
            flags = [word.value for word in node.keywords if word.arg in ("flags", None)] + node.args[1:2]
            starred = [argument for argument in node.args if isinstance(argument, ast.Starred)]
            return any(not isinstance(each, ast.Constant) or each.value not in (0, None) for each in flags + starred)
        case _:
            return False


def _check_returned(model: CheckedFolder, module: Module, function: Function, value: ast.expr) -> None:
    problem = _problem_of(value)
    if (
        problem is None
        and isinstance(value, ast.List)
        and not any(isinstance(each, ast.Starred) for each in value.elts)
    ):
        joined = model.config.HasField("dynamic_batching") and model.config.max_batch_size > 1
        if (joined or not value.elts) and not _guarded(function, value):
            plural = "" if len(value.elts) == 1 else "s"
            problem = f"execute returns {len(value.elts)} response{plural}, however many requests come"
    if problem is not None:
        module.report(value, "python-execute", problem, RIGHT)


def _problem_of(value: ast.expr) -> str | None:
    """Return why a returned value cannot be a list of responses."""
    match value:
        case ast.Call(func=ast.Name(id="tuple" | "iter" | "set" as name)):
            return f"execute returns {name}(…) and no list"
        case ast.Call() if called_name(value) in ("InferenceResponse", "Tensor"):
            return f"execute returns one {called_name(value)} and no list"
        case ast.ListComp(elt=ast.Constant(value=None)):
            return "execute returns None for each request: Triton never answers"
        case ast.Dict() | ast.DictComp():
            noun = "a dictionary"
        case ast.GeneratorExp():
            noun = "a generator"
        case ast.Tuple():
            noun = "a tuple"
        case ast.Set() | ast.SetComp():
            noun = "a set"
        case ast.Constant() | ast.JoinedStr():
            noun = "a constant"
        case _:
            return None
    return f"execute returns {noun} and no list"


def _guarded(function: Function, value: ast.expr) -> bool:
    """Return whether a returned list depends on a condition, which may test the number of requests."""
    return any(
        isinstance(node, ast.If | ast.Try | ast.Match | ast.For) and any(inner is value for inner in ast.walk(node))
        for node in own_nodes(function.body)
    )


def _check_early_return(module: Module, function: Function) -> None:
    """Report a return inside the loop over the requests."""
    arguments = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    requests = arguments[-1] if arguments else ""
    for node in own_nodes(function.body):
        if isinstance(node, ast.For) and any(
            isinstance(each, ast.Name) and each.id == requests for each in ast.walk(node.iter)
        ):
            for statement in node.body:
                if isinstance(statement, ast.Return):
                    message = "execute returns inside its loop: only the first request is answered"
                    module.report(statement, "python-execute", message, "move the return out of the loop")


def _check_call(module: Module, call: ast.Call) -> None:
    name = called_name(call)
    if name == "InferenceResponse" and call.args and isinstance(call.args[0], ast.Call):
        if called_name(call.args[0]) == "Tensor":
            message = "InferenceResponse is given one tensor and no list"
            module.report(call, "code-response", message, "InferenceResponse([tensor])")
    elif (
        name == "Tensor"
        and len(call.args) == 2
        and (isinstance(call.args[1], ast.Constant | ast.List) or is_scalar(call.args[1]))
    ):
        message = f"Tensor is given {ast.unparse(call.args[1])[:40]} where it takes a numpy array"
        module.report(call, "code-response", message, 'Tensor("NAME", array)')


def _check_filled(module: Module, function: Function) -> None:
    """Report a list that is returned and never filled."""
    for node in own_nodes(function.body):
        if not isinstance(node, ast.Return) or not isinstance(node.value, ast.Name):
            continue
        name = node.value.id
        made = assigned_to(function, name)
        uses = [each for each in ast.walk(function) if isinstance(each, ast.Name) and each.id == name]
        returned = sum(
            isinstance(each, ast.Return) and isinstance(each.value, ast.Name) and each.value.id == name
            for each in ast.walk(function)
        )
        if len(made) == 1 and isinstance(made[0], ast.List) and not made[0].elts and len(uses) == 1 + returned:
            hint = f"{name}.append(…) for each request"
            module.report(node, "python-execute", f"execute returns {name!r}, which nothing is ever added to", hint)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
