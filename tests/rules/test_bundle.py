"""Bundles: integrity, format versions, and what loading one costs a process in imports."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import tidegate
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.errors import BundleError
from tidegate.rules import Caller, Limit, Priority, Traffic, compile_directory, load_bundle
from tidegate.rules.bundle import encode, unpack
from tidegate.rules.bundle.manifest import Unresolved, decode_manifest, encode_manifest
from tidegate.rules.bundle.rule import decode_rule, encode_rule
from tidegate.rules.bundle.tables import encode_tables

from tests.support.bundles import sealed
from tests.support.effort import examples

from .oracle import Directory, Yaml
from .strategies import small_fleet, write_directory

SOURCE = Path(tidegate.__file__).parents[1]


@cache
def bundle() -> bytes:
    context = {
        "member_id": {"type": "string", "required": True},
        "app_version": {"type": "version"},
        "tags": {"type": "set"},
        "age": {"type": "integer"},
    }
    rules: list[Yaml] = [
        {"id": "ab", "experiment": {"id": "7", "layer": "home", "cells": {1: "ranker", 2: "svd"}}},
        {"id": "new", "when": {"app_version": {"gte": "8.2"}, "age": {"lt": 13}}, "split": {"ranker": 95, "svd": 5}},
        {"id": "tags", "when": {"tags": {"contains_all": ["drama", "é"]}}, "serve": "svd", "shadow": {"ranker": 10}},
        {"id": "default", "serve": "ranker@champion", "parameters": {"top_k": 20}, "fallback": ["svd"]},
    ]
    objective = {
        "objective": "o",
        "summary": "s",
        "owner": "t",
        "context": context,
        "sticky_key": "member_id",
        "rules": rules,
    }
    fleet = small_fleet("ranker", "svd", aliases={"ranker@champion": "ranker/2"})
    layers = {"home": {"key": "member_id", "holdout": [0, 9], "experiments": {"7": [10, 4999]}}}
    with tempfile.TemporaryDirectory() as root:
        return compile_directory(write_directory(Directory({"o": objective}, fleet, layers), Path(root)))


def test_a_bundle_is_the_same_bytes_every_time_and_its_revision_their_digest() -> None:
    again = bundle.__wrapped__()
    assert again == bundle()
    revision = load_bundle(bundle()).revision
    assert load_bundle(again).revision == revision
    assert len(revision) == 64 and set(revision) <= set("0123456789abcdef")


def test_compiling_does_not_depend_on_the_hash_seed() -> None:
    """Sets and dictionaries iterate differently from process to process; canonical bytes may not."""
    with tempfile.TemporaryDirectory() as root:
        write_directory(
            Directory(
                {
                    "o": {
                        "objective": "o",
                        "summary": "s",
                        "owner": "t",
                        "context": {"tags": {"type": "set"}, "country": {"type": "string"}},
                        "rules": [
                            {"id": "a", "when": {"tags": {"contains_any": list("abcdefgh")}}, "serve": "ranker"},
                            {
                                "id": "b",
                                "when": {"country": {"not": ["US", "CA", "NO"], "prefix": ["U", "N"]}},
                                "serve": "ranker",
                            },
                        ],
                    }
                },
                small_fleet("ranker", "svd"),
                {},
            ),
            Path(root),
        )
        script = "import sys; from tidegate.rules import compile_directory; sys.stdout.buffer.write(compile_directory(sys.argv[1]))"
        outputs = {
            subprocess.run(
                [sys.executable, "-c", script, root],
                env={"PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                timeout=300,
            ).stdout
            for seed in ("0", "1", "2")
        }
    assert len(outputs) == 1


def test_every_record_is_written_again_as_it_was_read() -> None:
    whole = unpack(bundle())
    assert encode_manifest(whole.manifest) == whole.lines[1]
    for entry in whole.manifest.objectives.values():
        tables = whole.tables(entry)
        assert encode_tables(tables) == whole.lines[entry.line]
        for line in whole.rule_lines(entry, tables.rules):
            assert encode_rule(decode_rule(line)) == line


def test_callers_and_what_was_resolved_are_read_as_they_were_written() -> None:
    manifest = unpack(bundle()).manifest._replace(
        callers={
            "all": Caller("all", None, None),
            "some": Caller(
                "some",
                ("o",),
                ("svd/1",),
                Limit(0.5, 3, 2),
                Traffic.SYNTHETIC,
                {"o": Limit(concurrency=1)},
                Priority.LOW,
                (Traffic.REPLAY,),
            ),
            "none": Caller("none", (), ()),
        },
        steps={"ranker": {"step": 3}},
        unresolved=Unresolved(("svd",), {"svd": ("alpha",), "new": None}),
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_bundle_of_another_version_says_which_it_is_and_which_is_read(version: object) -> None:
    lines = bundle().split(b"\n")[1:-1]
    with pytest.raises(
        BundleError, match=f"has format version {version!r}, .* reads version 1: publish the rules again"
    ):
        load_bundle(sealed(lines, format_version=version))


def test_a_bundle_that_draws_by_another_hash_is_refused() -> None:
    _, manifest, *lines, _ = bundle().split(b"\n")
    with pytest.raises(BundleError, match=r"has hash version 2, .* reads version 1: publish the rules again"):
        load_bundle(sealed([encode(json.loads(manifest) | {"hash_version": 2}), *lines]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"split": [["ranker", 0], ["svd", 0]]}, ": split: its weights do not have a positive sum"),
        ({"split": [["ghost", 1], ["svd", 1]]}, ""),
        ({"serve": "svd"}, ": it does not have one action"),
        ({"timeout_ms": "soon"}, ": timeout_ms: not an integer"),
        ({"when": [["age", "lt"]]}, ": when: a condition has no operator"),
    ],
)
def test_a_rule_that_is_not_what_the_compiler_writes_is_refused_when_it_is_first_needed(
    change: dict[str, object], why: str
) -> None:
    lines = bundle().split(b"\n")[1:-1]
    lines[3] = encode(json.loads(lines[3]) | change)
    engine = load_bundle(sealed(lines))
    with pytest.raises(BundleError, match=f"rule 2 of objective 'o' is not what the compiler writes{why}"):
        list(engine.decisions("o"))


def test_equal_requests_get_the_same_decision_object() -> None:
    """What keeps something by a decision's identity, as the gateway keeps headers, goes by this."""
    engine = load_bundle(bundle())
    pinned = engine.pin("ranker", 2)
    assert pinned is not None
    for more in ({}, {"tags": ["drama", "é"]}, {"app_version": "9", "age": 3}):
        one, other = (engine.decide("o", {"member_id": "42", **more}) for _ in range(2))
        assert one is other
        assert engine.override(one, pinned) is engine.override(other, pinned)


def test_an_override_keeps_what_the_cell_has_of_its_own(tmp_path: Path) -> None:
    cells = {1: {"serve": "ranker", "parameters": {"k": 1}}, 2: {"serve": "ranker", "parameters": {"k": 2}}}
    rule = {"id": "ab", "experiment": {"id": "7", "allocate": "caller", "cells": cells}}
    objective = {"objective": "o", "rules": [rule, {"id": "default", "serve": "svd"}]}
    rules = Directory({"o": objective}, small_fleet("ranker", "svd"), {})
    engine = load_bundle(compile_directory(write_directory(rules, tmp_path)))
    pinned = engine.pin("svd")
    assert pinned is not None
    made = [engine.override(engine.decide("o", {"allocations": {"7": cell}}), pinned) for cell in (1, 2)]
    assert [(each.model, each.cell, dict(each.parameters)) for each in made] == [
        ("svd", None, {"k": 1}),
        ("svd", None, {"k": 2}),
    ]


def test_truncated_bundles_are_refused() -> None:
    data = bundle()
    for length in {*range(200), *range(len(data) - 200, len(data)), *range(0, len(data), 97)} - {len(data)}:
        if 0 <= length < len(data):
            with pytest.raises(BundleError):
                load_bundle(data[:length])


@given(st.binary(max_size=400))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        load_bundle(data)


@given(st.binary(max_size=100))
def test_a_bundle_with_something_before_or_behind_it_is_refused(data: bytes) -> None:
    for padded in (data + bundle(), bundle() + data):
        if data:
            with pytest.raises(BundleError):
                load_bundle(padded)


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    whole = bundle()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    with pytest.raises(BundleError):
        load_bundle(whole[:place] + bytes([byte]) + whole[place + 1 :])


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_any_removed_or_repeated_stretch_is_noticed(data: st.DataObject) -> None:
    whole = bundle()
    first = data.draw(st.integers(0, len(whole) - 1))
    last = data.draw(st.integers(first + 1, len(whole)))
    for changed in (whole[:first] + whole[last:], whole[:last] + whole[first:]):
        with pytest.raises(BundleError):
            load_bundle(changed)


@pytest.mark.parametrize(
    "garbage", [b"", b"\n", b"{}", b"null\nnull\n", b"[]", b"\x00" * 64, b"PK\x03\x04", b"\xff\xfe{}"]
)
def test_other_files_are_refused(garbage: bytes) -> None:
    with pytest.raises(BundleError):
        load_bundle(garbage)


def test_errors_say_what_would_be_right() -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(b"objective: title_ranking\n")
    assert len(str(caught.value)) > 20


LOAD_AND_DECIDE = """
import sys
sys.path.insert(0, sys.argv[1])
from tidegate.rules import load_bundle
engine = load_bundle(sys.stdin.buffer.read())
context = {"member_id": "42", "app_version": "8.3", "tags": ["drama"], "age": 12}
assert engine.decide("o", context).rule
assert engine.explain("o", context).decision
assert engine.targets() and engine.representative("o")
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__", "tidegate"}
print(sorted(foreign), sorted(name for name in sys.modules if name.startswith("tidegate.")))
"""


def test_loading_and_deciding_need_the_standard_library_alone() -> None:
    """Isolated and without site-packages, so that anything else could not even be found."""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOAD_AND_DECIDE, str(SOURCE)],
        input=bundle(),
        capture_output=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout.startswith(b"[] ")
    assert b"tidegate.language.compiler" not in ran.stdout


def test_the_stable_api_is_exported() -> None:
    import tidegate.rules

    assert all(hasattr(tidegate.rules, name) for name in tidegate.rules.__all__)
    assert {"compile_directory", "load_bundle", "Decision", "Engine"} <= set(tidegate.rules.__all__)
