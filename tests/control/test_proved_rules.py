"""What a publisher is given to publish: a directory that was compiled, analysed and tested in a child process."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tidegate.bootstrap.rules_sources import CompiledRules, ProvedRules
from tidegate.errors import RulesError
from tidegate.rules import compile_directory

from tests.support.stack import eventually

FLEET = "shards: {a: {memory_mb: 900}}\nmodels: {ranker: {shards: auto, memory_mb: 300}}\n"
OBJECTIVE = """\
objective: ranking
summary: Rank.
owner: tests
context:
  country: {type: string}
rules:
  - {id: us, when: {country: US}, serve: ranker}
  - {id: default, serve: ranker}
"""
CASES = "- {name: in the US, context: {country: US}, expect: {rule: us}}\n"


def write(folder: Path, objective: str = OBJECTIVE, cases: str = CASES, fleet: str = FLEET) -> Path:
    for name, text in {"fleet": fleet, "objectives/ranking": objective, "cases/ranking": cases}.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def refusal(rules: ProvedRules | CompiledRules) -> str:
    """What is said of rules that are refused, by the check or by the test."""

    async def publish() -> None:
        await rules.test(await rules.check())

    with pytest.raises(RulesError) as caught:
        asyncio.run(publish())
    return str(caught.value)


def test_sound_rules_are_compiled_with_what_they_say_about_placing(tmp_path: Path) -> None:
    directory = write(tmp_path)
    rules = ProvedRules(directory)
    checked = asyncio.run(rules.check())
    assert checked.bundle == compile_directory(directory)
    assert checked.demand.auto == ("ranker",)
    assert checked.demand.declared_mb("ranker") == 300
    assert checked.summary == "1 objective, 2 rules: every rule can be reached, every context is served"
    assert checked.notes == ()
    assert asyncio.run(rules.test(checked)) == "1 case passes; 1 rule has no case"
    followed = asyncio.run(CompiledRules(directory).check())
    assert (followed.bundle, followed.demand) == (checked.bundle, checked.demand)


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('the wrong module')")
    directory = write(tmp_path / "rules")
    monkeypatch.chdir(tmp_path)
    assert asyncio.run(ProvedRules(directory).check()).bundle == compile_directory(directory)


def test_an_author_s_error_is_refused_where_it_stands(tmp_path: Path) -> None:
    directory = write(tmp_path, OBJECTIVE.replace("serve: ranker", "serve: rankr", 1))
    for rules in (ProvedRules(directory), CompiledRules(directory)):
        assert "rule 'us': unknown model 'rankr'" in refusal(rules)


def test_what_compiles_and_cannot_be_right_is_refused_too(tmp_path: Path) -> None:
    directory = write(tmp_path, OBJECTIVE + "  - {id: late, when: {country: CA}, serve: ranker}\n")
    text = refusal(ProvedRules(directory))
    assert "objectives/ranking.yaml:9: rule 'late': no request can reach this rule" in text
    assert asyncio.run(CompiledRules(directory).check()).bundle, "whoever follows rules may serve them meanwhile"
    directory = write(tmp_path, OBJECTIVE.replace("  - {id: default, serve: ranker}\n", ""))
    assert "objectives/ranking.yaml: objective 'ranking': no rule serves the context" in refusal(ProvedRules(directory))


def test_warnings_are_told_and_refuse_nothing(tmp_path: Path) -> None:
    directory = write(tmp_path, fleet=FLEET.replace("models: {", "models: {spare: {shards: [a]}, "))
    (note,) = asyncio.run(ProvedRules(directory).check()).notes
    assert note.startswith("fleet.yaml:2: no rule, fallback, shadow, alias or caller's overrides name model 'spare'")


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        (
            CASES.replace("rule: us", "rule: default"),
            "cases/ranking.yaml:1: case 'in the US' of objective 'ranking' fails: rule: expected \"default\", got \"us\"",
        ),
        (CASES.replace("rule: us", "rul: us"), "case 'in the US': unknown key 'rul'"),
    ],
)
def test_a_case_that_fails_or_cannot_be_read_is_refused(cases: str, words: str, tmp_path: Path) -> None:
    assert words in refusal(ProvedRules(write(tmp_path, cases=cases)))


def provers(directory: Path) -> list[str]:
    """The processes of this machine that were told of a directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [file.parent.name] if str(directory).encode() in file.read_bytes() else []
    return found


def test_an_event_loop_goes_on_and_the_child_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    rules = "".join(f"  - {{id: r{number}, when: {{country: C{number}}}, serve: ranker}}\n" for number in range(3_000))
    directory = write(tmp_path, OBJECTIVE.replace("rules:\n", "rules:\n" + rules))

    async def impatient() -> None:
        check = asyncio.create_task(ProvedRules(directory).check())
        while not provers(directory):
            assert not check.done()
            await asyncio.sleep(0.005)
        check.cancel()
        await asyncio.wait([check])
        assert check.cancelled()

    asyncio.run(impatient())
    assert eventually(lambda: not provers(directory))


@pytest.mark.parametrize("source", [ProvedRules, CompiledRules])
@pytest.mark.parametrize("name", ["callers.YAML", "callers.yaml", "callers.json"])
def test_callers_that_cannot_be_read_are_never_published_as_none(
    name: str, source: type[ProvedRules | CompiledRules], tmp_path: Path
) -> None:
    """Without callers everybody may call everything, so a file that is not read must stop what goes live."""
    directory = write(tmp_path)
    if name == "callers.yaml":
        (directory / name).symlink_to("moved/callers.yaml")
    else:
        (directory / name).write_text("callers: {web: {objectives: [ranking]}}\n")
    assert name in refusal(source(directory))


@pytest.mark.parametrize("source", [ProvedRules, CompiledRules])
def test_empty_callers_are_never_published_as_none(source: type[ProvedRules | CompiledRules], tmp_path: Path) -> None:
    directory = write(tmp_path)
    (directory / "callers.yaml").write_text("---\n# later\n")
    assert "callers.yaml" in refusal(source(directory))
