"""Which folders become the functions' code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import SettingsError

from infra.settings import Settings

PLACEHOLDER = Path(__file__).parent / "placeholder"
_COMPILED = re.compile(r"\.cpython-3(\d+)-")


@dataclass(frozen=True, slots=True)
class Assets:
    """The folders that become the functions' code: small for the HTTP functions, with the control plane's libraries for the rest."""

    gateway: Path
    control: Path


def find_assets(build: Path, settings: Settings) -> Assets | None:
    """Return the assets that `make package` has built below `build` for the stage's architecture; None if one is missing.

    Raises:
        SettingsError: they are compiled for another Python than the functions run on.
    """
    assets = Assets(*((build / f"{name}-{settings.architecture}").resolve() for name in ("gateway", "control")))
    if not all(folder.is_dir() for folder in (assets.gateway, assets.control)):
        return None
    for folder in (assets.gateway, assets.control):
        for file in sorted(folder.rglob("*.so")):
            match = _COMPILED.search(file.name)
            if match and f"3.{match[1]}" != settings.python_version:
                raise SettingsError(
                    f"{folder} is compiled for Python 3.{match[1]}, and the setting python_version is "
                    f"{settings.python_version}: run `make package`, or change the setting"
                )
    return assets


def placeholder_assets() -> Assets:
    """Return placeholders for assets that have not been built: enough to synthesize and audit, not to deploy."""
    return Assets(PLACEHOLDER, PLACEHOLDER)
