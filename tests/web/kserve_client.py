"""Calls a gateway by KServe's own client, and prints what it saw as JSON. Run by the Python of `.venv-kserve`.

Arguments: the gateway's URL, and one that serves no objective.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(binary: bool) -> InferRequest:
    inputs = []
    for name, values in (("INPUT0", np.arange(16)), ("INPUT1", np.ones(16))):
        tensor = InferInput(name, [1, 16], "INT32")
        tensor.set_data_from_numpy(values.astype(np.int32).reshape(1, 16), binary_data=binary)
        inputs.append(tensor)
    return InferRequest("adding", inputs, request_id="42", parameters={"binary_data_output": binary})


async def main(url: str, without_rules: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
        seen["live"] = await client.is_server_live(url)
        seen["ready"] = await client.is_server_ready(url)
        seen["model_ready"] = await client.is_model_ready(url, "adding")
        seen["unknown_ready"] = await client.is_model_ready(url, "nobody")
        seen["without_rules"] = await client.is_server_live(without_rules)
        try:
            await client.is_server_ready(without_rules)
        except httpx.HTTPStatusError as error:
            seen["not_ready"] = error.response.status_code
        for kind in ("json", "binary"):
            headers: dict[str, str] = {}
            context = {"Tidegate-Context": '{"country": "NL"}'}
            answer = await client.infer(
                url, request(kind == "binary"), "adding", headers=context, response_headers=headers
            )
            outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
            seen[kind] = {"outputs": outputs, "id": answer.id, "rule": headers["tidegate-rule"]}
            seen[kind]["type"] = headers["content-type"]
        try:
            await client.infer(url, request(False), "nobody")
        except httpx.HTTPStatusError as error:
            seen["error"] = str(error)
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
