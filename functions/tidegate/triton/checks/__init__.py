"""Checks models by their files alone. Nothing here is on the gateway's path, and nothing starts Triton."""

from __future__ import annotations

from tidegate.triton.checks.accepted import Judged
from tidegate.triton.checks.checker import called_by_code, check_closure, check_models, code_calls, judge_models
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.folder import Repository
from tidegate.triton.checks.kinds import KINDS

__all__ = [
    "KINDS",
    "Judged",
    "ModelFinding",
    "Repository",
    "called_by_code",
    "check_closure",
    "check_models",
    "code_calls",
    "judge_models",
]
