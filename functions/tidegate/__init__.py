"""Tidegate: serverless, declarative routing in front of NVIDIA Triton Inference Server."""

__version__ = "0.1.0"
