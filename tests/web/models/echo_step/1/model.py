"""Echoes its inputs and the request's parameters; `fail_with`, `raise_with` and `sleep_s` make it fail or wait.

Those three come as request parameters, from the body or as forwarded `Tidegate-Param-` headers.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

DEFAULTS = {
    "HALF": np.array([[0.5]], dtype=np.float16),
    "TEXT": np.array([[b""]], dtype=np.object_),
    "FLAG": np.array([[False]]),
}


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        parameters = json.loads(request.parameters() or "{}")
        asked = {name.lower().removeprefix("tidegate-param-"): value for name, value in parameters.items()}
        time.sleep(float(asked.get("sleep_s", 0)))
        if "fail_with" in asked:
            error = pb_utils.TritonError(str(asked["fail_with"]), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        if "raise_with" in asked:
            raise ValueError(asked["raise_with"])
        values = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        outputs = [pb_utils.Tensor("X", values)]
        for name, default in DEFAULTS.items():
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            outputs.append(pb_utils.Tensor(name, default if tensor is None else tensor.as_numpy()))
        text = json.dumps(parameters, sort_keys=True).encode()
        outputs.append(pb_utils.Tensor("PARAMETERS", np.array([[text]], dtype=np.object_)))
        return pb_utils.InferenceResponse(outputs)
