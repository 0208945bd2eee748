"""Takes the time that it is asked to take; requests wait in the queue of Triton's batcher, which drops cancelled ones."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "SLEEP_MS").as_numpy()
            time.sleep(int(value[0][0]) / 1000)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT_MS", value)]))
        return responses
