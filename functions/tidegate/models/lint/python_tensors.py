"""Compares tensor names, data types and model names in a model's code with the config. Computed names are left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.language.words import did_you_mean
from tidegate.models.config import NO_TYPE, data_type
from tidegate.models.lint.folder import CheckedFolder, Repository, by_name
from tidegate.models.lint.numpy_types import TYPES_OF_NUMPY, numpy_type
from tidegate.models.lint.python_constants import Constants, Names, assignments, constants_of
from tidegate.models.lint.python_source import UTILITIES, Module, Sources


@dataclass(frozen=True, slots=True)
class _Code:
    """A module, the texts that its names can be, and its aliases of the backend's utilities."""

    module: Module
    constants: Constants
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, module: Module) -> _Code:
        return cls(module, constants_of(module.tree), _aliases(module.tree))

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield the calls of the backend's utilities, with the utility's name."""
        for node in ast.walk(self.module.tree):
            if isinstance(node, ast.Call) and (name := self.utility(node)):
                yield node, name

    def utility(self, call: ast.Call) -> str:
        """Return the dotted name of the backend's utility that is called; empty for another call."""
        parts: list[str] = []
        node: ast.expr = call.func
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.aliases:
            return ""
        return ".".join(filter(None, [self.aliases[node.id], *parts]))

    def texts(self, call: ast.Call, position: int, name: str) -> Names | None:
        """Return the texts that an argument can be; None if that is unknown."""
        argument = _argument(call, position, name)
        return None if argument is None else self.constants.texts(argument)

    def called_models(self, call: ast.Call) -> Names:
        """Return the models that an `InferenceRequest` can be for."""
        return self.texts(call, 3, "model_name") or frozenset()


def check_python_tensors(
    model: CheckedFolder,
    sources: Sources,
    module: Module,
    repository: Repository,
    completed: Mapping[str, Names | None],
) -> None:
    """Check the names and types in `model.py` and in the modules that it reaches.

    `completed` are the names that the code adds to the config, of each kind: `input` and `output`.
    """
    made: set[str] = set()
    is_complete = True
    codes = [_Code.of(each) for each in sources.reachable(module)]
    calls_models = any(name == "InferenceRequest" for code in codes for _, name in code.calls())
    inputs, outputs = (_declared(model, kind, completed[kind]) for kind in ("input", "output"))
    undeclared: list[tuple[Module, ast.Call, str]] = []
    for code in codes:
        answers, scratch = _answers(code), _scratch(code.module.tree)
        for call, name in code.calls():
            if name in ("get_input_tensor_by_name", "get_input_config_by_name"):
                _check_name(model, code, call, "input", inputs)
            elif name == "get_output_config_by_name":
                _check_name(model, code, call, "output", outputs)
            elif name in ("Tensor", "Tensor.from_dlpack"):
                texts = code.texts(call, 0, "name")
                is_complete = is_complete and texts is not None
                made |= texts or frozenset()
                if (not calls_models and id(call) not in scratch) or id(call) in answers:
                    undeclared += [(code.module, call, text) for text in sorted(texts or ()) if text not in outputs]
                    _check_type(model, code.module, call, texts)
            elif name == "InferenceRequest":
                _check_called_models(model, code, call, repository)
        is_complete = is_complete and not _is_mentioned(code)
    _check_bfloats(model, codes)
    is_missing = is_complete and bool(made) and not calls_models and _check_not_made(model, module, made)
    if outputs and model.text.whole():
        # If every declared output is made, Triton drops the others, and the answer is right.
        kind = "code-tensor" if is_missing or not is_complete or calls_models else "code-undeclared"
        for place, call, name in undeclared:
            place.report(call, kind, f"the config has no output {name!r}", did_you_mean(name, set(outputs), "output"))


def called_models(sources: Sources, module: Module) -> Names:
    """Return the models that `model.py` and the modules that it reaches call by a literal name."""
    codes = map(_Code.of, sources.reachable(module))
    calls = ((code, call) for code in codes for call, name in code.calls() if name == "InferenceRequest")
    return frozenset().union(*(code.called_models(call) for code, call in calls))


def _check_bfloats(model: CheckedFolder, codes: list[_Code]) -> None:
    """Report BF16 inputs that the code reads by `as_numpy`, which raises, as numpy has no such type."""
    names = {tensor.name for tensor in model.config.input if data_type(tensor) == "TYPE_BF16"}
    if not names:
        return
    uses = list(_read_as_arrays(codes))
    read = {name for inputs in uses if inputs is not None and inputs <= names for name in inputs}
    # An unknown input can only be one of these if there are no others, and nothing else reads them.
    if None in uses and names == model.input_names and not any(_reads_otherwise(each.module.tree) for each in codes):
        read |= names
    for tensor in model.fields("input"):
        if tensor.value.name in read:
            message = f"input {tensor.value.name!r} is TYPE_BF16, of which as_numpy raises: every request fails"
            tensor.report("code-data-type", message, "read it with to_dlpack(), or declare TYPE_FP32", "data_type")


def _read_as_arrays(codes: list[_Code]) -> Iterator[Names | None]:
    """Yield for each use of `as_numpy` the inputs that it may be of; None if that is unknown."""
    for code in codes:
        values: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(code.module.tree):
            for target, value, is_loop in assignments(node):
                for name in (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)):
                    values.setdefault(name, []).append(None if is_loop else value)
        for node in ast.walk(code.module.tree):
            if isinstance(node, ast.Attribute) and node.attr == "as_numpy":
                assigned = values.get(node.value.id, []) if isinstance(node.value, ast.Name) else [node.value]
                read = assigned[0] if len(assigned) == 1 else None
                if isinstance(read, ast.Call) and code.utility(read) == "get_input_tensor_by_name":
                    yield code.texts(read, 1, "name")
                else:
                    yield None


def _reads_otherwise(tree: ast.Module) -> bool:
    """Return whether code may read a tensor otherwise than by `as_numpy`, or pass it on."""
    ways = {"to_dlpack", "from_dlpack", "__dlpack__", "InferenceRequest"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ways)
        or (isinstance(node, ast.Name) and node.id in ways)
        or (isinstance(node, ast.alias) and node.name.rpartition(".")[2] in ways)
        for node in ast.walk(tree)
    )


def _declared(model: CheckedFolder, kind: str, added: Names | None) -> Names:
    """Return the names that code may use: the config's, and those that its own hook adds; empty if these are unknown."""
    names = model.input_names if kind == "input" else model.output_names
    return frozenset() if added is None else names | added if names else frozenset()


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Return a module's names of the backend's utilities: empty for the module itself, else the name in it."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: "" for alias in node.names if alias.name in UTILITIES}
        elif isinstance(node, ast.ImportFrom) and node.module in UTILITIES:
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
    return aliases


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if any(isinstance(argument, ast.Starred) for argument in call.args[: position + 1]):
        return None
    return call.args[position] if position < len(call.args) else None


def _check_name(model: CheckedFolder, code: _Code, call: ast.Call, kind: str, declared: Names) -> None:
    if declared and model.text.whole():
        for name in sorted((code.texts(call, 1, "name") or frozenset()) - declared):
            hint = did_you_mean(name, set(declared), kind)
            code.module.report(call, "code-tensor", f"the config has no {kind} {name!r}", hint)


def _check_type(model: CheckedFolder, module: Module, call: ast.Call, texts: Names | None) -> None:
    declared = by_name(model.config.output)
    if not model.text.whole():
        return
    value = _argument(call, 1, "numpy_array")
    made = numpy_type(value) if value is not None else None
    if made is None or texts is None or len(texts) != 1 or not texts <= set(declared):
        return
    (name,) = texts
    wanted = data_type(declared[name])
    if wanted == NO_TYPE or wanted in TYPES_OF_NUMPY.get(made, ()):
        return
    hint = f"convert it to {wanted}, or correct the config"
    if made == "str":
        hint = "text goes out as bytes: .astype(np.object_) of encoded text"
    module.report(call, "code-data-type", f"output {name!r} is made as numpy {made}, declared is {wanted}", hint)


def _check_not_made(model: CheckedFolder, module: Module, made: set[str]) -> bool:
    """Report declared outputs that the code never makes; return whether there are any."""
    missing = [each for each in model.fields("output") if each.value.name and each.value.name not in made]
    for tensor in missing:
        hint = "make it, or remove it: Triton answers without it and says nothing"
        tensor.report("code-tensor", f"output {tensor.value.name!r} is made nowhere in {module.file}", hint, "name")
    return bool(missing)


def _check_called_models(model: CheckedFolder, code: _Code, call: ast.Call, repository: Repository) -> None:
    for name in sorted(code.called_models(call)):
        if repository.model(name) is None:
            hint = did_you_mean(name, set(repository.names()), "model")
            code.module.report(call, "step-missing", f"the code calls model {name!r}, which is not there", hint)
        else:
            message = f"the code calls model {name!r}, which is not loaded with {model.name!r}"
            hint = "make it a step of an ensemble, or serve it by a rule on the same shards"
            code.module.report(call, "code-model", message, hint)


def _is_mentioned(code: _Code) -> bool:
    """Return whether the class `Tensor` is used other than by calling it, so that unseen ones may be made."""
    nodes = list(ast.walk(code.module.tree))
    called = {id(part) for node in nodes if isinstance(node, ast.Call) for part in ast.walk(node.func)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr == "Tensor" and isinstance(node.value, ast.Name):
            is_class = node.value.id in code.aliases
        else:
            is_class = isinstance(node, ast.Name) and code.aliases.get(node.id) == "Tensor"
        if is_class and id(node) not in called:
            return True
    return False


def _answers(code: _Code) -> set[int]:
    """Return the ids of the nodes inside responses: tensors made there are outputs, even if other models are called."""
    responses = (call for call, name in code.calls() if name == "InferenceResponse")
    return {id(inner) for response in responses for inner in ast.walk(response)}


def _scratch(tree: ast.Module) -> set[int]:
    """Return the ids of tensors of which only attributes are used, as in `tensor.as_numpy()`: they are no outputs."""
    held = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) in held}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            reads = (each for each in ast.walk(tree) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load))
            if all(isinstance(target, ast.Name) for target in node.targets) and all(
                id(read) in held for read in reads if read.id in names
            ):
                found.add(id(node.value))
    return found
