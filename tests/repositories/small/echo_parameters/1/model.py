"""Gives back its input, and the parameters of its request as JSON."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
            parameters = np.array([request.parameters()], dtype=object)
            outputs = [pb_utils.Tensor("OUTPUT", value), pb_utils.Tensor("PARAMETERS", parameters)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
