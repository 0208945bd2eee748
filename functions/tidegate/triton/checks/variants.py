"""The configs in `configs/`, which `--model-config-name` chooses between: the same model on other hardware."""

from __future__ import annotations

from tidegate.triton.checks.config_file import read_config
from tidegate.triton.checks.folder import ModelFolder

FOLDER = "configs"


def check_variants(model: ModelFolder) -> None:
    """Check that each parses and that it and `config.pbtxt` mean the same model."""
    folder = model.path / FOLDER
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.pbtxt")):
        file = f"{FOLDER}/{path.name}"
        variant = read_config(path, file, model.report)
        if not variant.whole() or not model.config.present or not model.config.whole():
            continue
        if variant.message.name not in ("", model.name):
            message = f"name is {variant.message.name!r}, but the folder is {model.name!r}"
            model.report("config-variant", message, "make them the same", file=file, line=variant.line("name"))
        for kind in ("input", "output"):
            declared = [(each.name, each.data_type, list(each.dims)) for each in getattr(model.message, kind)]
            others = [(each.name, each.data_type, list(each.dims)) for each in getattr(variant.message, kind)]
            if others and sorted(declared) != sorted(others):
                message = f"its {kind}s are not those of config.pbtxt"
                model.report("config-variant", message, "make them the same", file=file, line=variant.line(kind))
