"""Evaluates flags by OpenFeature's SDK with its OFREP provider, and prints what it got as JSON.

Run by the Python of `.venv-clients`. Arguments: the gateway's URL, and the caller's name.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def main(url: str, caller: str) -> None:
    api.set_provider(OFREPProvider(url, headers_factory=lambda: {"Tidegate-Caller": caller}))
    client = api.get_client()

    def ask(flag: str, key: str | None, **attributes: Any) -> dict[str, Any]:
        found = client.get_string_details(flag, "default", EvaluationContext(key, attributes))
        return {
            "value": found.value,
            "reason": found.reason,
            "variant": found.variant,
            "error": found.error_code,
            "metadata": dict(found.flag_metadata),
        }

    print(
        json.dumps(
            {
                "static": ask("static", None),
                "match": ask("echoing", "42", country="SE"),
                "split": ask("echoing", "42", device="tv"),
                "no key": ask("echoing", None, device="tv"),
                "missing key": ask("members", None, device="tv"),
                "wrong type": ask("echoing", "42", is_kids="yes"),
                "unknown flag": ask("nothing", "42"),
                "no rule": ask("members", "42", device="mobile"),
                "boolean": str(client.get_boolean_details("static", False).error_code),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
