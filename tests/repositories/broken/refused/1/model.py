"""Fails to load."""


class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("the artefact is damaged on purpose")

    def execute(self, requests):
        return list(requests)
