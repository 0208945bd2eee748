"""Sum and difference of two vectors of decimal text, as in Triton's public `simple_string` model."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            first = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy().astype(np.bytes_).astype(np.int32)
            second = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy().astype(np.bytes_).astype(np.int32)
            outputs = [
                pb_utils.Tensor("OUTPUT0", (first + second).astype(np.bytes_).astype(np.object_)),
                pb_utils.Tensor("OUTPUT1", (first - second).astype(np.bytes_).astype(np.object_)),
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
