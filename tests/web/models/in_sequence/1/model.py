"""Returns its input, after the request parameter `first_step_sleep_s` (seconds)."""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(float(json.loads(request.parameters() or "{}").get("first_step_sleep_s", 0)))
        values = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", values)])
