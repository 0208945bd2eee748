"""Everything that speaks Triton: bytes in and out, the model repository, a model's files, the local server."""
