"""Continues a prompt with the word that most often follows the last one in the corpus, and has been said least."""

import json
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, arguments):
        corpus = Path(arguments["model_repository"], arguments["model_version"], "corpus.txt").read_text("utf-8")
        self.followers = defaultdict(Counter)
        words = corpus.split()
        # After the last word comes the first, so that no story ends by itself.
        for word, follower in pairwise([*words, words[0]]):
            self.followers[word][follower] += 1

    def execute(self, requests):
        for request in requests:
            self.tell(request, request.get_response_sender())

    def tell(self, request, sender):
        parameters = json.loads(request.parameters() or "{}")
        # A rule's parameters have a prefix, and are text.
        words = int(parameters.get("Tidegate-Param-words", parameters.get("words", 5)))
        pause_s = float(parameters.get("pause_s", 0))
        word = pb_utils.get_input_tensor_by_name(request, "PROMPT").as_numpy().item().decode().split()[-1]
        said = Counter()
        for _ in range(words):
            if sender.is_cancelled() or not self.followers[word]:
                break
            word = max(self.followers[word], key=lambda each: (-said[each], self.followers[word][each], each))
            said[word] += 1
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("WORD", np.array([word.encode()], object))]))
            time.sleep(pause_s)
        sender.send(flags=FINAL)
