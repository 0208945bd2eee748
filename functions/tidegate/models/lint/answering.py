"""Models that load and then answer no request: decoupled responses, text correlation IDs, configs that Triton completes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from tidegate.models.config import has_text_ids, is_decoupled
from tidegate.models.lint.folder import CheckedFolder, Repository
from tidegate.models.lint.python_source import Module, Sources
from tidegate.models.lint.tensors import completes
from tidegate.models.python_code import assigned_to
from tidegate.models.textproto import Place


def check_answering(
    model: CheckedFolder, repository: Repository, completed: Mapping[str, frozenset[str] | None]
) -> None:
    """Check that a model that Triton loads can answer `infer`. `completed` are the names that its code adds to the config, of
    each kind: `input` and `output`."""
    check_decoupled(model, repository)
    if has_text_ids(model.config):
        message = "a text correlation ID: Triton 2.51 answers 400 unless the sequence_id has exactly 128 bytes"
        hint = "say data_type: TYPE_UINT64, and have callers send numbers"
        model.report("sequence-text-id", message, hint, at=("sequence_batching", 0, "control_input"))
    _check_completion(model, completed)


def check_decoupled(model: CheckedFolder, repository: Repository) -> None:
    if not is_decoupled(repository.configs_of(model.name)):
        return
    at: Place = ("model_transaction_policy",)
    reason = "its responses are decoupled"
    for number, step in enumerate(model.config.ensemble_scheduling.step):
        if is_decoupled(repository.configs_of(step.model_name)):
            at = ("ensemble_scheduling", 0, "step", number)
            reason = f"the responses of step {number + 1} ({step.model_name}) are decoupled"
    hint = "write `responses: stream` in the objectives that serve it, or answer each request once and set decoupled: false"
    model.report("decoupled", f"{reason}: Triton answers every infer request with 501", hint, at=at)


def _check_completion(model: CheckedFolder, completed: Mapping[str, frozenset[str] | None]) -> None:
    """Report inputs and outputs that the config leaves to Triton's completion."""
    config = model.text
    if not config.whole() or not model.versions or not completes(model):
        return
    open_kinds = [kind for kind in ("input", "output") if not getattr(model.config, kind)]
    hint = "declare it in config.pbtxt: deployed servers run with --disable-auto-complete-config unless set otherwise"
    if not config.present and model.backend:
        message = "there is no config.pbtxt, so the model loads only where servers complete configs"
        model.report("config-completed", message, hint, file="", line=0)
    elif open_kinds and model.backend:
        message = f"no {' and no '.join(open_kinds)} is declared: every request fails where servers complete no configs"
        model.report("config-completed", message, hint, line=1)
    elif model.backend == "python":
        for kind, declared in (("input", model.input_names), ("output", model.output_names)):
            for name in sorted((completed[kind] or frozenset()) - declared):
                message = f"auto_complete_config adds {kind} {name!r}, which the config does not declare"
                model.report("config-completed", message, hint, at=(kind,))


def completed_names(code: Iterable[tuple[Sources, Module]], kind: str) -> frozenset[str] | None:
    """Return the names of the inputs or outputs (`kind`) that the code adds, the `model.py` of each version; None if unknown."""
    names: set[str] = set()
    for sources, module in code:
        for each in sources.reachable(module):
            for node in ast.walk(each.tree):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == f"add_{kind}":
                    found = _names(node.args[0], each.tree) if node.args else None
                    if found is None:
                        return None
                    names |= found
    return frozenset(names)


def _names(argument: ast.expr, tree: ast.Module) -> set[str] | None:
    """Return the names of the tensors that an argument can be: a dictionary, or a name of dictionaries; None if unknown."""
    if isinstance(argument, ast.Dict):
        for key, value in zip(argument.keys, argument.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "name" and isinstance(value, ast.Constant):
                return {str(value.value)}
        return None
    if not isinstance(argument, ast.Name):
        return None
    bound = assigned_to(tree, argument.id)
    for node in ast.walk(tree):
        match node:
            case ast.For(target=ast.Name(id=name), iter=items) if name == argument.id:
                lists = assigned_to(tree, items.id) if isinstance(items, ast.Name) else []
                items = lists[0] if len(lists) == 1 else items
                bound += items.elts if isinstance(items, ast.List | ast.Tuple) else [items]
            case _:
                pass
    if not bound:
        return None
    names: set[str] = set()
    for each in bound:
        found = _names(each, tree) if isinstance(each, ast.Dict) else None
        if found is None:
            return None
        names |= found
    return names
