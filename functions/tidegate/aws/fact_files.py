"""Seed files of facts, which models look up in a table at serving time.

They are in `<model>/facts/<name>.jsonl` and are not pushed with the model, which never changes. Each line is one fact of the
set `<name>`::

    {"key": "42", "value": {"liked": [50, 181], "rated": [50, 181, 222]}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ModelConfigError
from tidegate.files import read_regular
from tidegate.model_layout import FACTS
from tidegate.strict_json import DuplicateNameError, refuse_constant, unique_names

SUFFIX = ".jsonl"
MAX_FILE_BYTES = 1 << 30
MAX_KEY_BYTES = 2048
MAX_VALUE_BYTES = 380_000
"""DynamoDB's limits are 2 048 bytes for a key and 400 KB for an item."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact; its value is compact JSON."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class FactFile:
    """A seed file of the set of facts `name`."""

    name: str
    path: Path

    def read(self) -> tuple[Fact, ...]:
        """Return all facts.

        Raises:
            ModelConfigError: a line is malformed, or a key is duplicated; the message names the file and the line.
        """
        facts: dict[str, Fact] = {}
        lines: dict[str, int] = {}
        for number, line in self._lines():
            fact = _fact(line, f"{self.path}:{number}")
            if fact.key in facts:
                # The key may identify a member, and is not shown.
                raise ModelConfigError(
                    f"{self.path}:{number}: the key of line {lines[fact.key]} again; keep one of them"
                )
            facts[fact.key], lines[fact.key] = fact, number
        return tuple(facts.values())

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            text = read_regular(self.path, MAX_FILE_BYTES).decode()
        except OSError as error:
            raise ModelConfigError(f"{self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ModelConfigError(f"{self.path} is not UTF-8: byte {error.start}") from error
        # `splitlines` would also split at characters that JSON strings may contain.
        return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def find_fact_files(path: Path) -> tuple[FactFile, ...]:
    """Return the seed files at a path: a file, a model's folder, or a repository.

    Raises:
        ModelConfigError: there are none, or a file's name is not that of a set.
    """
    found = look_for_fact_files(path) if path.is_dir() else _named([path])
    if not found:
        raise ModelConfigError(f"{path} has no seed files: a model's are in <model>/{FACTS}/<name>{SUFFIX}")
    return found


def look_for_fact_files(folder: Path) -> tuple[FactFile, ...]:
    """Return the seed files, if any, of a model's folder or a repository. Raises `ModelConfigError` for a wrong name."""
    return _named(sorted(folder.glob(f"{FACTS}/*{SUFFIX}")) or sorted(folder.glob(f"*/{FACTS}/*{SUFFIX}")))


def _named(paths: Iterable[Path]) -> tuple[FactFile, ...]:
    files: dict[str, FactFile] = {}
    for each in paths:
        if each.suffix != SUFFIX or not _NAME.fullmatch(each.stem):
            hint = f"name it <name>{SUFFIX}, the name of letters, digits, '_', '.' and '-'"
            raise ModelConfigError(f"{each} is not a seed file: {hint}")
        if each.stem in files:
            raise ModelConfigError(f"{each} and {files[each.stem].path} seed one set of facts; rename one")
        files[each.stem] = FactFile(each.stem, each)
    return tuple(files.values())


def _fact(line: str, place: str) -> Fact:
    right = 'write {"key": "<text>", "value": <anything>}'
    try:
        row: Any = json.loads(line, parse_constant=refuse_constant, object_pairs_hook=unique_names)
    except DuplicateNameError as error:
        raise ModelConfigError(f"{place}: {error}; keep one") from None
    except (ValueError, RecursionError):
        raise ModelConfigError(f"{place}: the line is not JSON; {right}") from None
    if not isinstance(row, dict) or row.keys() != {"key", "value"}:
        raise ModelConfigError(f"{place}: a line has the keys 'key' and 'value' and no others; {right}")
    key = row["key"]
    if not isinstance(key, str) or not key:
        raise ModelConfigError(f"{place}: a key must be non-empty text; {right}")
    value = json.dumps(row["value"], ensure_ascii=False, separators=(",", ":"))
    for what, text, most_bytes in (("key", key, MAX_KEY_BYTES), ("value", value, MAX_VALUE_BYTES)):
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            raise ModelConfigError(f"{place}: lone surrogates are not allowed; {right}") from None
        if size_bytes > most_bytes:
            raise ModelConfigError(
                f"{place}: the {what} has {size_bytes} bytes, and at most {most_bytes} can be stored"
            )
    return Fact(key, value)
