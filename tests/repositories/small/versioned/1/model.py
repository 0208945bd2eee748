"""Says which version of it answers, after the time that it is asked to take."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.version = np.array([int(args["model_version"])], dtype=np.int32)

    def execute(self, requests):
        responses = []
        for request in requests:
            time.sleep(int(pb_utils.get_input_tensor_by_name(request, "SLEEP_MS").as_numpy()[0]) / 1000)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("VERSION", self.version)]))
        return responses
