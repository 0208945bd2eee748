"""Everything that looks at a synthesized assembly before it may be deployed: cdk-nag, our own audit, cfn-lint, checkov."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import TidegateError

from infra.assembly import Assembly
from infra.audit import audit
from infra.function_assets import Assets
from infra.settings import Settings
from infra.shards import Shard

ROOT = Path(__file__).resolve().parents[1]
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
TOOL_TIMEOUT_S = 300
CHECKS = ("cdk-nag", "audit", "cfn-lint", "checkov")


class CheckError(TidegateError):
    """A check could not run."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One finding without a written reason: which check, where, what."""

    check: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.place}: {self.message}" if self.place else f"{self.check}: {self.message}"


def synthesize_and_check(
    stage: str, settings: Settings, shards: Sequence[Shard], assets: Assets, out: Path
) -> list[Found]:
    """Synthesize into the folder `out`, which is emptied first, and return the findings.

    Raises:
        CheckError: checkov's environment is missing, or a tool failed.
        SettingsError: the fleet does not fit into the stage.
    """
    # It starts Node.js, which takes seconds.
    from infra.app import synthesize

    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    report = out / "validation-report.json"
    try:
        synthesize(stage, settings, shards, assets, out)
    except RuntimeError as error:
        if not report.exists():
            raise CheckError(f"CDK could not synthesize: {str(error).splitlines()[0]}") from error
    nag = _nag_findings(report)
    with ThreadPoolExecutor() as pool:
        tools = [pool.submit(_cfn_lint, out), pool.submit(_checkov, out)]
        own = [Found("audit", "", problem) for problem in audit(Assembly.read(out))]
        return sorted([*nag, *own, *(found for tool in tools for found in tool.result())])


def _nag_findings(report: Path) -> list[Found]:
    if not report.exists():
        return []
    data = json.loads(report.read_text(encoding="utf-8"))
    return [
        Found("cdk-nag", construct["constructPath"], f"{violation['ruleName']}: {violation['description']}")
        for plugin in data["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    ]


def _cfn_lint(folder: Path) -> list[Found]:
    done = _run([str(Path(sys.executable).parent / "cfn-lint"), "--format", "json", *map(str, _templates(folder))])
    try:
        matches = json.loads(done.stdout or "[]")
    except ValueError as error:
        raise CheckError(f"cfn-lint failed: {done.stderr.strip() or done.stdout.strip()}") from error
    return [
        Found(
            "cfn-lint",
            f"{Path(match['Filename']).name}:{match['Location']['Start']['LineNumber']}",
            f"{match['Rule']['Id']}: {match['Message']}",
        )
        for match in matches
    ]


def _checkov(folder: Path) -> list[Found]:
    if not CHECKOV.exists():
        raise CheckError("checkov is not installed: run `make infra-check`, which makes its environment")
    done = _run(
        [
            *(str(CHECKOV), "--framework", "cloudformation", "--skip-download", "--quiet", "--compact"),
            *("--output", "json", "--directory", str(folder)),
        ]
    )
    try:
        results = json.loads(done.stdout)
    except ValueError as error:
        raise CheckError(f"checkov failed: {done.stderr.strip()[-1000:]}") from error
    if "results" not in results:
        raise CheckError(f"checkov found no template in {folder}")
    return [
        Found(
            "checkov",
            f"{check['file_path'].lstrip('/')} {check['resource']}",
            f"{check['check_id']}: {check['check_name']}",
        )
        for check in results["results"]["failed_checks"]
    ]


def _templates(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.template.json"))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  # our own command
            command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckError(f"{Path(command[0]).name} could not run: {error}") from error
