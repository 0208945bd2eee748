"""Names, version folders, the version policy, and the file that the backend loads."""

from __future__ import annotations

import re
from pathlib import Path

from tidegate.model_layout import CONFIG, NAME, is_bytecode, version_of
from tidegate.models.lint.files import regular_size
from tidegate.models.lint.folder import DEFAULT_FILES, CheckedFolder

MAX_NAME_LENGTH = 128

_LIKE_A_VERSION = re.compile(r"(?i)[-+]?[0-9].*|(?:v|ver|version|rev)[-_.]?[0-9]+.*|latest|one|current")
_LIKE_CONFIG = re.compile(r"(?i)\.?config(uration)?\.?(pbtxt?|pbtext|pb|pbtx|prototxt|txt|json|yaml|yml|pbtxt\.\w+)")


def check_layout(model: CheckedFolder) -> None:
    _check_name(model)
    _check_config_file(model)
    _check_version_names(model)
    _check_versions(model)
    _check_policy(model)
    _check_artefacts(model)


def _check_name(model: CheckedFolder) -> None:
    name = model.name
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME_LENGTH:
        hint = f"letters, digits, '.', '_' and '-' (at most {MAX_NAME_LENGTH}), a letter or digit first"
        blank = "Triton hangs on a name with a blank" if re.search(r"\s", name) else "no rule can name this model"
        model.report("name-unsafe", f"{name!r}: {blank}", hint, file="")
    if model.config.name not in ("", name):
        message = f"name is {model.config.name!r}, but the folder is {name!r}"
        model.report("name-mismatch", message, f"write name: {name!r}".replace("'", '"'), at=("name",))


def _check_config_file(model: CheckedFolder) -> None:
    if model.text.present or not model.text.whole():
        return
    similar = [entry.name for entry in model.entries if _LIKE_CONFIG.fullmatch(entry.name)]
    if similar:
        model.report("config-missing", f"there is no {CONFIG}", f"rename {similar[0]!r}", file="")
    elif inner := [
        f"{version}/{CONFIG}" for version, folder in model.version_paths.items() if (folder / CONFIG).is_file()
    ]:
        model.report("config-missing", f"there is no {CONFIG}", f"move {inner[0]} one level up", file="")
    elif not model.versions and not any(_LIKE_A_VERSION.fullmatch(entry.name) for entry in model.entries):
        inner = [entry.name for entry in model.entries if (entry / CONFIG).is_file()]
        hint = f"add {CONFIG} and 1/, or remove the folder"
        if inner:
            hint = f"what is in {inner[0]}/ belongs here, one level up"
        model.report("model-empty", "neither a config nor a version: this is not a model", hint, file="")


def _check_version_names(model: CheckedFolder) -> None:
    for entry in model.entries:
        name = entry.name
        if not _LIKE_A_VERSION.fullmatch(name):
            continue
        if not entry.is_dir():
            if version_of(name):
                hint = "make it a folder that holds the model"
                model.report("version-name", f"version {name} is a file", hint, file=name)
        elif version_of(name) is None:
            model.report("version-name", *_version_problem(name), file=name)


def _version_problem(name: str) -> tuple[str, str]:
    digits = re.search(r"[1-9][0-9]*", name)
    plain = digits[0] if digits and len(digits[0]) < 19 else "1"
    if name.startswith("0") and name.strip("0").isdecimal():
        return f"Triton ignores {name!r}, which begins with 0", f"rename it {plain}"
    if not name.strip("0"):
        return f"{name!r} is not a version that can be pinned", "versions count from 1"
    if re.match(r"[-+]?[1-9]", name):
        # Triton reads the digits at the front (std::stoll), then looks for the files in a folder of that number.
        taken = re.match(r"[-+]?[0-9]+", name)
        message = f"Triton takes {name!r} for version {taken[0] if taken else ''}, and the load hangs"
        return message, f"rename it {plain}, or move it out"
    return f"Triton ignores {name!r}, which is not a number", f"rename it {plain}"


def _check_versions(model: CheckedFolder) -> None:
    if not model.versions:
        if model.text.present and not any(_LIKE_A_VERSION.fullmatch(entry.name) for entry in model.entries):
            beside = [entry.name for entry in model.entries if entry.name in model.artefacts]
            hint = f"move {beside[0]} into a folder named 1" if beside else "add a folder named 1"
            model.report("version-missing", "there is no version", hint, file="")
        return
    for version, folder in model.version_paths.items():
        if not _has_file(folder):
            hint = f"put {' or '.join(model.artefacts)} there" if model.artefacts else "put the model there"
            if model.is_ensemble:
                hint = "an ensemble has no files of its own: add an empty file .keep"
            model.report("version-empty", "the version's folder holds no file", hint, file=str(version))
    if model.is_ensemble and len(model.versions) > 1:
        there = ", ".join(map(str, model.versions))
        message = f"versions {there} share one config, so they cannot differ"
        model.report("ensemble-versions", message, "make each variant an ensemble of its own name", file="")


def _has_file(folder: Path) -> bool:
    try:
        return any(entry.is_file() for entry in folder.rglob("*"))
    except OSError:
        return True  # it is reported elsewhere


def _check_policy(model: CheckedFolder) -> None:
    policy = model.config.version_policy

    def report(message: str, hint: str, *inner: str | int) -> None:
        model.report("version-policy", message, hint, at=("version_policy", 0, *inner))

    if policy.HasField("specific"):
        if not policy.specific.versions:
            report("specific names no version, so none is served", "list versions, or say all {}")
        there = ", ".join(map(str, model.versions)) or "none"
        for number, version in enumerate(policy.specific.versions):
            if version not in model.versions:
                report(f"version {version} has no folder", f"there: {there}", "specific", 0, "versions", number)
    elif policy.HasField("latest") and policy.latest.num_versions < 1:
        report("latest serves 0 versions: Triton refuses the load", "say num_versions: 1", "latest")


def _check_artefacts(model: CheckedFolder) -> None:
    name = str(model.config.default_model_filename)
    if model.is_ensemble:
        return
    if name and (name.startswith("/") or ".." in Path(name).parts):
        message = f"{name!r} lies outside the version's folder"
        model.report("artefact-missing", message, "name a file in it", at=("default_model_filename",))
        return
    for version, folder in model.version_paths.items():
        artefact = model.artefact(version)
        if artefact is None and model.artefacts and _has_file(folder):
            wanted = " or ".join(model.artefacts)
            message = f"{wanted} is missing: a model of backend {model.backend!r} is that file"
            model.report("artefact-missing", message, _there(model, folder), file=f"{version}")
        elif artefact is not None and artefact.is_dir() and model.backend == "python":
            model.report("artefact-missing", f"{artefact.name} is a folder", "it must be a file", file=f"{version}")
        elif artefact is not None and regular_size(artefact) == 0 and model.backend != "python":
            message, hint = f"{artefact.name} is empty", "build it again"
            model.report("artefact-missing", message, hint, file=f"{version}/{artefact.name}")


def _there(model: CheckedFolder, folder: Path) -> str:
    """Return a hint: what a version's folder has instead of its artefact."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    except OSError:
        return ""
    names = [name for name in names if not is_bytecode(name)]
    above = [entry.name for entry in model.entries if entry.name in model.artefacts]
    if above:
        return f"move {above[0]} into {folder.name}/"
    for backend, files in DEFAULT_FILES.items():
        if backend != model.backend and set(files) & set(names):
            return f"there is {(set(files) & set(names)).pop()}, which is of backend {backend!r}"
    close = [name for name in names for wanted in model.artefacts if name.lower() == wanted.lower()]
    if close:
        return f"rename {close[0]!r}"
    return f"there: {', '.join(names[:5])}" if names else ""
