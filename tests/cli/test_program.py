"""The program itself: versions, completion, logs, Ctrl-C at any moment, and wrong usage as JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from tidegate import __version__
from tidegate.cli import main
from tidegate.cli.logs import log_to_stderr
from tidegate.cli.up import OF_EXTRA

from tests.cli.rules_runner import RULES
from tests.docs.blocks import ROOT

ENTRY = "import sys; sys.argv[0] = 'tidegate'; from tidegate.entry import main; main()"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, list(map(str, arguments)), catch_exceptions=False)


def test_versions_are_shown() -> None:
    assert run("--version").stdout.split()[-1] == __version__
    assert run("version").stdout.startswith(f"tidegate {__version__}, Python 3.")
    assert json.loads(run("version", "--json").stdout)["version"] == __version__


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        (("status", "--stack", "http://127.0.0.1:9"), "http://127.0.0.1:9/v1/fleet"),
        (("status", "--stack", "http://127.0.0.1:9", "--bucket", "a-bucket"), "--stack names all stores"),
        (("up", "--rules", "/nowhere/at/all/that/is/long"), "/nowhere/at/all/that/is/long"),
    ],
)
def test_errors_keep_within_the_columns_of_a_terminal(command: tuple[str, ...], whole: str) -> None:
    said = run(*command, COLUMNS="50").stderr
    assert whole in said
    error = said[said.lower().index("error: ") :]
    assert all(len(line) <= 50 or " " not in line.strip() for line in error.splitlines()), error


@pytest.mark.parametrize(("typed", "meant"), [(("stauts",), "status"), (("rules", "chek"), "check")])
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(typed: tuple[str, ...], meant: str) -> None:
    result = run(*typed)
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.stderr


def test_a_stack_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("routing_rules", "triton_models"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tidegate.cli.up.OF_EXTRA", ("numpy", "no_such_module"))
    result = run("up", "--port", "0")
    assert result.exit_code == 1
    assert "needs no_such_module" in result.stderr
    assert "install tidegate[local]" in result.stderr


def test_the_extra_is_the_one_that_the_package_declares() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["local"]
    assert {re.match(r"[a-z]+", line)[0] for line in extra} == set(OF_EXTRA)  # type: ignore[index]


def test_a_stack_without_a_project_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("up")
    assert result.exit_code == 2
    assert "'routing_rules' does not exist" in result.stderr
    assert "`tidegate init`" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("named", [True, False])
def test_completion_is_written_where_the_shell_looks(shell: str, named: bool, tmp_path: Path) -> None:
    option = f"--install-completion={shell}" if named else "--install-completion"
    homes = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "", "ZDOTDIR": ""}
    result = run(option, SHELL=f"/usr/bin/{shell}", **homes)
    assert result.exit_code == 0, result.output
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert str(file) in result.stdout.replace("\n", "")
    assert "_TIDEGATE_COMPLETE" in file.read_text()


def test_completion_of_an_unknown_shell_says_which_there_are() -> None:
    result = run("--install-completion", SHELL="/bin/tcsh")
    assert (result.exit_code, "bash, zsh, fish" in result.output) == (2, True)


def test_commands_are_completed_without_importing_any(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "tidegate rules e", "COMP_CWORD": "2", "_TIDEGATE_COMPLETE": "bash_complete"}
    program = (
        f"{ENTRY.replace('main()', '')}\ntry:\n    main()\nfinally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | words, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["plain,explain"]
    assert "tidegate.cli.rules.explain" not in done.stderr.split()


@pytest.mark.parametrize("form", ["text", "json"])
def test_reports_have_a_date_and_a_level(form: str) -> None:
    @click.command("report")
    def report() -> None:
        log_to_stderr()
        logging.getLogger("tidegate.x").info("one %s", "thing")
        logging.getLogger("tidegate.x").warning("another")

    # Functions that other tests ran in this process have handlers of their own.
    before = logging.getLogger("tidegate").handlers[:]
    found = CliRunner().invoke(_with(report), ["--log-level", "info", "--log-format", form, "report"])
    first, second = found.stderr.splitlines()
    if form == "json":
        assert json.loads(first).items() >= {"level": "info", "logger": "tidegate.x", "message": "one thing"}.items()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", json.loads(second)["time"])
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING another", second)
    assert logging.getLogger("tidegate").handlers == before


def _with(command: click.Command) -> click.Group:
    """The program with another command."""
    group = click.Group("tidegate", params=main.params, callback=main.callback)
    group.add_command(command)
    return group


# Prints a line once `main` imports something: from then on it answers for what an interrupt does.
ANNOUNCED = """
class Announcing:
    def find_spec(self, *_):
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            print(flush=True)

sys.meta_path.insert(0, Announcing())
main()
"""

COMMANDS = {
    "at once": ("--help",),
    "rules": ("rules", "check", str(RULES)),
    "a log that never ends": ("rules", "replay", str(RULES), "--log", "-"),
    "up": ("up", "--rules", str(RULES), "--models", str(ROOT / "tests/repositories/small"), "--port", "0"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("after_s", [0.02, 0.15, 0.6])
def test_an_early_interrupt_ends_with_130_and_no_traceback(command: str, after_s: float, tmp_path: Path) -> None:
    """Wherever it hits: in the imports, while arguments are parsed, or in the work."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY.replace("main()", ANNOUNCED), *COMMANDS[command]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    # NumPy's C code prints its own where an interrupt meets its import.
    assert "Traceback" not in errors or "failed to import" in errors
    assert process.returncode in (130, 0), errors
    assert process.returncode == 130 or command in ("at once", "rules"), "it had ended"


INTERRUPTED_WITHIN = """
import os, signal
import click

class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

class Interrupted:
    field = Field()

@click.command()
def late():
    click.echo("it ran")
"""


def test_an_interrupt_that_an_import_would_turn_into_another_error_ends_with_130(tmp_path: Path) -> None:
    """`__set_name__` is called from C: Python 3.11 reports a RuntimeError instead."""
    (tmp_path / "late.py").write_text(INTERRUPTED_WITHIN)
    named = "from tidegate.cli import COMMANDS; COMMANDS['late'] = ('late:late', 'Is interrupted.'); "
    done = subprocess.run(
        [sys.executable, "-c", named + ENTRY, "late"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'functions'}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bogus", "rules", "check", "--json"),
        ("bogus", "--json"),
        ("rules", "--bogus", "--json"),
        ("rules", "bogus", "--json"),
        ("rules", "check", "--bogus", "--json"),
        ("publish", "--bogus", "--json"),
        ("status", "--interval-s", "x", "--json"),
    ],
)
def test_wrong_usage_is_json_wherever_it_is_wrong(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    failed = json.loads(result.stdout)
    assert (failed["ok"], failed["exit_code"]) == (False, 2)
    assert failed["error"]


def test_a_path_that_is_no_text_is_escaped(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/first\xff"
    command = [sys.executable, "-m", "tidegate.cli", "init"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for options in ([], ["--json"]):
        done = subprocess.run(
            [*command, folder + str(len(options)).encode(), *options], capture_output=True, env=environment, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"first\\udcff" in done.stdout
    assert "first\udcff" in json.loads(done.stdout)["directory"]


@pytest.mark.parametrize("command", ["explain", "replay", "diff"])
@pytest.mark.parametrize("stdin", ["<&-", "0>/dev/null"])
def test_standard_input_that_cannot_be_read_is_wrong_usage(command: str, stdin: str) -> None:
    arguments = {
        "explain": f"{RULES} --objective title_ranking --context -",
        "replay": f"{RULES} --log -",
        "diff": f"{RULES} {RULES} --log -",
    }
    line = f"{sys.executable} -m tidegate.cli rules {command} {arguments[command]} {stdin}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


def test_init_with_a_name_that_is_too_long_is_wrong_usage(tmp_path: Path) -> None:
    result = run("init", tmp_path / ("a" * 300))
    assert (result.exit_code, "File name too long" in " ".join(result.output.split())) == (2, True)


@pytest.mark.parametrize("taken", ["triton_models", "routing_rules/cases"])
def test_init_writes_all_or_nothing(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    result = run("init", tmp_path)
    assert (result.exit_code, "is not a folder" in " ".join(result.output.split())) == (2, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / taken]


def test_an_interrupt_while_the_interpreter_ends_leaves_the_exit_code(tmp_path: Path) -> None:
    late = "import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); "
    command = [sys.executable, "-c", late + ENTRY, "version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
