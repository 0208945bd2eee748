"""Seed files of facts: what models look up at serving time, as the files that a table is filled from.

A model's facts stand beside its versions, in `<model>/facts/<name>.jsonl`; they are no part of the model, which never
changes, and are not pushed with it. Each line is one fact of the set `<name>`::

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
from tidegate.ports.model_units import FACTS
from tidegate.rules.strict_json import DuplicateNameError, refuse_constant, unique_names

SUFFIX = ".jsonl"
MAX_FILE_BYTES = 1 << 30
MAX_KEY_BYTES = 2048
MAX_VALUE_BYTES = 380_000
"""DynamoDB takes 2 048 bytes for a key and 400 KB for all of an item."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: its key, and its value as JSON text without blanks."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class FactFile:
    """A seed file, and the name of the set that its facts belong to."""

    name: str
    path: Path

    def read(self) -> tuple[Fact, ...]:
        """All its facts, checked; a blank line is none.

        Raises:
            ModelConfigError: a line is no fact, or a key stands twice; it names the file and the line.
        """
        facts: dict[str, Fact] = {}
        lines: dict[str, int] = {}
        for number, line in self._lines():
            fact = _fact(line, f"{self.path}:{number}")
            if fact.key in facts:
                # The key may be a member's, and so is not said.
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
            raise ModelConfigError(f"{self.path} is no UTF-8: byte {error.start}") from error
        # Not `splitlines`, which also ends a line at characters that may stand in JSON text.
        return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def find_fact_files(path: Path) -> tuple[FactFile, ...]:
    """The seed files at a path: that file, those of that model's folder, or those of all models of that repository.

    Raises:
        ModelConfigError: there are none, or a file's name cannot be that of a set; it says what would be right.
    """
    found = look_for_fact_files(path) if path.is_dir() else _named([path])
    if not found:
        raise ModelConfigError(f"{path} has no seed files: a model's are in <model>/{FACTS}/<name>{SUFFIX}")
    return found


def look_for_fact_files(folder: Path) -> tuple[FactFile, ...]:
    """The seed files of a model's folder, or of all models of a repository; empty where there are none.

    Raises:
        ModelConfigError: a file's name cannot be that of a set; it says what would be right.
    """
    return _named(sorted(folder.glob(f"{FACTS}/*{SUFFIX}")) or sorted(folder.glob(f"*/{FACTS}/*{SUFFIX}")))


def _named(paths: Iterable[Path]) -> tuple[FactFile, ...]:
    files: dict[str, FactFile] = {}
    for each in paths:
        if each.suffix != SUFFIX or not _NAME.fullmatch(each.stem):
            hint = f"name it <name>{SUFFIX}, the name of letters, digits, '_', '.' and '-'"
            raise ModelConfigError(f"{each} is no seed file: {hint}")
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
        raise ModelConfigError(f"{place}: the line is no JSON; {right}") from None
    if not isinstance(row, dict) or row.keys() != {"key", "value"}:
        raise ModelConfigError(f"{place}: a line has the keys 'key' and 'value' and no others; {right}")
    key = row["key"]
    if not isinstance(key, str) or not key:
        raise ModelConfigError(f"{place}: a key is text, and not empty; {right}")
    value = json.dumps(row["value"], ensure_ascii=False, separators=(",", ":"))
    try:
        sizes = len(key.encode()), len(value.encode())
    except UnicodeEncodeError:
        raise ModelConfigError(f"{place}: half of a surrogate pair is no text; {right}") from None
    if sizes[0] > MAX_KEY_BYTES or sizes[1] > MAX_VALUE_BYTES:
        what, size, limit = (
            ("key", sizes[0], MAX_KEY_BYTES) if sizes[0] > MAX_KEY_BYTES else ("value", sizes[1], MAX_VALUE_BYTES)
        )
        raise ModelConfigError(f"{place}: the {what} has {size} bytes, and at most {limit} can be stored")
    return Fact(key, value)
