"""A change that is refused, published and rolled back, by the commands that a researcher types."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from tidegate.cli.columns import wrapped

from demo.caller import resolve

SHIPPED = Path("routing_rules")
OBJECTIVE = Path("objectives/title_ranking.yaml")
NEW_APP = {"member_id": "196", "app_version": "8.10"}
CANARY = "{title_ranking@champion: 95, title_ranking_svd: 5}"
ALL_OF_IT = "{title_ranking@champion: 0, title_ranking_svd: 100}"
DEFAULT = "  - id: default\n"
DEAD = "  - {id: never, when: {app_version: {gte: '9'}}, serve: title_ranking_svd}\n"


def show(url: str, console: Console) -> list[str]:
    """Refuse, publish and roll back against the stack at `url`; return the promises that were not kept."""
    broken = []
    with TemporaryDirectory() as folder:
        rules = Path(folder, "rules")
        shutil.copytree(SHIPPED, rules)
        shutil.rmtree(rules / "cases", ignore_errors=True)
        before = _target(url)
        _edit(rules, DEFAULT, DEAD + DEFAULT)
        console.print("\nA rule that no request can reach is [bold]refused[/]:")
        exit_code = _run(console, url, "publish", "--rules", str(rules), shown="no request can reach")
        if exit_code != 1 or _target(url) != before:
            broken.append("a rule that cannot be reached is refused, and changes nothing")
        _edit(rules, DEAD, "")
        _edit(rules, CANARY, ALL_OF_IT)
        console.print(f"The canary to 100 % is [bold]published[/]; a new app got {before}:")
        exit_code = _run(console, url, "publish", "--rules", str(rules), "--why", "demo", shown="is live")
        if exit_code != 0 or _target(url) == before:
            broken.append("a published change decides")
        console.print(f"Now it gets {_target(url)}. [bold]Rolled back[/]:")
        if _run(console, url, "rollback", "--why", "demo", shown="is live") != 0 or not _becomes(url, before):
            broken.append("a rollback brings the decision back")
        console.print(f"And it gets {_target(url)} again.")
    return broken


def _edit(rules: Path, before: str, after: str) -> None:
    path = rules / OBJECTIVE
    path.write_text(path.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")


def _target(url: str) -> str:
    return str(resolve(url, "title_ranking", NEW_APP)["target"])


def _becomes(url: str, target: str, timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while _target(url) != target:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _run(console: Console, url: str, *arguments: str, shown: str = "") -> int:
    """Run a command as a researcher does; show the first line of its output with `shown`, else the last one."""
    command = [str(Path(sys.executable).with_name("tidegate")), *arguments, "--stack", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = done.stdout.rstrip().splitlines() or [""]
    for line in [each for each in lines if shown and shown in each][:1] or lines[-1:]:
        for each in wrapped(f"  {line.strip()}", console.width):
            console.print(each, markup=False)
    return done.returncode
