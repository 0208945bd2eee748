"""Generates clients of objectives by openapi-python-client and datamodel-codegen, calls by them, and prints what they saw as JSON.

Run by the Python of `.venv-clients`. Arguments: a folder for the clients, the gateway's URL.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

BIN = Path(sys.executable).parent


def generate(folder: Path, url: str, objective: str) -> None:
    """Write the packages `<objective>_client` and `<objective>_models`; a warning is an error."""
    document = folder / f"{objective}.json"
    document.write_bytes(httpx.get(f"{url}/openapi.json?objective={objective}").raise_for_status().content)
    config = folder / "config.yaml"
    config.write_text("post_hooks: []\n")
    client = ["openapi-python-client", "generate", "--path", document, "--meta", "none", "--fail-on-warning"]
    client += ["--config", config, "--output-path", folder / f"{objective}_client"]
    models = ["datamodel-codegen", "--input", document, "--input-file-type", "openapi", "--formatters", "builtin"]
    models += ["--output-model-type", "pydantic_v2.BaseModel", "--output", folder / f"{objective}_models.py"]
    for name, *arguments in (client, models):
        subprocess.run([BIN / name, *arguments], check=True, stdout=sys.stderr)


def adding_by_client(url: str) -> dict[str, Any]:
    from adding_client import Client
    from adding_client.api.default import infer_objective, resolve_objective
    from adding_client.models import Context, InferAnswer, InferRequest, Inputs, Problem, Resolution, ResolveRequest

    client = Client(base_url=url)
    inputs = Inputs(input0=[list(range(16))], input1=[1] * 16)
    answer = infer_objective.sync(client=client, body=InferRequest(context=Context(country="NL"), inputs=inputs))
    assert isinstance(answer, InferAnswer)
    by_header = infer_objective.sync(client=Client(url, headers={"X-Country": "NL"}), body=InferRequest(inputs=inputs))
    assert isinstance(by_header, InferAnswer)
    resolution = resolve_objective.sync(client=client, body=ResolveRequest(Context(country="SE")))
    assert isinstance(resolution, Resolution)
    problem = infer_objective.sync(client=client, body=InferRequest(inputs=Inputs(input0=[[1, 2]], input1=[1] * 16)))
    assert isinstance(problem, Problem)
    assert problem.input_ == "INPUT0"
    return {
        "sum": answer.outputs.output0,
        "rules": [answer.decision.rule, by_header.decision.rule, resolution.decision.rule],
        "endpoints": len(resolution.endpoints),
        "problem": problem.status,
    }


def adding_by_models(url: str) -> dict[str, Any]:
    from adding_models import Context, InferAnswer, InferRequest, Inputs, Problem, Resolution, ResolveRequest

    def ask(verb: str, body: Any) -> httpx.Response:
        content = body.model_dump_json(exclude_none=True, by_alias=True)
        sent = {"Content-Type": "application/json"}
        return httpx.post(f"{url}/v1/objectives/adding/{verb}", content=content, headers=sent)

    inputs = Inputs(INPUT0=[list(range(16))], INPUT1=[1] * 16)
    answer = InferAnswer.model_validate_json(
        ask("infer", InferRequest(context=Context(country="NL"), inputs=inputs)).content
    )
    resolution = Resolution.model_validate_json(ask("resolve", ResolveRequest(context=Context(country="SE"))).content)
    try:
        Inputs(INPUT0=[[1, 2]])
    except ValidationError as error:
        mistakes = sorted({each["loc"][0] for each in error.errors()})
    refused = httpx.post(f"{url}/v1/objectives/adding/infer", json={"inputs": {"INPUT0": [[1, 2]]}})
    problem = Problem.model_validate_json(refused.content)
    assert mistakes == ["INPUT0", "INPUT1"]
    return {
        "sum": answer.outputs.OUTPUT0,
        "rules": [answer.decision.rule, resolution.decision.rule],
        "endpoints": len(resolution.endpoints),
        "problem": problem.status,
    }


def typing_by_client(url: str) -> list[str]:
    """Call with a context of every type."""
    from typing_client import Client
    from typing_client.api.default import infer_objective
    from typing_client.models import (
        Context,
        ContextDevice,
        ContextLevel,
        ContextTagsItem,
        InferAnswer,
        InferRequest,
        Inputs,
    )

    context = Context(
        member_id="42", device=ContextDevice.TV, level=ContextLevel.VALUE_2, weight=0.5, app_version="8.2", is_kids=True,
        tags=[ContextTagsItem.NEW],
    )  # fmt: skip
    answer = infer_objective.sync(client=Client(url), body=InferRequest(context=context, inputs=Inputs(x=[[1.5, 2]])))
    assert isinstance(answer, InferAnswer), answer
    return [answer.decision.rule, *map(str, answer.outputs.y[0])]


def typing_by_models(url: str) -> list[str]:
    from typing_models import Context, InferAnswer, InferRequest, Inputs

    context = Context(member_id="42", device="tv", level=2, weight=0.5, app_version="8.2", is_kids=True, tags=["new"])
    body = InferRequest(context=context, inputs=Inputs(X=[[1.5, 2]])).model_dump_json(exclude_none=True, by_alias=True)
    sent = {"Content-Type": "application/json"}
    reply = httpx.post(f"{url}/v1/objectives/typing/infer", content=body, headers=sent)
    answer = InferAnswer.model_validate_json(reply.content)
    return [answer.decision.rule, *map(str, answer.outputs.Y[0])]


if __name__ == "__main__":
    folder, url = Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(folder))
    for objective in ("adding", "typing", "tallying"):
        generate(folder, url, objective)
    importlib.import_module("tallying_client.api.default.stream_objective")
    importlib.import_module("tallying_models")
    seen = {
        "adding": [adding_by_client(url), adding_by_models(url)],
        "typing": [typing_by_client(url), typing_by_models(url)],
    }
    print(json.dumps(seen))
