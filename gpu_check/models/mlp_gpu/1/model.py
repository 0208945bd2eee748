"""Three dense layers with fixed weights, in PyTorch on the device of the instance; in NumPy where there is no PyTorch and no GPU."""

from itertools import pairwise

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    import torch
except ImportError:
    torch = None

WIDTHS = (256, 2048, 2048, 256)


class TritonPythonModel:
    def initialize(self, args):
        draw = np.random.RandomState(7)
        weights = [(draw.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for shape in pairwise(WIDTHS)]
        is_gpu = args["model_instance_kind"] == "GPU"
        if torch is None:
            if is_gpu:
                raise pb_utils.TritonModelException("an instance on a GPU needs PyTorch")
            self.weights = weights
            return
        self.device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        # TF32 would differ from the CPU in the third digit.
        torch.backends.cuda.matmul.allow_tf32 = False
        self.weights = [torch.from_numpy(each).to(self.device) for each in weights]
        self._run(np.zeros((64, WIDTHS[0]), np.float32))

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "SCALED").as_numpy() for request in requests]
        rows = self._run(np.concatenate(inputs))
        ends = np.cumsum([len(each) for each in inputs])
        parts = np.split(rows, ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", part)]) for part in parts]

    def _run(self, rows):
        if torch is None:
            for weight in self.weights[:-1]:
                rows = np.maximum(rows @ weight, 0)
            return rows @ self.weights[-1]
        with torch.inference_mode():
            rows = torch.from_numpy(rows).to(self.device)
            for weight in self.weights[:-1]:
                rows = torch.relu(rows @ weight)
            return (rows @ self.weights[-1]).cpu().numpy()
