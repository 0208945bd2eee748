"""Documents that are nearly right: a tree of YAML or JSON, changed in a few places, and bytes changed after that.

A tree is made of `dict`, `list`, plain scalars and `Raw` text. Mappings become `Pairs`, which may hold a key twice.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from random import Random
from typing import Any

Node = Any


@dataclass(frozen=True)
class Raw:
    """Text that is written as it is."""

    text: str


@dataclass
class Pairs:
    """A mapping as its entries."""

    entries: list[tuple[Node, Node]]


HUGE = "1" + "0" * 330
TAGGED = ("!!int abc", "!!float abc", "!!bool yes", "!!null x", "!!str 1", "!!binary aGk=", "!!timestamp 2020-01-01",
          "!!python/object/apply:os.getcwd []", "!!set {a}", "!!omap [a: 1]", "!foo bar", "!foo {a: 1}", "! 12",
          "!<tag:yaml.org,2002:int> x", "&a 1", "*a", "&a [*a]")  # fmt: skip
NUMBERS = ("0", "-0", "-1", "1", "1.0", "0.1", "-0.0", "1e999", "-1e999", "1e-999", "5e-324", "1.7976931348623157e308",
           ".nan", ".inf", "-.inf", "0x10", "0o17", "007", "+5", "9223372036854775808", "9007199254740993", HUGE,
           f"-{HUGE}", "9" * 401, "9" * 5000, f"0x{'f' * 350}", "1_000", "1:30", "2026-01-01")  # fmt: skip
TIMES = ('"0001-01-01T00:00:00+05:00"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"',
         '"9999-12-31T23:59:59-05:00"', '"2026-02-30"', '"2026-W01-1"', '"20260101T000000Z"', '"2026-01-01T24:00:00Z"',
         '"1970-01-01T00:00:00+23:59:59.999999"')  # fmt: skip
TEXTS = ('""', '" "', '"*"', '"<<"', '"\\0"', '"\\uD800"', '"\\uFFFE"', '"\\U0001F600"', '"a\\nb"', '"\\u202Eevil"',
         '"\\e[31m"', f'"{"x" * 300}"', f'"{"x" * 3000}"', '"a/b"', '"a/0"', '"a/1"', '"a/99999999999999999999"',
         '"a@b"', '"a@b@c"', '"../x"', '"header:X"', '"1.2.3-"', '"8.2.1-01"', f'"{"1." * 200}1"', "auto", "any_of",
         "allocations", "Null", "TRUE", "yes", "NO", "'", '"', "|\n  x\n", ">-\n  y\n")  # fmt: skip
SHAPES = ("", "~", "null", "true", "false", "[]", "{}", "[[]]", "[~]", "{a: ~}", "{~: a}", "{1: a, true: b}",
          "{1: a, 1.0: b}", "{1: a, '1': b}", "{.nan: a, .nan: b}", "{<<: {a: 1}}", "{? [a] : b}", "{[a]: b}",
          "{a: 1, a: 2}", "[1, true, 1.0, '1']", f"[1, {HUGE}]", "[" * 31 + "]" * 31, "[" * 40 + "]" * 40,
          "{a: " * 40 + "1" + "}" * 40, "[" * 3000, "- - - a", "a: b: c", "{", "]", "@", "`", "%", "\t", "#")  # fmt: skip
ODD = (*TAGGED, *NUMBERS, *TIMES, *TEXTS, *SHAPES)
CHUNKS = (b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b"---\n", b"...\n", b"%YAML 1.1\n",
          b"\xc2\x85", b"\xe2\x80\xa8", b": ", b"- ", b"{", b"}", b"[", b"]", b'"', b"'", b"#", b"&a ", b"*a", b"!!",
          b"<<: ", b"\x1b[", b"\x7f", b"|\n", b">\n", b"\\", b",", b"?", b"0" * 400)  # fmt: skip


def as_pairs(node: Node) -> Node:
    """The tree with its mappings as `Pairs`, to be changed in place."""
    if isinstance(node, dict):
        return Pairs([(key, as_pairs(value)) for key, value in node.items()])
    return [as_pairs(item) for item in node] if isinstance(node, list) else node


def mutated(tree: Node, random: Random, times: int) -> Node:
    """A copy of a tree, changed in some places."""
    root = [as_pairs(tree)]
    for _ in range(times):
        places = list(_places(root))
        holder, index = random.choice(places)
        _change(holder, index, random, places)
    return root[0]


def _places(root: list[Node]) -> list[tuple[Any, int]]:
    found: list[tuple[Any, int]] = [(root, 0)]
    for holder, index in found:
        value = holder[index] if isinstance(holder, list) else holder.entries[index][1]
        if isinstance(value, list):
            found += [(value, position) for position in range(len(value))]
        elif isinstance(value, Pairs):
            found += [(value, position) for position in range(len(value.entries))]
    return found


def _get(holder: Any, index: int) -> Node:
    return holder[index] if isinstance(holder, list) else holder.entries[index][1]


def _set(holder: Any, index: int, value: Node) -> None:
    if isinstance(holder, list):
        holder[index] = value
    else:
        holder.entries[index] = (holder.entries[index][0], value)


def _change(holder: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    value = _get(holder, index)
    match random.randrange(9):
        case 0 | 1 | 2:
            _set(holder, index, Raw(random.choice(ODD)))
        case 3:
            # Another node of the document in its place, which may then be there twice.
            _set(holder, index, as_pairs(_plain(_get(*random.choice(places)))))
        case 4:
            _set(holder, index, random.choice([[value], [value, value], Pairs([("a", value)]), []]))
        case 5 if len(places) > 1:
            del (holder if isinstance(holder, list) else holder.entries)[index]
            if not holder and not isinstance(holder, Pairs):
                holder.append(None)
        case 6 if isinstance(holder, Pairs):
            key = holder.entries[index][0]
            others = [Raw(random.choice(ODD)), key, Raw(f"'{key}'"), f"{key}s", Raw(f"{key}.0")]
            holder.entries.insert(random.randrange(len(holder.entries) + 1), (random.choice(others), value))
        case 7 if isinstance(holder, Pairs):
            holder.entries[index] = (Raw(random.choice(ODD)), value)
        case _:
            number = value if isinstance(value, int | float) and math.isfinite(value) else 0
            _set(
                holder,
                index,
                Raw(random.choice([str(number + 1), str(-number), f"{number}.5", f'"{number}"', *NUMBERS])),
            )


def _plain(node: Node) -> Node:
    """A copy that shares nothing with the tree."""
    if isinstance(node, Pairs):
        return Pairs([(key, _plain(value)) for key, value in node.entries])
    return [_plain(item) for item in node] if isinstance(node, list) else node


def flow(node: Node) -> str:
    """The tree as YAML in flow style, an entry of the outermost levels on each line; JSON where no `Raw` is in it."""
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, dict):
        node = as_pairs(node)
    if isinstance(node, Pairs):
        return "{" + ",\n ".join(f"{_key(key)}: {flow(value)}" for key, value in node.entries) + "}"
    if isinstance(node, list):
        return "[" + ",\n ".join(map(flow, node)) + "]"
    return json.dumps(node)


def _key(key: Node) -> str:
    return key.text if isinstance(key, Raw) else json.dumps(key)


def block(node: Node, indent: str = "") -> str:
    """The tree as YAML in block style."""
    if isinstance(node, dict):
        node = as_pairs(node)
    if isinstance(node, Pairs) and node.entries:
        lines = []
        for key, value in node.entries:
            nested = isinstance(value, Pairs | dict | list) and value and value != Pairs([])
            text = f"\n{block(value, indent + '  ')}" if nested else f" {flow(value)}\n"
            lines.append(f"{indent}{_key(key)}:{text}")
        return "".join(lines)
    if isinstance(node, list) and node:
        return "".join(f"{indent}- {flow(item)}\n" for item in node)
    return f"{indent}{flow(node)}\n"


def smashed(data: bytes, random: Random, times: int) -> bytes:
    """Bytes, changed in some places."""
    for _ in range(times):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice([1, 1, 2, 5, 40]))
        match random.randrange(6):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:at] + random.choice(CHUNKS) + data[at:]
            case 2:
                data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
            case 3:
                data = data[:at]
            case 4:
                data = data[:at] + data[at:end] * random.choice([2, 3, 30]) + data[end:]
            case _:
                other = random.randrange(len(data) + 1)
                data = data[:at] + data[other : other + 30] + data[at:]
    return data
