"""Seeding the table of facts: what a seed file is, and what `tidegate facts seed` writes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.aws.fact_files import Fact, FactFile, find_fact_files
from tidegate.aws.facts import seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.cli import main
from tidegate.errors import ModelConfigError, StoreError
from tidegate.testing import MemoryModelStore

from tests.support.aws import LocalAws, closed_port

LIKES = '{"key": "42", "value": {"liked": [50, 181]}}\n{"key": "\\u00e9", "value": [1.5, "\u2028", null]}\n\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models with facts, and one without."""
    for path, text in {
        "history/facts/likes.jsonl": LIKES,
        "history/1/model.py": "",
        "prices/facts/price.jsonl": "".join(f'{{"key": "{number}", "value": {number}}}\n' for number in range(60)),
        "ranker/1/model.py": "",
    }.items():
        file = tmp_path / "models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "models"


def stored(aws: LocalAws, table: str) -> dict[tuple[str, str], Any]:
    items = aws.clients().client("dynamodb").scan(TableName=table)["Items"]
    return {(item["sk"]["S"], item["pk"]["S"]): json.loads(item["value"]["S"]) for item in items}


def seed(monkeypatch: pytest.MonkeyPatch, *arguments: object, **variables: str) -> Result:
    for name in ("TIDEGATE_FACTS_TABLE", "TIDEGATE_AWS_ENDPOINT_URL", "TIDEGATE_AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner(env=variables).invoke(main, ["facts", "seed", *map(str, arguments)], catch_exceptions=False)


def test_a_repository_is_seeded_whole_and_again_without_a_change(
    aws: LocalAws, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--table", "facts-1", "--endpoint-url", aws.url)
    for _ in range(2):
        result = seed(monkeypatch, repository, *place, "--create", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {
            "format_version": 1,
            "table": "facts-1",
            "facts": {"likes": 2, "price": 60},
        }
        assert stored(aws, "facts-1") == {
            ("likes", "42"): {"liked": [50, 181]},
            ("likes", "é"): [1.5, "\u2028", None],
        } | {("price", str(number)): number for number in range(60)}


def test_a_model_or_a_file_is_seeded_by_itself_and_the_rest_stays(
    aws: LocalAws, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"TIDEGATE_FACTS_TABLE": "facts-2", "TIDEGATE_AWS_ENDPOINT_URL": aws.url}
    assert seed(monkeypatch, repository / "history", "--create", **named).stdout == "likes: 2 facts in table facts-2\n"
    file = repository / "history/facts/likes.jsonl"
    file.write_text('{"key": "42", "value": "new"}\n')
    assert seed(monkeypatch, file, **named).exit_code == 0
    assert stored(aws, "facts-2") == {("likes", "42"): "new", ("likes", "é"): [1.5, "\u2028", None]}


def test_what_the_table_has_no_capacity_for_is_written_again(aws: LocalAws, tmp_path: Path) -> None:
    refused: list[int] = []

    class Busy:
        """Clients of a DynamoDB that gives half of a batch back, once for each."""

        async def call(self, service: str, what: str, work: Any) -> Any:
            return await aws.clients().call(service, what, lambda client: work(Half(client)))

    class Half:
        def __init__(self, client: Any) -> None:
            self.client = client

        def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> Any:
            ((table, puts),) = RequestItems.items()
            kept = puts[: len(puts) // 2]
            refused.append(len(kept))
            self.client.batch_write_item(RequestItems={table: puts[len(kept) :]})
            return {"UnprocessedItems": {table: kept} if kept else {}}

    asyncio.run(provision_facts(aws.clients(), "facts-3"))
    file = tmp_path / "price.jsonl"
    file.write_text("".join(f'{{"key": "{number}", "value": {number}}}\n' for number in range(30)))
    told: list[tuple[str, int, int]] = []
    asyncio.run(seed_facts(Busy(), "facts-3", [FactFile("price", file)], lambda *each: told.append(each)))  # type: ignore[arg-type]
    assert len(stored(aws, "facts-3")) == 30
    assert sum(count > 0 for count in refused) > 2
    assert max(told) == ("price", 30, 30)


def test_a_missing_table_and_a_silent_store_are_told(
    aws: LocalAws, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = seed(monkeypatch, repository, "--table", "nowhere", "--endpoint-url", aws.url)
    assert result.exit_code == 1
    assert "refused writing facts to table nowhere: ResourceNotFoundException" in result.stderr
    with closed_port() as url:
        result = seed(monkeypatch, repository, "--table", "nowhere", "--endpoint-url", url)
    assert result.exit_code == 1
    assert f"DynamoDB at {url} did not answer for writing facts to table nowhere" in result.stderr


def test_nothing_is_written_where_one_file_is_wrong(aws: LocalAws, repository: Path) -> None:
    asyncio.run(provision_facts(aws.clients(), "facts-4"))
    (repository / "prices/facts/price.jsonl").write_text('{"key": "1", "value": 1}\n{"key": 2, "value": 2}\n')
    with pytest.raises(ModelConfigError, match=r"price\.jsonl:2: a key must"):
        asyncio.run(seed_facts(aws.clients(), "facts-4", find_fact_files(repository)))
    assert stored(aws, "facts-4") == {}
    with pytest.raises(StoreError):
        asyncio.run(seed_facts(aws.clients(), "nowhere", find_fact_files(repository / "history")))


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "nonsense": (b'{"key": "1", "value": 1}\n{key}\n', r"likes\.jsonl:2: the line is not JSON"),
        "not finite": (b'{"key": "1", "value": NaN}\n', r"likes\.jsonl:1: the line is not JSON"),
        "a name twice": (b'{"key": "1", "value": {"a": 1, "a": 2}}', r"likes\.jsonl:1: a name is duplicated"),
        "list": (b"[1]\n", r"likes\.jsonl:1: a line has the keys 'key' and 'value' and no others"),
        "more keys": (b'{"key": "1", "value": 1, "ttl": 3}', r"likes\.jsonl:1: a line has the keys"),
        "no value": (b'{"key": "1"}', r"likes\.jsonl:1: a line has the keys"),
        "empty key": (b'{"key": "", "value": 1}', r"likes\.jsonl:1: a key must be non-empty"),
        "long key": (b'{"key": "%s", "value": 1}' % (b"k" * 2049), "the key has 2049 bytes, and at most 2048"),
        "large value": (b'{"key": "1", "value": "%s"}' % (b"v" * 380_000), "the value has 380002 bytes"),
        "twice": (b'{"key": "1", "value": 1}\n\n{"key": "1", "value": 2}\n', r":3: the key of line 1 again"),
        "half a character": (b'{"key": "\\ud800", "value": 1}', r":1: lone surrogates"),
        "latin-1": (b'{"key": "\xe9", "value": 1}', r"likes\.jsonl is not UTF-8: byte 9"),
    }.values(),
)
def test_a_malformed_line_is_told_with_its_place_and_without_its_content(
    tmp_path: Path, text: bytes, told: str
) -> None:
    file = tmp_path / "likes.jsonl"
    file.write_bytes(text)
    with pytest.raises(ModelConfigError, match=told):
        FactFile("likes", file).read()


def test_a_value_is_stored_without_blanks(tmp_path: Path) -> None:
    file = tmp_path / "likes.jsonl"
    file.write_bytes(b'{"value": {"b": [1, 2], "a": "\xc3\xa9 \\u00e9"}, "key": "1"}')
    assert FactFile("likes", file).read() == (Fact("1", '{"b":[1,2],"a":"é é"}'),)


def test_wrong_usage_ends_with_2_and_says_what_would_be_right(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {
        (repository,): "name it with --table, with --stack URL, or in TIDEGATE_FACTS_TABLE",
        (repository / "nothing", "--table", "abc"): "does not exist",
        (repository, "--table", "a b"): "must be the name of a table",
        (repository, "--table", "abc", "--endpoint-url", "localhost:1"): "must be an http:// or https:// address",
        (repository, "--table", "abc", "--region", "Mars"): "must be a region such as eu-west-1",
    }
    for arguments, told in cases.items():
        result = seed(monkeypatch, *arguments)
        assert (result.exit_code, told in result.stderr) == (2, True), result.output


def test_a_place_without_seed_files_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, told in {
        repository / "ranker": r"has no seed files: a model's are in <model>/facts/<name>.jsonl",
        repository / "history/1/model.py": "is not a seed file: name it <name>.jsonl",
    }.items():
        result = seed(monkeypatch, path, "--table", "abc")
        assert (result.exit_code, told in result.stderr) == (1, True), result.output
    (repository / "ranker/facts").mkdir()
    (repository / "ranker/facts/price.jsonl").write_text("")
    assert "seed one set of facts; rename one" in seed(monkeypatch, repository, "--table", "abc").stderr


def test_facts_are_not_pushed_with_their_model(repository: Path) -> None:
    (repository / "history/config.pbtxt").write_text("")
    store = MemoryModelStore()
    asyncio.run(store.push("history", repository / "history", lambda *_: None))
    pushed = [*asyncio.run(store.files("history", None)), *asyncio.run(store.files("history", 1))]
    assert [file.path for file in pushed] == ["config.pbtxt", "1/model.py"]
    (repository / "history/facts/likes.jsonl").write_text("other facts")
    assert asyncio.run(store.push("history", repository / "history", lambda *_: None)).files == 0
