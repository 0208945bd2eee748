"""The Open Inference Protocol as data: datatypes, tensors as bytes, the JSON of requests, paths, and Triton's error texts.

Nothing here does I/O or keeps state. Only `arrays` needs numpy.
"""
