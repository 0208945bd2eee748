"""The next version of a model: its folder, the ensembles that pin it, and the rules that name it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidegate.errors import ImmutableError, ModelConfigError
from tidegate.language.retarget import Renames, retargeted
from tidegate.model_layout import CONFIG, is_bytecode
from tidegate.model_units import check_name, read_units
from tidegate.models.config_edits import StepEdits, open_steps, renamed, repinned
from tidegate.models.folder import versions_in
from tidegate.ports import ModelStore, Unit


@dataclass(frozen=True, slots=True)
class NextVersion:
    """The changes that make a new version.

    Attributes:
        before: the version whose files in the folder become the new one.
        version: the new version.
        restored: the files of `before` as they were pushed, by path in the model's folder; None if they are unchanged, so that
            they are copied.
        copies: ensembles that were live, with the name of the copy that gets the new version.
        edits: files with their texts before and after; those of a copy have an empty text before.
    """

    model: str
    before: int
    version: int
    restored: Mapping[str, bytes] | None
    copies: Mapping[str, str] = field(default_factory=dict)
    edits: Mapping[Path, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


async def plan_version(
    models: Path,
    rules: Path | None,
    store: ModelStore | None,
    model: str,
    version: int | None,
    *,
    keep_pins: bool = False,
) -> NextVersion:
    """Plan the next version of a model.

    Args:
        models: the folder of models.
        rules: the rules directory; None leaves rules unchanged.
        store: the pushed models; without it, `version` or the last one is copied.
        model: the model's name.
        version: the version whose files were changed; None is the one that differs from what was pushed.
        keep_pins: leave references to the version before unchanged.

    Raises:
        ModelConfigError: there is no such model or version, or nothing to make a new version of.
        ImmutableError: the config was also changed, and was live.
        StoreError: the store did not answer.
    """
    folder = models / model
    here = read_units(model, folder)
    pushed = () if store is None else await store.versions(model)
    if store is None:
        before, restored = version or max(here.versions), None
    else:
        before, restored = await _changed(store, model, folder, version)
    if before not in here.versions:
        raise ModelConfigError(f"model {model!r} has no version {before} in {folder}; it has {_listed(here.versions)}")
    new = max(*here.versions, *pushed, before) + 1
    plan = NextVersion(model, before, new, restored)
    return plan if keep_pins else await _with_pins(plan, models, rules, store)


def apply_version(models: Path, plan: NextVersion) -> None:
    """Carry out a plan: first the new version's folder, then the edits.

    Raises:
        ModelConfigError: a file cannot be written, or was changed since the plan.
    """
    folder = models / plan.model
    old, new = folder / str(plan.before), folder / str(plan.version)
    try:
        for path, (before, _) in plan.edits.items():
            if before and _text(path) != before:
                raise ModelConfigError(f"{path} was changed meanwhile; run the command again")
        with tempfile.TemporaryDirectory(prefix=f".{plan.model}-", dir=models) as scratch:
            made = Path(scratch) / "version"
            if plan.restored is None:
                shutil.copytree(old, made, ignore=_bytecode)
                made.rename(new)
            else:
                for name, content in plan.restored.items():
                    target = made / Path(name).relative_to(str(plan.before))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                old.rename(new)
                made.rename(old)
        for ensemble, copy in plan.copies.items():
            shutil.copytree(models / ensemble, models / copy, ignore=_bytecode)
            _rename_variants(models / copy)
        for file, (_, after) in plan.edits.items():
            file.write_text(after, "utf-8")
    except OSError as error:
        raise _unwritten(error) from error


def copy_model(models: Path, source: str, name: str) -> Path:
    """Copy a model's folder to another name, also in its configs.

    Raises:
        ModelConfigError: there is no such model, or one of the new name, or a config is not UTF-8 text.
    """
    check_name(source)
    target = models / name
    if not (models / source).is_dir():
        raise ModelConfigError(
            f"there is no model {source!r} in {models}; `tidegate models pull {source} --to {models}` gets a pushed one"
        )
    if target.exists() or target.is_symlink():
        raise ModelConfigError(f"{target} is there already, and nothing is overwritten; choose another name")
    try:
        _check_texts(models / source)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=models) as scratch:
            made = Path(scratch) / name
            shutil.copytree(models / source, made, ignore=_bytecode)
            if (made / CONFIG).is_file():
                (made / CONFIG).write_text(renamed(_text(made / CONFIG), name), "utf-8")
            _rename_variants(made)
            made.rename(target)
    except OSError as error:
        raise _unwritten(error) from error
    return target


def _bytecode(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if is_bytecode(name)]


def _text(path: Path) -> str:
    """Return the text of a config. Raises `ModelConfigError` if it is not UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error


def _check_texts(folder: Path) -> None:
    """Refuse to edit a model's configs if one is not UTF-8, which the edit would lose. Raises `ModelConfigError`."""
    for config in (folder / CONFIG, *_variants(folder)):
        if config.is_file():
            _text(config)


def _variants(folder: Path) -> list[Path]:
    return sorted((folder / "configs").glob("*.pbtxt"))


def _unwritten(error: OSError) -> ModelConfigError:
    # `copytree` raises all its errors as one, without a file name.
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, why = error.args[0][0]
        return ModelConfigError(f"{source} cannot be copied: {why}")
    return ModelConfigError(f"{error.filename} cannot be written: {error.strerror}")


def _rename_variants(folder: Path) -> None:
    for config in _variants(folder):
        config.write_text(renamed(_text(config), folder.name), "utf-8")


async def _changed(
    store: ModelStore, model: str, folder: Path, version: int | None
) -> tuple[int, Mapping[str, bytes] | None]:
    """Return the version to make a new one of, and its pushed files if the folder has others."""
    here = read_units(model, folder)
    there = {each: tuple(await store.files(model, each)) for each in (None, *here.units)}
    changed = [
        each for each, files in here.units.items() if there[each] and there[each] != tuple(file.file for file in files)
    ]
    drafts = await store.pin([(model, each) for each, files in there.items() if files])
    if None in changed and (model, None) not in drafts:
        raise ImmutableError(
            model,
            (),
            f"model {model!r}: its config was changed, too, and was live; all versions share one config. Make another model "
            f"of it with `tidegate models new NAME --from {model}`, or restore it",
        )
    candidates = [each for each in changed if each is not None]
    if version is None and len(candidates) != 1:
        raise ModelConfigError(
            f"versions {_listed(candidates)} of model {model!r} were changed; name the one that is to become a new version: "
            f"`tidegate models version {model}/{candidates[0]}`"
            if candidates
            else f"no version of model {model!r} is other than it was pushed; change the files of one, or name one that is "
            f"copied: `tidegate models version {model}/{max(here.versions)}`"
        )
    before = candidates[0] if version is None else version
    if before not in candidates:
        return before, None
    if (model, before) in drafts and version is None:
        raise ModelConfigError(
            f"version {before} of model {model!r} was never live: `tidegate publish` replaces it as it is. For a new version "
            f"all the same: `tidegate models version {model}/{before}`"
        )
    contents = {file.path: await store.read(model, file.path) for file in there[before]}
    restored = {path: content for path, content in contents.items() if content is not None}
    if len(restored) < len(contents):
        raise ModelConfigError(f"version {before} of model {model!r} was withdrawn meanwhile; run the command again")
    return before, restored


async def _with_pins(plan: NextVersion, models: Path, rules: Path | None, store: ModelStore | None) -> NextVersion:
    """Return the plan with changes to the ensembles and rules that name the version before."""
    configs = {
        path.parent.name: path.read_text("utf-8", errors="replace") for path in sorted(models.glob(f"*/{CONFIG}"))
    }
    live = await _live_configs(store, configs)
    taken = {*configs, *(await store.models() if store is not None else ())}
    copies: dict[str, str] = {}
    edits: dict[Path, tuple[str, str]] = {}
    while True:
        # The copy of an ensemble changes the ensembles that call it.
        step_edits = StepEdits({plan.model: (plan.before, plan.version)}, copies)
        fresh = {
            name: f"{name}_v{plan.version}"
            for name, text in configs.items()
            if name in live and name not in copies and repinned(text, step_edits) != text
        }
        if not fresh:
            break
        for name, copy in fresh.items():
            while copy in taken:
                copy += "_1"
            taken.add(copy)
            copies[name] = copy
    for name, text in configs.items():
        after = repinned(text, step_edits)
        if name in copies or after != text:
            _check_texts(models / name)
        if name in copies:
            edits[models / copies[name] / CONFIG] = ("", renamed(after, copies[name]))
        elif after != text:
            edits[models / name / CONFIG] = (text, after)
    if rules is not None:
        targets = {f"{plan.model}/{plan.before}": f"{plan.model}/{plan.version}"}
        for name, copy in copies.items():
            targets |= {name: copy} | {f"{name}/{each}": f"{copy}/{each}" for each in versions_in(models / name)}
        edits |= retargeted(rules, Renames(targets, copies))
    notes = [
        f"ensemble {name!r} leaves the version of {plan.model!r} open, and where it is live it goes on with the version that "
        "it has: pin the step to change it"
        for name, text in configs.items()
        if plan.model in open_steps(text)
    ]
    return replace(plan, copies=copies, edits=edits, notes=tuple(notes))


async def _live_configs(store: ModelStore | None, names: Mapping[str, str]) -> frozenset[str]:
    """Return the models whose config was live and is immutable."""
    if store is None:
        return frozenset()
    pushed = await store.models()
    there: list[Unit] = [(name, None) for name in names if name in pushed]
    drafts = await store.pin(there)
    return frozenset(name for name, _ in there if (name, None) not in drafts)


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
