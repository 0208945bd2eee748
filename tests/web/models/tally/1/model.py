"""Counts, one response per number; `SCRIPT` makes it slow, or fail after two numbers. It counts its cancelled requests too."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, _arguments):
        self.cancelled = 0

    def execute(self, requests):
        for request in requests:
            self._answer(request, request.get_response_sender())

    def _answer(self, request, sender):
        count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy().item())
        script = pb_utils.get_input_tensor_by_name(request, "SCRIPT")
        script = "" if script is None else script.as_numpy().item().decode()
        if script == "raise":
            raise ValueError("secret of the model")
        for number in range(count):
            if sender.is_cancelled():
                self.cancelled += 1
                break
            if script == "fail" and number == 2:
                error = pb_utils.TritonError("secret of the model")
                sender.send(pb_utils.InferenceResponse(error=error))
                break
            shown = self.cancelled if script == "cancelled" else number
            outputs = [
                pb_utils.Tensor("NUMBER", np.array([shown], np.int32)),
                pb_utils.Tensor("PARAMETERS", np.array([request.parameters().encode()], object)),
            ]
            sender.send(pb_utils.InferenceResponse(outputs))
            if script == "slow":
                time.sleep(0.15)
        sender.send(flags=FINAL)
