"""Loads models on a scratch Triton, asks them their golden requests, and judges the answers."""

from __future__ import annotations

from tidegate.triton.smoke.report import ModelSmoke, SmokeReport
from tidegate.triton.smoke.runner import smoke

__all__ = ["ModelSmoke", "SmokeReport", "smoke"]
