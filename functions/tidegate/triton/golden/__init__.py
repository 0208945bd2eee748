"""Golden requests: what a model is asked before it serves, and whether its answers are what its config declares.

Usable against any endpoint: a `GoldenRequest` makes the HTTP request, `validate_answer` judges the response.
"""

from __future__ import annotations

from tidegate.triton.golden.answers import validate_answer
from tidegate.triton.golden.requests import GoldenRequest
from tidegate.triton.golden.samples import golden_requests

__all__ = ["GoldenRequest", "golden_requests", "validate_answer"]
