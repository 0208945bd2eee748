"""Never finishes loading, which its files do not show."""

import threading


class TritonPythonModel:
    def initialize(self, args):
        threading.Event().wait()

    def execute(self, requests):
        return list(requests)
