"""Rules directories that are nearly right: every command compiles them or says where they are wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import event, given, note
from hypothesis import strategies as st

from tests.rules.oracle import Directory
from tests.rules.strategies import directories, write_directory

from .documents import RULES
from .mutations import block, flow, mutated, smashed
from .running import CORPUS, FUZZED, check_rules, sections, write_files


@pytest.mark.parametrize("entry", sorted((CORPUS / "rules").iterdir()), ids=lambda entry: entry.name)
def test_the_corpus_is_read_or_refused(entry: Path, tmp_path: Path) -> None:
    sound = {name: block(tree).encode() for name, tree in RULES.items()}
    check_rules(write_files(tmp_path / "rules", sound | sections(entry.read_bytes())), tmp_path)


def test_the_documents_themselves_are_sound(tmp_path: Path) -> None:
    for number, write in enumerate((block, flow)):
        files = {name: write(tree).encode() for name, tree in RULES.items()}
        assert check_rules(write_files(tmp_path / str(number), files), tmp_path)


@FUZZED
@given(st.integers(0, 2**64), st.sampled_from(sorted(RULES)), st.integers(1, 4), st.sampled_from([0, 0, 0, 1, 3]))
def test_changed_rules_are_read_or_refused(seed: int, file: str, changes: int, smashes: int) -> None:
    random = Random(seed)
    tree = mutated(RULES[file], random, changes)
    data = smashed(random.choice([block, flow])(tree).encode("utf-8", "surrogatepass"), random, smashes)
    note(f"=== {file}\n{data.decode('utf-8', 'backslashreplace')}")
    files = {name: block(sound).encode() for name, sound in RULES.items()} | {file: data}
    with tempfile.TemporaryDirectory() as folder:
        event(f"compiles: {check_rules(write_files(Path(folder) / 'rules', files), Path(folder))}")


@FUZZED
@given(directories(), st.integers(0, 2**64))
def test_any_rules_that_are_changed_once_are_read_or_refused(directory: Directory, seed: int) -> None:
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = write_directory(directory, Path(folder) / "rules")
        name, document = random.choice(sorted(directory.objectives.items()))
        text = block(mutated(document, random, 1))
        note(text)
        (root / "objectives" / f"{name}.yaml").write_text(text, encoding="utf-8")
        event(f"compiles: {check_rules(root, Path(folder))}")
