"""Never finishes loading for the first who loads it; everyone after gets a model that answers with its version."""

import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        try:
            Path(__file__).with_name("taken").touch(exist_ok=False)
        except FileExistsError:
            return
        while True:
            time.sleep(60)

    def execute(self, requests):
        version = pb_utils.Tensor("VERSION", np.array([1], dtype=np.int32))
        return [pb_utils.InferenceResponse([version]) for _ in requests]
