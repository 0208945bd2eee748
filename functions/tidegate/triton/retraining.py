"""The next version of a model: its folder, the ensembles that pin it, and the rules that name it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.errors import ImmutableError, ModelConfigError
from tidegate.ports import ModelStore, Unit
from tidegate.ports.model_units import check_name, read_units, version_of
from tidegate.rules.retarget import Renames, retargeted
from tidegate.triton.config_edits import StepEdits, open_steps, renamed, repinned
from tidegate.triton.model_config import CONFIG

LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True, slots=True)
class NextVersion:
    """What making a new version would change.

    Attributes:
        model: the model.
        before: the version whose files in the folder become the new one.
        version: the new version.
        restored: the files of `before` as they were pushed, by path in the model's folder; None where they are as they
            were, so that they are copied.
        copies: ensembles that were live, with the name under which each gets the new version.
        edits: files with their texts before and after; those of a copy have an empty text before.
        notes: in words, what else there is to know.
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
        rules: the rules directory; None: no rules are changed.
        store: the pushed models; None where there is none to ask: then the version that is named, or the last one, is copied.
        model: the model's name.
        version: the version whose files were changed; None: the one that is not as it was pushed.
        keep_pins: leave alone whoever names the version before.

    Raises:
        ModelConfigError: there is no such model or version, or nothing to make a new version of.
        ImmutableError: the config was changed, too, and was live.
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
    """Do what was planned. The new version's folder is there before the first file is edited.

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
                shutil.copytree(old, made, ignore=LEFT_OUT)
                made.rename(new)
            else:
                for name, content in plan.restored.items():
                    target = made / Path(name).relative_to(str(plan.before))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                old.rename(new)
                made.rename(old)
        for ensemble, copy in plan.copies.items():
            shutil.copytree(models / ensemble, models / copy, ignore=LEFT_OUT)
            _rename_variants(models / copy)
        for file, (_, after) in plan.edits.items():
            file.write_text(after, "utf-8")
    except OSError as error:
        raise _unwritten(error) from error


def copy_model(models: Path, source: str, name: str) -> Path:
    """Copy a model's folder to another name, which its configs say then.

    Raises:
        ModelConfigError: there is no such model, or one of the new name, or a config is no UTF-8 text.
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
            shutil.copytree(models / source, made, ignore=LEFT_OUT)
            if (made / CONFIG).is_file():
                (made / CONFIG).write_text(renamed(_text(made / CONFIG), name), "utf-8")
            _rename_variants(made)
            made.rename(target)
    except OSError as error:
        raise _unwritten(error) from error
    return target


def _text(path: Path) -> str:
    """The text of a config. Raises `ModelConfigError` where it is none, `OSError`."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{path} is no UTF-8 text at byte {error.start}; save it as UTF-8") from error


def _check_texts(folder: Path) -> None:
    """Refuse to edit a model's configs where one is no text: it would be written as another. Raises `ModelConfigError`."""
    for config in (folder / CONFIG, *sorted((folder / "configs").glob("*.pbtxt"))):
        if config.is_file():
            _text(config)


def _unwritten(error: OSError) -> ModelConfigError:
    """The error for files that could not be written; copying a tree gives all its errors as one, without a name."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        source, _, why = error.args[0][0]
        return ModelConfigError(f"{source} cannot be copied: {why}")
    return ModelConfigError(f"{error.filename} cannot be written: {error.strerror}")


def _rename_variants(folder: Path) -> None:
    """Have the other configs of a copied model say its name, too."""
    for config in sorted((folder / "configs").glob("*.pbtxt")):
        config.write_text(renamed(_text(config), folder.name), "utf-8")


async def _changed(
    store: ModelStore, model: str, folder: Path, version: int | None
) -> tuple[int, Mapping[str, bytes] | None]:
    """The version to make a new one of, and its pushed files where they are others than in the folder."""
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
    """The plan with whoever names the version before."""
    configs = {
        path.parent.name: path.read_text("utf-8", errors="replace") for path in sorted(models.glob(f"*/{CONFIG}"))
    }
    live = await _live_configs(store, configs)
    taken = {*configs, *(await store.models() if store is not None else ())}
    copies: dict[str, str] = {}
    edits: dict[Path, tuple[str, str]] = {}
    while True:
        # Ensembles may call ensembles: one that gets another name changes those that call it.
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
            versions = [version_of(each.name) for each in (models / name).iterdir() if each.is_dir()]
            targets |= {name: copy} | {f"{name}/{each}": f"{copy}/{each}" for each in versions if each}
        edits |= retargeted(rules, Renames(targets, copies))
    notes = [
        f"ensemble {name!r} leaves the version of {plan.model!r} open, and where it is live it goes on with the version that "
        "it has: pin the step to change it"
        for name, text in configs.items()
        if plan.model in open_steps(text)
    ]
    return NextVersion(plan.model, plan.before, plan.version, plan.restored, copies, edits, tuple(notes))


async def _live_configs(store: ModelStore | None, names: Mapping[str, str]) -> frozenset[str]:
    """The models whose config never changes any more."""
    if store is None:
        return frozenset()
    pushed = await store.models()
    there: list[Unit] = [(name, None) for name in names if name in pushed]
    drafts = await store.pin(there)
    return frozenset(name for name, _ in there if (name, None) not in drafts)


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
