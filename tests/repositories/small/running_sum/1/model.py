"""Adds up what a sequence has sent so far; its state is in the memory of this process."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x, start, name = (
            int(pb_utils.get_input_tensor_by_name(request, each).as_numpy().reshape(-1)[0])
            for each in ("X", "START", "ID")
        )
        self.sums[name] = x if start else self.sums[name] + x
        return pb_utils.InferenceResponse([pb_utils.Tensor("SUM", np.array([[self.sums[name]]], np.int32))])
