"""Reads a `config.pbtxt` and reports every field that is wrong in it, not only the first.

The protobuf library stops at the first mistake. The field that it stopped at is blanked out and the rest is parsed again,
so that everything else about the model can still be checked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor

from tidegate.language.words import did_you_mean
from tidegate.models.config import WITHOUT_MARK
from tidegate.models.lint.files import read_text
from tidegate.models.lint.findings import Report
from tidegate.models.schema import DESCRIPTOR, ModelConfig
from tidegate.models.textproto import Lines, Place

MAX_CONFIG_BYTES = 1024 * 1024
"""The largest config that is read; real ones have a few kilobytes."""

MAX_MISTAKES = 50
BYTE_ORDER_MARK = "\ufeff"

NEWER_THAN_LOCAL = (("model_metrics",), ("ensemble_scheduling", 0, "max_inflight_requests"))
"""Fields that tritonclient's schema has and Triton 2.51, which the local stack runs, does not; compared by descriptor."""

_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]*)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (\S+?)\.?$')
_TWICE = re.compile(r'should not have multiple "(\w+)" fields')
_ONE_OF = re.compile(r'Field "(\w+)" is specified along with field "(\w+)"')
_USUAL_NAMES = {
    "BYTES": "TYPE_STRING", "STR": "TYPE_STRING", "TEXT": "TYPE_STRING", "OBJECT": "TYPE_STRING", "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16", "FLOAT32": "TYPE_FP32", "FLOAT64": "TYPE_FP64", "DOUBLE": "TYPE_FP64", "HALF": "TYPE_FP16",
    "INT": "TYPE_INT32", "LONG": "TYPE_INT64", "BOOLEAN": "TYPE_BOOL",
}  # fmt: skip
"""Other tools' names of Triton's data types."""


@dataclass(slots=True)
class ConfigFile:
    """A parsed config.

    `message` has the fields that could be read, `damaged` the places of messages that lost a field to a mistake, so that a
    field missing there is not reported a second time.
    """

    file: str
    present: bool
    message: ModelConfig
    lines: Lines
    damaged: set[Place] = field(default_factory=set)

    def line(self, *path: str | int) -> int:
        """Return the line of a field, or of the nearest one around it that is there; 0 if there is no file."""
        return self.lines.at(*path) if self.present else 0

    def whole(self, *path: str | int) -> bool:
        """Return whether the message at a path was read without a mistake; without a path, the config itself."""
        return tuple(path) not in self.damaged


def read_config(path: Path, file: str, report: Report) -> ConfigFile:
    """Read a config, and report every mistake; one that is absent or cannot be read is empty. `file` is its name in findings."""
    absent = ConfigFile(file, False, ModelConfig(), Lines(""))
    if not path.is_symlink() and not path.exists():
        return absent
    text = read_text(path, file, report, MAX_CONFIG_BYTES)
    if text is None:
        absent.damaged.add(())
        return absent
    if text.startswith(BYTE_ORDER_MARK):
        text = text.removeprefix(BYTE_ORDER_MARK)
        message = "it begins with a byte order mark, which Triton refuses"
        report("config-syntax", message, WITHOUT_MARK, file=file, line=1)
    config = ConfigFile(file, True, ModelConfig(), Lines(text))
    for _ in range(MAX_MISTAKES):
        config.message.Clear()
        try:
            text_format.Parse(text, config.message)
            break
        except text_format.ParseError as error:
            rest = _without_mistake(text, error, config, report)
        except ValueError as error:
            # An enum's number beyond 32 bits: the library does not say where it is.
            number = str(error).rpartition(" ")[2]
            line = text.count("\n", 0, text.index(number)) + 1 if number in text else 0
            report("config-value", f"a value that does not fit: {str(error)[:200]}", file=config.file, line=line)
            rest = None
        if rest is None:
            config.message.Clear()
            config.damaged.add(())
            break
        text = rest
    _report_newer_fields(config, report)
    _report_repeated_keys(config, report)
    _report_numbered_enums(config, report)
    return config


def _without_mistake(text: str, error: text_format.ParseError, config: ConfigFile, report: Report) -> str | None:
    """Report an error of the library; return the text without the field that has it, or None if that is unknown."""
    line, column = error.GetLine() or 0, error.GetColumn() or 0
    chain = config.lines.chain(line, column)
    kind, message, hint = _words(str(error))
    report(kind, message, hint, file=config.file, line=line)
    if kind == "config-syntax" or not chain:
        return None
    place: Place = ()
    node = config.lines.root
    for each in chain[:-1]:
        place = (*place, each.name, [other for other in node.fields if other.name == each.name].index(each))
        node = each
    if kind != "config-duplicate":
        config.damaged.add(place)
    start, end = chain[-1].span
    if not text[start:end].strip():
        return None
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def _words(problem: str) -> tuple[str, str, str]:
    """Return kind, message and hint of a finding for a message of the protobuf library."""
    if match := _UNKNOWN_FIELD.search(problem):
        owner, name = match[1], match[2]
        known = {each.name for each in DESCRIPTOR.pool.FindMessageTypeByName(owner).fields}
        return "config-unknown-field", f"unknown field {name!r} in {_noun(owner)}", _place_hint(name, known)
    if match := _UNKNOWN_VALUE.search(problem):
        values = {each.name for each in DESCRIPTOR.pool.FindEnumTypeByName(match[1]).values}
        usual = _USUAL_NAMES.get(match[2].upper().removeprefix("TYPE_"))
        hint = f"did you mean {usual!r}?" if usual in values else did_you_mean(match[2], values, "value")
        return "config-value", f"unknown value {match[2]!r}", hint
    if match := _TWICE.search(problem):
        return "config-duplicate", f"{match[1]!r} is duplicated", "keep one"
    if match := _ONE_OF.search(problem):
        return "config-duplicate", f"{match[1]!r} and {match[2]!r} exclude each other", "keep one"
    reason = re.sub(r"^\d+:\d+ : (?:'.*?': )?", "", problem, flags=re.DOTALL)
    if any(
        sign in reason for sign in ("parse integer", "out of range", "but found", '"true" or "false"', "parse float")
    ):
        return "config-value", f"a value that does not fit: {reason[:200]}", ""
    hint = "check brackets, quotes and commas here and on the line above"
    visible = (
        each if each.isprintable() else f"U+{ord(each):04X} ({unicodedata.name(each, 'control')})"
        for each in reason[:200]
    )
    return "config-syntax", f"not in protobuf's text format: {''.join(visible)}", hint


def _place_hint(name: str, known: set[str]) -> str:
    """Return a hint: a field of this message with a similar name, or the messages that have a field of this name."""
    hint = did_you_mean(name, known, "field")
    owners = sorted(_noun(owner) for owner, each in _messages().items() if name in each.fields_by_name)
    if owners and not hint.startswith("did you mean"):
        return f"{name!r} belongs in {' or '.join(owners[:3])}"
    return hint


def _noun(owner: str) -> str:
    if owner == "inference.ModelConfig":
        return "the model config"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.rpartition(".")[2].removeprefix("Model")).lower()
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


@cache
def _messages() -> Mapping[str, Descriptor]:
    """Return every message of Triton's model config, by full name."""
    messages: dict[str, Descriptor] = {}
    pending = list(DESCRIPTOR.message_types_by_name.values())
    while pending:
        each = pending.pop()
        messages[each.full_name] = each
        pending += each.nested_types
    return messages


def _report_newer_fields(config: ConfigFile, report: Report) -> None:
    for place in NEWER_THAN_LOCAL:
        if config.lines.has(*place):
            message = f"{place[-1]} is newer than the Triton of the local stack, which refuses the config"
            hint = "do without it, or do not run it locally"
            report("config-new-field", message, hint, file=config.file, line=config.line(*place))


def _report_repeated_keys(config: ConfigFile, report: Report) -> None:
    # The library silently keeps the last.
    maps: list[Place] = [("parameters",), ("metric_tags",), ("cc_model_filenames",)]
    for step in range(len(config.message.ensemble_scheduling.step)):
        maps += [("ensemble_scheduling", 0, "step", step, name) for name in ("input_map", "output_map")]
    maps += [("model_warmup", number, "inputs") for number in range(len(config.message.model_warmup))]
    for place in maps:
        seen: dict[str, int] = {}
        for key, line in config.lines.entries(*place):
            if key in seen:
                message = f"{key!r} is duplicated in {place[-1]}"
                report("config-duplicate", message, f"the first is on line {seen[key]}", file=config.file, line=line)
            seen.setdefault(key, line)


def _report_numbered_enums(config: ConfigFile, report: Report) -> None:
    # The library accepts numbers that no value has.
    for owner, name in (("input", "data_type"), ("output", "data_type"), ("instance_group", "kind")):
        for number, message in enumerate(getattr(config.message, owner)):
            values = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number
            value = getattr(message, name)
            if value not in values:
                hint = did_you_mean(str(value), {each.name for each in values.values()}, "value")
                line = config.line(owner, number, name)
                report("config-value", f"unknown value {value} of {name}", hint, file=config.file, line=line)
                config.damaged.add((owner, number))
