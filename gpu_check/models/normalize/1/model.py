"""Scales each row so that its largest value is 1 or -1."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
            largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6)
            scaled = pb_utils.Tensor("SCALED", (rows / largest).astype(np.float32))
            responses.append(pb_utils.InferenceResponse([scaled]))
        return responses
