"""The README's recorded terminal: the recorder works on given output, and what is committed is a whole run of the demo."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from demo import recording
from tests.docs.blocks import ROOT

RECORDING = ROOT / "docs" / "demo.svg"
PRINTED = ["The canary is [bold]published[/]:", "  revision 3f9a2c4b5d6e is live", "a < b & c", ""]


def text_of(file: Path) -> str:
    elements = ET.parse(file).iter("{http://www.w3.org/2000/svg}text")
    return "\n".join("".join(each.itertext()) for each in elements).replace("\N{NO-BREAK SPACE}", " ")


def recorded(file: Path) -> bytes:
    console = recording.console(80)
    with console.status("starting"):
        for line in PRINTED:
            console.print(line)
    recording.save(console, file, title="make demo")
    return file.read_bytes()


def test_what_is_printed_is_in_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = recorded(tmp_path / "first.svg")
    printed = capsys.readouterr().out
    text = text_of(tmp_path / "first.svg")
    for shown in ("make demo", "published", "revision 3f9a2c4b5d6e is live", "a < b & c"):
        assert shown in text
    assert "starting" not in text
    assert "The canary is published:" in printed, "it is printed, too"
    assert b"font-face" not in picture, "a README's picture loads nothing"
    assert recorded(tmp_path / "second.svg") == picture


def test_the_committed_recording_is_a_whole_run() -> None:
    text = text_of(RECORDING)
    for shown in ("is ready after", "experiment", "published", "Rolled back", "killed", "fallback", "Stopped;"):
        assert shown in text
    assert "not as promised" not in text
    assert RECORDING.stat().st_size < 150_000
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
