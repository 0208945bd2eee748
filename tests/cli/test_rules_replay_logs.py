"""`tidegate rules replay`: whatever a log holds, the outcome is clear; a million lines, pipes, terminals and Ctrl-C."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.replayed import line, write_log, write_rules
from tests.cli.rules_runner import rules, rules_json

GOOD = line("ranking", {"member_id": "1", "country": "SE"}).encode()
BARE = json.dumps({"member_id": "1", "age": 30}).encode()


def replay(tmp_path: Path, content: bytes, *options: object, exit_code: int = 0, name: str = "log.jsonl") -> Any:
    """What `--json` says of a log with this content; the text form must agree on the exit code."""
    log = tmp_path / name
    log.write_bytes(content)
    root = write_rules(tmp_path / "rules")
    assert rules("replay", root, "--log", log, *options).exit_code == exit_code
    return rules_json("replay", root, "--log", log, *options, exit_code=exit_code)


def errors(found: Any) -> list[tuple[str, int, list[int]]]:
    return [(each["detail"], each["count"], each["first_lines"]) for each in found["errors"]]


# What a log may look like.


@pytest.mark.parametrize(
    "content",
    [
        GOOD + b"\n" + GOOD + b"\n",
        GOOD + b"\n" + GOOD,
        GOOD + b"\r\n" + GOOD + b"\r\n",
        b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n",
        b"\n  \n" + GOOD + b"\n\r\n\t" + GOOD + b" \n\n",
        gzip.compress(GOOD + b"\n" + GOOD + b"\n"),
        gzip.compress(GOOD + b"\n") + gzip.compress(GOOD),
        gzip.compress(GOOD + b"\n" + GOOD) + bytes(512),
        GOOD.replace(b"SE", "Åland 🐟".encode()) + b"\n" + GOOD,
        GOOD.replace(b"SE", b"\\ud800") + b"\n" + GOOD,
        GOOD.replace(b"SE", b"x" * 900_000) + b"\n" + GOOD,
    ],
    ids=[
        "plain",
        "no last newline",
        "CRLF",
        "BOM",
        "blank lines",
        "gzip",
        "gzip members",
        "padded gzip",
        "UTF-8",
        "lone surrogate",
        "long line",
    ],
)
@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_log_is_read_by_its_content(content: bytes, name: str, tmp_path: Path) -> None:
    found = replay(tmp_path, content, name=name)
    assert (found["lines"], found["decided"], found["errors"], found["ok"]) == (2, 2, [], True)


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (b"{", "not JSON"),
        (b"{'objective': 1}", "not JSON"),
        (b"\x00\x00\x00", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (GOOD.replace(b"SE", b"\xe9"), "not UTF-8"),
        (GOOD + GOOD, "more than one JSON value"),
        (b"  " + GOOD + b",", "more than one JSON value"),
        (GOOD.replace(b'"SE"', b"NaN"), "NaN and Infinity are not JSON: numbers are finite"),
        (GOOD.replace(b'"SE"', b"-Infinity"), "NaN and Infinity are not JSON: numbers are finite"),
        (GOOD.replace(b'"SE"', b'"SE", "country": "NO"'), "a name is duplicated in one object"),
        (b" " + GOOD[:-1] + b', "objective": "ranking"}', "a name is duplicated in one object"),
        (GOOD.replace(b'"SE"', b"9" * 5000), "an integer of more than 4300 digits"),
        (b'{"context":' + b"[" * 200_000, "nested too deep"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "no `context`"),
        (b'{"objective": "ranking", "context": null}', "no `context`"),
        (b'{"objective": "ranking", "context": []}', "`context` is not an object"),
        (b'{"context": {}}', "no `objective`"),
        (b'{"context": {}, "objective": 7}', "`objective` is not text"),
        (
            GOOD.replace(b'"context"', b'"at": "soon", "context"'),
            "`at` is not a time: neither ISO 8601 nor Unix seconds",
        ),
        (GOOD.replace(b'"context"', b'"at": true, "context"'), "`at` is not a time: neither ISO 8601 nor Unix seconds"),
        (
            GOOD[:-1] + b', "at": 1798113600000}',
            "`at` is not a time: it is after the year 9999 in Unix seconds; divide milliseconds by 1000",
        ),
        (GOOD[:-1] + b', "at": 1e999}', "`at` is not a time: neither ISO 8601 nor Unix seconds"),
        (GOOD[:-1] + b', "allocations": {}, "at": "x"}', "`at` is not a time: neither ISO 8601 nor Unix seconds"),
        (
            b'{"objective": "search", "context": {"allocations": {}}, "allocations": {}}',
            "`allocations` are both in the line and in its context",
        ),
        (GOOD.replace(b"SE", b"x" * 2_000_000), "longer than 1 MiB"),
        (b"x" * 5_000_000, "longer than 1 MiB"),
        (GOOD.replace(b"SE", b"x" * (1 << 20)), "longer than 1 MiB"),
        (GOOD.replace(b'"SE"', b"1e999"), "attribute 'country' must be text, got a number that is not finite"),
        (GOOD.replace(b'"SE"', b"null"), "attribute 'country' must be text, got null"),
        (GOOD.replace(b'"SE"', b'{"a": 1}'), "attribute 'country' must be text, got an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:20].decode("latin-1"),
)
def test_a_bad_line_is_told_by_its_number_and_the_others_count(bad: bytes, detail: str, tmp_path: Path) -> None:
    lines = [GOOD, bad, GOOD, GOOD, bad]
    found = replay(tmp_path, b"\n".join(lines), exit_code=1)
    assert errors(found) == [(detail, 2, [2, 5])]
    assert (found["lines"], found["decided"]) == (5, 3)


def test_a_line_counts_its_bytes_and_not_where_it_lies_in_the_file(tmp_path: Path) -> None:
    just = GOOD.replace(b"SE", b"x" * ((1 << 20) - len(GOOD) + 2))
    assert len(just) == 1 << 20
    for before in (0, 1, 5000, 10_001):
        found = replay(tmp_path, (GOOD + b"\n") * before + just + b"\n" + just[:-2] + b'x"}}\n' + GOOD, exit_code=1)
        assert errors(found)[0][1:] == (1, [before + 2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "error: the log is empty: nothing was replayed"),
        (b"\n\r\n \n", "error: the log is empty: nothing was replayed"),
        (gzip.compress(b""), "error: the log is empty: nothing was replayed"),
        (random.Random(1).randbytes(100_000), "error: no line of the log is a record"),
        ("\ufeff".encode("utf-16-le") + GOOD.decode().encode("utf-16-le"), "error: no line of the log is a record"),
        (b"member_id,country\n1,SE\n", "error: no line of the log is a record"),
    ],
    ids=["empty", "blank", "empty gzip", "binary", "UTF-16", "CSV"],
)
def test_a_log_without_a_context_fails_and_says_so(content: bytes, words: str, tmp_path: Path) -> None:
    assert replay(tmp_path, content, exit_code=1)["contexts"] == 0
    assert words in rules("replay", tmp_path / "rules", "--log", tmp_path / "log.jsonl").stdout


def test_a_log_without_the_objective_that_was_asked_for_fails(tmp_path: Path) -> None:
    assert replay(tmp_path, GOOD, "--objective", "search", exit_code=1)["skipped"] == 1
    result = rules("replay", tmp_path / "rules", "--log", tmp_path / "log.jsonl", "--objective", "search")
    assert "error: the log has no context of this objective" in result.stdout


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_gzip_that_is_cut_off_counts_what_came_before(keep: float, tmp_path: Path) -> None:
    lines = [line("ranking", {"member_id": f"m{number}", "age": number}) for number in range(20_000)]
    whole = gzip.compress("\n".join(lines).encode(), 1)
    found = replay(tmp_path, whole[: int(len(whole) * keep)], exit_code=1)
    (error,) = found["errors"]
    assert "cut off" in error["detail"]
    assert found["decided"] > 20_000 * keep * 0.9
    assert error["first_lines"] == [found["decided"] + 1]


def test_a_gzip_that_is_damaged_counts_what_came_before(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"\n".join([GOOD] * 3)))
    whole[-6] ^= 1
    found = replay(tmp_path, bytes(whole), exit_code=1)
    assert "damaged" in errors(found)[-1][0]
    assert found["decided"] >= 2


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\x00", b"PK\x03\x04"])
def test_another_compression_is_named_and_refused(magic: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(magic + b"rest")
    result = rules("replay", write_rules(tmp_path / "rules"), "--log", tmp_path / "log")
    assert result.exit_code == 2
    assert "only gzip is read" in result.stderr


# What a line may look like.


def test_bare_contexts_and_lines_without_an_objective_are_of_the_one_that_was_asked_for(tmp_path: Path) -> None:
    lines = [BARE, GOOD, b'{"context": {"member_id": "1"}}', b'{"objective": "search", "context": {}}']
    found = replay(tmp_path, b"\n".join(lines), "--objective", "ranking")
    reached = {each["rule"]: each["requests"] for each in found["decisions"]}
    assert (reached, found["skipped"]) == ({"adults": 1, "default": 2}, 1)
    assert errors(replay(tmp_path, BARE, exit_code=1)) == [("no `context`", 1, [1])]
    half = b'{"objective": "ranking", "member_id": "1"}'
    assert errors(replay(tmp_path, half, "--objective", "ranking", exit_code=1)) == [("no `context`", 1, [1])]


def test_allocations_may_stand_beside_the_context_as_in_a_case(tmp_path: Path) -> None:
    lines = [
        line("search", {"member_id": "1"}, allocations={"outside": "a"}),
        line("search", {"member_id": "2", "allocations": {"outside": "a"}}),
        line("search", {"member_id": "3"}, allocations={"outside": "b"}, at="2026-01-01T00:00:00Z"),
    ]
    found = replay(tmp_path, "\n".join(lines).encode())
    assert {each["cell"]: each["requests"] for each in found["decisions"]} == {"a": 2, "b": 1}
    wrong = line("search", {}, allocations={"outside": [1]}).encode()
    assert "attribute 'allocations' must give" in errors(replay(tmp_path, wrong, exit_code=1))[0][0]


def test_a_member_whose_name_is_broken_text_is_still_counted_where_the_caller_allocates(tmp_path: Path) -> None:
    bad = line("search", {"member_id": "\ud800"}, allocations={"outside": "a"}).encode()
    assert replay(tmp_path, bad + b"\n" + bad)["shares"][0]["count"] == 1


def test_unknown_objectives_are_bounded(tmp_path: Path) -> None:
    lines = [line(f"o{number}", {}) for number in range(500)] + [line("o\ud800\x1b[31m", {})]
    found = replay(tmp_path, "\n".join(lines).encode(), exit_code=1)
    assert len(found["errors"]) == 21
    assert sum(each["count"] for each in found["errors"]) == 501


# Streams, terminals, signals.

PROGRAM = """
import sys
from tidegate.cli import main
try:
    main()
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak", int(peak.split()[1]) // 1024, file=sys.stderr)
"""


def start(*arguments: object, **streams: Any) -> subprocess.Popen[bytes]:
    """The command as its own process, whose peak memory in MiB is the last thing on standard error."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "rules", "replay", *map(str, arguments)],
        # A shell that runs tests in the background has Ctrl-C switched off, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def peak_mib(stderr: bytes) -> int:
    name, peak = stderr.decode().split()[-2:]
    assert name == "peak", stderr
    return int(peak)


def million() -> Iterator[str]:
    """A million requests of 300 000 members; every 100 000th line is no record."""
    for number in range(1_000_000):
        if number % 100_000 == 99_999:
            yield "oops\n"
            continue
        member, device = number * 7 % 300_000, ("tv", "web")[number % 5 == 0]
        yield (
            f'{{"objective": "ranking", "context": {{"member_id": "m{member}", "country": "SE", '
            f'"device": "{device}", "age": {7 + number % 2 * 30}}}}}\n'
        )


def test_a_million_lines_are_counted_exactly_in_constant_memory(tmp_path: Path) -> None:
    root, log = write_rules(tmp_path / "rules"), tmp_path / "log.jsonl"
    with log.open("w", encoding="utf-8") as stream:
        stream.writelines(million())
    small = start(root, "--log", write_log(tmp_path / "small.jsonl", [GOOD.decode()]), "--json")
    base_mib = peak_mib(small.communicate(timeout=300)[1])
    process = start(root, "--log", log, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    found = json.loads(out)
    assert (found["lines"], found["contexts"], found["decided"]) == (1_000_000, 999_990, 999_990)
    assert errors(found) == [("not JSON", 10, [100_000, 200_000, 300_000, 400_000, 500_000])]
    reached = {}
    for each in found["decisions"]:
        reached[each["rule"]] = reached.get(each["rule"], 0) + each["requests"]
    numbers = [number for number in range(1_000_000) if number % 100_000 != 99_999]
    young = [number for number in numbers if number % 2 == 0]
    tv = {number * 7 % 300_000 for number in young if number % 5}
    on_tv = sum(1 for number in young if number % 5)
    assert reached == {"adults": len(numbers) - len(young), "canary": on_tv, "default": len(young) - on_tv}
    (shares,) = found["shares"]
    assert shares["count"] == len(tv)
    assert shares["verdict"] == "match"
    # The filter of members takes 32 MiB; the log itself is some 100 MB.
    assert peak_mib(err) - base_mib < 64


def test_a_line_of_100_mb_does_not_fill_the_memory(tmp_path: Path) -> None:
    root, log = write_rules(tmp_path / "rules"), tmp_path / "log.jsonl"
    with log.open("wb") as stream:
        stream.write(GOOD + b'\n{"objective": "')
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
        stream.write(b"\n" + GOOD)
    process = start(root, "--log", log, "--json")
    out, err = process.communicate(timeout=300)
    found = json.loads(out)
    assert errors(found) == [("longer than 1 MiB", 1, [2])]
    assert found["decided"] == 2
    assert peak_mib(err) < 150


def test_standard_input_is_read_plain_and_gzip(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    for content in (GOOD + b"\n" + GOOD, gzip.compress(GOOD + b"\n" + GOOD)):
        process = start(root, "--log", "-", "--json", stdin=subprocess.PIPE)
        out, err = process.communicate(content, timeout=300)
        assert process.returncode == 0
        assert json.loads(out)["decided"] == 2
        assert err.decode().split()[0] == "peak", "nothing is shown where standard error is no terminal"


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_prints_what_was_counted_and_exits_with_130(as_json: bool, tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    process = start(root, "--log", "-", *(["--json"] if as_json else []), stdin=subprocess.PIPE)
    assert process.stdin is not None
    lines = (GOOD + b"\n") * 10_000
    # A pipe holds 64 KiB: when this much is written, most of it has been read.
    for _ in range(3):
        process.stdin.write(lines)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    silencer = threading.Timer(30, process.kill)
    silencer.start()
    out, err = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
    silencer.cancel()
    process.stdin.close()
    assert process.wait(timeout=300) == 130
    assert b"Traceback" not in err
    if as_json:
        found = json.loads(out)
        assert (found["complete"], found["ok"]) == (False, False)
        assert 0 < found["lines"] == found["decided"] <= 30_000
    else:
        assert b"interrupted: what follows is of the first" in out
        assert b"default" in out
