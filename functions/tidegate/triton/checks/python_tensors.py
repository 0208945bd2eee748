"""Tensor names, data types and model names in a model's code, where the code states them, beside the config.

Names that are computed are left alone. What a name can be is followed through constants, loops over constants and
attributes that are set to constants; no further.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tritonclient.grpc.model_config_pb2 import TYPE_BF16

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder, Repository, by_name
from tidegate.triton.checks.numpy_types import TYPES_OF_NUMPY, numpy_type
from tidegate.triton.checks.python_source import UTILITIES, Module, Sources

Names = frozenset[str]


@dataclass(slots=True)
class Constants:
    """What names and attributes of a module can be, as far as they are texts: None where anything else is assigned."""

    values: dict[str, Names | None] = field(default_factory=dict)

    def add(self, name: str, value: Names | None) -> None:
        """Note an assignment."""
        before = self.values.get(name, frozenset())
        self.values[name] = None if value is None or before is None else before | value

    def texts(self, node: ast.expr) -> Names | None:
        """The texts that an expression can be; None where that is unknown."""
        match node:
            case ast.Constant(value=str()):
                return frozenset({str(node.value)})
            case ast.Name():
                return self.values.get(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                return self.values.get(f"self.{node.attr}")
            case ast.IfExp():
                one, other = self.texts(node.body), self.texts(node.orelse)
                return None if one is None or other is None else one | other
            case _:
                return None

    def items(self, node: ast.expr) -> Names | None:
        """The texts that a loop over an expression goes through."""
        match node:
            case ast.Tuple() | ast.List() | ast.Set():
                each = [self.texts(item) for item in node.elts]
                return None if None in each else frozenset().union(*(names for names in each if names is not None))
            case ast.Dict():
                keys = [self.texts(key) if key is not None else None for key in node.keys]
                return None if None in keys else frozenset().union(*(names for names in keys if names is not None))
            case ast.Name():
                return self.values.get(f"{node.id}[]")
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                return self.values.get(f"self.{node.attr}[]")
            case ast.Call(func=ast.Name(id="sorted" | "list" | "tuple" | "set" | "reversed"), args=[only]):
                return self.items(only)
            case ast.Call(func=ast.Attribute(attr="keys"), args=[]):
                return self.items(node.func.value) if isinstance(node.func, ast.Attribute) else None
            case _:
                return None


def check_python_tensors(
    model: ModelFolder,
    sources: Sources,
    module: Module,
    repository: Repository,
    completed: Mapping[str, Names | None],
) -> None:
    """Check the names and types that `model.py`, and the modules beside it that it reaches, state.

    `completed` has what the code adds to the config: names of each kind, `input` and `output`.
    """
    made: set[str] = set()
    complete = True
    modules = list(sources.reachable(module))
    calls_models = any(_is_called(each.tree, "InferenceRequest") for each in modules)
    inputs, outputs = (_declared(model, kind, completed[kind]) for kind in ("input", "output"))
    undeclared: list[tuple[Module, ast.Call, str]] = []
    for each in modules:
        constants = _constants(each.tree)
        aliases = _aliases(each.tree)
        answers, scratch = _answers(each.tree, aliases), _scratch(each.tree)
        for call in (node for node in ast.walk(each.tree) if isinstance(node, ast.Call)):
            name = _utility(call, aliases)
            if name in ("get_input_tensor_by_name", "get_input_config_by_name"):
                _check_name(model, each, call, constants, "input", inputs)
            elif name == "get_output_config_by_name":
                _check_name(model, each, call, constants, "output", outputs)
            elif name in ("Tensor", "Tensor.from_dlpack"):
                texts = _tensor_names(call, constants)
                complete = complete and texts is not None
                made |= texts or frozenset()
                if (not calls_models and id(call) not in scratch) or id(call) in answers:
                    undeclared += [(each, call, text) for text in sorted(texts or ()) if text not in outputs]
                    _check_type(model, each, call, texts)
            elif name == "InferenceRequest":
                _check_called_model(model, each, call, constants, repository)
        complete = complete and not _is_mentioned(each.tree, aliases)
    _check_bfloats(model, modules)
    missing = _check_not_made(model, module, made, complete and bool(made) and not calls_models)
    if outputs and model.config.whole():
        for place, call, name in undeclared:
            # Where every declared output is made, the answer is right and Triton drops what is too much.
            kind = "code-tensor" if missing or not complete or calls_models else "code-undeclared"
            hint = did_you_mean(name, set(outputs), "output")
            model.report(kind, f"the config has no output {name!r}", hint, file=place.file, line=call.lineno)


def called_models(sources: Sources, module: Module) -> Names:
    """The models that `model.py`, and the modules beside it that it reaches, call and name."""
    found: set[str] = set()
    for each in sources.reachable(module):
        constants, aliases = _constants(each.tree), _aliases(each.tree)
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Call) and _utility(node, aliases) == "InferenceRequest":
                found |= _called_names(node, constants)
    return frozenset(found)


def _called_names(call: ast.Call, constants: Constants) -> Names:
    argument = _argument(call, 3, "model_name")
    return (constants.texts(argument) if argument is not None else None) or frozenset()


def _check_bfloats(model: ModelFolder, modules: list[Module]) -> None:
    """Report BF16 inputs that the code reads as arrays: numpy has no such type, and as_numpy raises."""
    names = {tensor.name for tensor in model.message.input if tensor.data_type == TYPE_BF16}
    if not names:
        return
    uses = list(_read_as_arrays(modules))
    read = {name for inputs in uses if inputs is not None and inputs <= names for name in inputs}
    # Where the code does not say which input it reads, it can only be one of these, and nothing else reads them.
    if None in uses and names == model.input_names and not any(_reads_otherwise(each.tree) for each in modules):
        read |= names
    for number, tensor in enumerate(model.message.input):
        if tensor.name in read:
            line = model.config.line("input", number, "data_type")
            message = f"input {tensor.name!r} is TYPE_BF16, of which as_numpy raises: every request fails"
            model.report("code-data-type", message, "read it with to_dlpack(), or declare TYPE_FP32", line=line)


def _read_as_arrays(modules: list[Module]) -> Iterator[Names | None]:
    """For each use of `as_numpy`, the inputs on which it can be; None where that is unknown."""
    for each in modules:
        constants, aliases = _constants(each.tree), _aliases(each.tree)
        values: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(each.tree):
            for target, value, is_loop in _assignments(node):
                for name in (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)):
                    values.setdefault(name, []).append(None if is_loop else value)
        for node in ast.walk(each.tree):
            if isinstance(node, ast.Attribute) and node.attr == "as_numpy":
                assigned = values.get(node.value.id, []) if isinstance(node.value, ast.Name) else [node.value]
                yield _input_read(assigned[0], constants, aliases) if len(assigned) == 1 else None


def _input_read(tensor: ast.expr | None, constants: Constants, aliases: dict[str, str]) -> Names | None:
    """The inputs that an expression can be; None where that is unknown."""
    if not isinstance(tensor, ast.Call) or _utility(tensor, aliases) != "get_input_tensor_by_name":
        return None
    argument = _argument(tensor, 1, "name")
    return None if argument is None else constants.texts(argument)


def _reads_otherwise(tree: ast.Module) -> bool:
    """Whether code may read a tensor by another way than as_numpy, or pass it on as it is."""
    ways = {"to_dlpack", "from_dlpack", "__dlpack__", "InferenceRequest"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ways)
        or (isinstance(node, ast.Name) and node.id in ways)
        or (isinstance(node, ast.alias) and node.name.rpartition(".")[2] in ways)
        for node in ast.walk(tree)
    )


def _declared(model: ModelFolder, kind: str, added: Names | None) -> Names:
    """The names that code may use: those of the config, and those that its own hook adds; empty where it adds unknown ones."""
    names = model.input_names if kind == "input" else model.output_names
    return frozenset() if added is None else names | added if names else frozenset()


def _constants(tree: ast.Module) -> Constants:
    """What every name of a module can be, scopes taken together."""
    constants = Constants()
    for _ in range(2):
        # The second round knows the constants that the first has found.
        fresh = Constants(dict(constants.values))
        found = Constants()
        for node in ast.walk(tree):
            for target, value, is_loop in _assignments(node):
                _bind(target, value, is_loop, fresh, found)
        constants = found
    return constants


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None, bool]]:
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
    """Bind `a, b = …`: item by item where both sides are written out, and what loops give beside the names."""
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


def _aliases(tree: ast.Module) -> dict[str, str]:
    """The names under which a module knows the utilities of the backend, and single things of theirs."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: "" for alias in node.names if alias.name in UTILITIES}
        elif isinstance(node, ast.ImportFrom) and node.module in UTILITIES:
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
    return aliases


def _utility(call: ast.Call, aliases: dict[str, str]) -> str:
    """The name of the backend's utility that is called, with its dots; empty for every other call."""
    parts: list[str] = []
    node: ast.expr = call.func
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in aliases:
        return ".".join(filter(None, [aliases[node.id], *parts]))
    return ""


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if any(isinstance(argument, ast.Starred) for argument in call.args[: position + 1]):
        return None
    return call.args[position] if position < len(call.args) else None


def _check_name(
    model: ModelFolder, module: Module, call: ast.Call, constants: Constants, kind: str, declared: Names
) -> None:
    argument = _argument(call, 1, "name")
    texts = constants.texts(argument) if argument is not None else None
    if not declared or not model.config.whole():
        return
    for name in sorted(texts or ()):
        if name not in declared:
            hint = did_you_mean(name, set(declared), kind)
            message = f"the config has no {kind} {name!r}"
            model.report("code-tensor", message, hint, file=module.file, line=call.lineno)


def _tensor_names(call: ast.Call, constants: Constants) -> Names | None:
    argument = _argument(call, 0, "name")
    return constants.texts(argument) if argument is not None else None


def _check_type(model: ModelFolder, module: Module, call: ast.Call, texts: Names | None) -> None:
    declared = by_name(model.message.output)
    if not model.config.whole():
        return
    value = _argument(call, 1, "numpy_array")
    made = numpy_type(value) if value is not None else None
    if made is None or texts is None or len(texts) != 1 or not texts <= set(declared):
        return
    (name,) = texts
    wanted = declared[name].data_type
    types = declared[name].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    if not wanted or wanted not in types or types[wanted].name in TYPES_OF_NUMPY.get(made, ()):
        return
    hint = f"convert it to {types[wanted].name}, or correct the config"
    if made == "str":
        hint = "text goes out as bytes: .astype(np.object_) of encoded text"
    message = f"output {name!r} is made as numpy {made}, declared is {types[wanted].name}"
    model.report("code-data-type", message, hint, file=module.file, line=call.lineno)


def _check_not_made(model: ModelFolder, module: Module, made: set[str], complete: bool) -> bool:
    """Report declared outputs that the code never makes, where every name that it makes is known; whether there are any."""
    if not complete:
        return False
    missing = False
    for number, tensor in enumerate(model.message.output):
        if tensor.name and tensor.name not in made:
            line = model.config.line("output", number, "name")
            message = f"output {tensor.name!r} is made nowhere in {module.file}"
            hint = "make it, or remove it: Triton answers without it and says nothing"
            model.report("code-tensor", message, hint, line=line)
            missing = True
    return missing


def _check_called_model(
    model: ModelFolder, module: Module, call: ast.Call, constants: Constants, repository: Repository
) -> None:
    for name in sorted(_called_names(call, constants)):
        if repository.model(name) is None:
            hint = did_you_mean(name, set(repository.names()), "model")
            message = f"the code calls model {name!r}, which is not there"
            model.report("step-missing", message, hint, file=module.file, line=call.lineno)
        else:
            message = f"the code calls model {name!r}, which is not loaded with {model.name!r}"
            hint = "make it a step of an ensemble, or serve it by a rule on the same shards"
            model.report("code-model", message, hint, file=module.file, line=call.lineno)


def _is_called(tree: ast.Module, name: str) -> bool:
    aliases = _aliases(tree)
    return any(isinstance(node, ast.Call) and _utility(node, aliases) == name for node in ast.walk(tree))


def _is_mentioned(tree: ast.Module, aliases: dict[str, str]) -> bool:
    """Whether the class of tensors is used in another way than by a call, so that others may be made."""
    called: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called |= {id(part) for part in ast.walk(node.func)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "Tensor" and isinstance(node.value, ast.Name):
            known = node.value.id in aliases
        else:
            known = isinstance(node, ast.Name) and aliases.get(node.id) == "Tensor"
        if known and id(node) not in called:
            return True
    return False


def _answers(tree: ast.Module, aliases: dict[str, str]) -> set[int]:
    """The calls that stand inside a response: what is made there is an output, also where other models are called."""
    responses = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and _utility(node, aliases) == "InferenceResponse"
    ]
    return {id(inner) for response in responses for inner in ast.walk(response)}


def _scratch(tree: ast.Module) -> set[int]:
    """The tensors that never leave the code: only attributes of theirs are used, as in `tensor.as_numpy()`."""
    held = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) in held}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if len(names) == len(node.targets) and all(_only_held(tree, name, held) for name in names):
                found.add(id(node.value))
    return found


def _only_held(tree: ast.Module, name: str, held: set[int]) -> bool:
    reads = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)
    return all(id(node) in held for node in reads if isinstance(node.ctx, ast.Load))
