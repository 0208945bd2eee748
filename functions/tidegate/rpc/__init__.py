"""The gateway over gRPC: the Open Inference Protocol's `GRPCInferenceService`, with an objective as the model.

Nothing imports this package, or `grpc`, unless the gateway serves gRPC. Messages are not decoded: the model's name is
appended to the caller's bytes, and a model's answer is passed on as it is.
"""
