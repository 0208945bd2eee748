"""What is stored and recorded, nearly right: bundles, the stores' objects, archives of rules, logs, seed files, settings."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from tidegate.aws import formats
from tidegate.aws.fact_files import FactFile
from tidegate.control.rules_archive import unpack_rules
from tidegate.errors import BundleError, ModelConfigError, RulesError, SettingsError, StoreError
from tidegate.ports import BadMark, Claim, LiveEntry, ModelFile, ModelLoad, Pointer
from tidegate.rules import compile_directory, load_bundle
from tidegate.settings import Settings

from infra.reading import read_settings
from tests.support.bundles import sealed

from .documents import RECORD, RULES
from .mutations import ODD, TEXTS, block, flow, mutated, smashed
from .running import FUZZED, command, no_hang, write_files


@cache
def bundle() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        files = {name: block(tree).encode() for name, tree in RULES.items()}
        return compile_directory(write_files(Path(folder) / "rules", files))


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 3))
def test_a_bundle_that_is_whole_and_wrong_is_refused(seed: int, changes: int) -> None:
    random = Random(seed)
    lines = bundle().split(b"\n")[1:-1]
    # The index holds masks, which are not looked into.
    at = random.choice([0, *range(2, len(lines))])
    changed = flow(mutated(json.loads(lines[at]), random, changes)).replace("\n", " ")
    lines[at] = changed.encode("utf-8", "surrogatepass")
    note(changed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bundle")
        file.write_bytes(sealed(lines))
        command("rules", "diff", file, file)
    with no_hang(), contextlib.suppress(BundleError):
        load_bundle(sealed(lines))


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 4))
def test_a_smashed_bundle_is_refused(seed: int, smashes: int) -> None:
    data = smashed(bundle(), Random(seed), smashes)
    if data == bundle():
        return
    with no_hang(), contextlib.suppress(BundleError):
        load_bundle(data)
        raise AssertionError("damage was not noticed")


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 3), st.sampled_from([0, 0, 1, 3]))
def test_a_changed_log_is_replayed_or_told(seed: int, changes: int, smashes: int) -> None:
    random = Random(seed)
    sound = json.dumps(RECORD)
    lines = [flow(mutated(RECORD, random, changes)).replace("\n", " ") for _ in range(4)]
    data = smashed("\n".join([sound, *lines]).encode("utf-8", "surrogatepass"), random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder, "files"), {"bundle": bundle(), "log": data})
        command("rules", "replay", Path(folder, "files/bundle"), "--log", Path(folder, "files/log"))


def _stored() -> list[tuple[bytes, Any, Any]]:
    """Objects of the stores, each with what reads it and what writes it again."""
    entry = LiveEntry("a" * 64, 3, "ann", 1.5, "why", "rollback", "b" * 64, True, "/rules")
    pointer = Pointer((entry,), "tag", (BadMark("b" * 64, "ann", 1.5, "why"),))
    load = ModelLoad("m", (1, 2), '{"name": "m"}', ("step",))
    file = ModelFile("a/b", "0" * 64, 12)
    manifest = formats.encode_manifest("m", 1, [formats.StoredFile(file, "e")], "0" * 16)
    return [
        (formats.encode_pointer(pointer), lambda data: formats.decode_pointer(data, "tag"), formats.encode_pointer),
        (formats.encode_entry(entry), formats.decode_entry, formats.encode_entry),
        (
            formats.encode_claim(Claim("id", "a" * 64, "ann", 12.5)),
            lambda data: formats.decode_claim("key", data),
            formats.encode_claim,
        ),
        (
            formats.encode_assignment("a", {"cpu": [load]}),
            lambda data: formats.decode_assignment("a", data),
            lambda plans: formats.encode_assignment("a", plans),
        ),
        (
            manifest,
            lambda data: formats.decode_manifest("manifests/m/1.json", data),
            lambda read: formats.encode_manifest("m", 1, read.files, read.draft),
        ),
        (
            formats.encode_intent(formats.Intent((file,), "ann")),
            lambda data: formats.decode_intent("key", data),
            formats.encode_intent,
        ),
    ]


@FUZZED
@given(st.integers(0, 2**64), st.integers(0, 5), st.integers(1, 3), st.sampled_from([0, 0, 1, 3]))
def test_a_changed_object_of_a_store_is_refused_or_read_as_what_can_be_written(
    seed: int, which: int, changes: int, smashes: int
) -> None:
    random = Random(seed)
    sound, decode, encode_again = _stored()[which]
    data = smashed(flow(mutated(json.loads(sound), random, changes)).encode("utf-8", "surrogatepass"), random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with no_hang(), contextlib.suppress(StoreError):
        encode_again(decode(data))


HALF = "\ud800"
"""Half of a character, which JSON can write as an escape and UTF-8 cannot."""


@pytest.mark.parametrize("which", range(len(_stored())))
def test_an_object_with_half_a_character_is_damaged(which: int) -> None:
    sound, decode, _ = _stored()[which]
    for name, value in json.loads(sound).items():
        if isinstance(value, str):
            with pytest.raises(StoreError):
                decode(json.dumps(json.loads(sound) | {name: HALF}).encode())
    if which == 0:
        entries = [entry | {"by": HALF} for entry in json.loads(sound)["entries"]]
        with pytest.raises(StoreError, match="surrogates not allowed; see `tidegate recover`"):
            decode(json.dumps({"entries": entries}).encode())


@pytest.mark.parametrize("revision", ["", "../x", "a" * 63, "A" * 64, f"{'a' * 64}."])
def test_a_pointer_to_what_is_no_revision_is_damaged(revision: str) -> None:
    """What nothing can be stored by can never be mended by publishing its rules again."""
    sound, decode, _ = _stored()[0]
    entries = [entry | {"revision": revision} for entry in json.loads(sound)["entries"]]
    with pytest.raises(StoreError, match="damaged: revision is malformed; see `tidegate recover`"):
        decode(json.dumps({"entries": entries}).encode())


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 5))
def test_a_smashed_archive_is_unpacked_or_refused(seed: int, smashes: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tree in RULES.items():
            archive.writestr(name, block(tree))
    with tempfile.TemporaryDirectory() as folder, no_hang(), contextlib.suppress(RulesError):
        unpack_rules(smashed(packed.getvalue(), Random(seed), smashes), Path(folder))


@FUZZED
@given(st.integers(0, 2**64), st.integers(1, 3), st.sampled_from([0, 1, 3]))
def test_a_changed_seed_file_is_read_or_refused(seed: int, changes: int, smashes: int) -> None:
    random = Random(seed)
    fact = {"key": "42", "value": {"liked": [50, 181], "rated": 1.5}}
    lines = [flow(mutated(fact, random, changes)).replace("\n", " ") for _ in range(3)]
    data = smashed("\n".join(lines).encode("utf-8", "surrogatepass"), random, smashes)
    note(data.decode("utf-8", "backslashreplace"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "titles.jsonl")
        file.write_bytes(data)
        with no_hang(), contextlib.suppress(ModelConfigError):
            FactFile("titles", file).read()


SETTING_NAMES = [f"TIDEGATE_{name.upper()}" for name in Settings.__dataclass_fields__]
SETTING_TEXTS = [
    *ODD,
    *TEXTS,
    "12",
    "0.5",
    "abc",
    "https://x",
    "{}",
    '{"*": "a:1"}',
    "\u0663",
    "1_0",
    " 1 ",
    "~nobody/x",
]


@FUZZED
@given(st.lists(st.tuples(st.sampled_from(SETTING_NAMES), st.sampled_from(SETTING_TEXTS)), max_size=3))
def test_changed_settings_are_read_or_refused(chosen: list[tuple[str, str]]) -> None:
    with no_hang(), contextlib.suppress(SettingsError):
        Settings.from_environment(dict(chosen))


INFRA_NAMES = ["STAGE", "GATEWAY", "GATEWAY__MEMORY_MB", "SHARDS", "SHARDS__MIN", "X", "__", "A__B__C"]


@FUZZED
@given(
    st.integers(0, 2**64), st.integers(0, 4), st.lists(st.tuples(st.sampled_from(INFRA_NAMES), st.sampled_from(ODD)))
)
def test_changed_settings_of_a_stage_are_read_or_refused(
    seed: int, changes: int, chosen: list[tuple[str, str]]
) -> None:
    from infra.settings import Settings as InfraSettings

    random = Random(seed)
    names = [name.upper() for name in InfraSettings.model_fields]
    variables = {f"TIDEGATE_INFRA_{random.choice([name, *names])}": text for name, text in chosen}
    tree = {random.choice(list(InfraSettings.model_fields)): random.choice([1, "a", {}, True]) for _ in range(3)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dev.yaml").write_text(block(mutated(tree, random, changes)), encoding="utf-8")
        with no_hang(), contextlib.suppress(SettingsError):
            read_settings("dev", variables, Path(folder))
