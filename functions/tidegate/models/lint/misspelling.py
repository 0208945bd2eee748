"""Misspelt names of Python modules and backends."""

from __future__ import annotations

from collections.abc import Collection

SHORTEST = 5
"""Length of the shortest name that others may misspell: shorter ones are too often similar by chance."""

WIDESPREAD = frozenset(
    {
        "PIL", "accelerate", "boto3", "botocore", "cupy", "cv2", "datasets", "faiss", "fastapi", "google", "grpc", "httpx",
        "joblib", "jax", "keras", "librosa", "lightgbm", "nltk", "numba", "numpy", "onnx", "onnxruntime", "openai", "orjson",
        "pandas", "polars", "pyarrow", "pydantic", "redis", "regex", "requests", "safetensors", "scipy",
        "sentence_transformers", "sentencepiece", "skimage", "sklearn", "soundfile", "spacy", "tensorflow", "tensorrt",
        "tiktoken", "timm", "tokenizers", "torch", "torchaudio", "torchvision", "tqdm", "transformers", "triton",
        "tritonclient", "vllm", "xgboost", "yaml",
    }
)  # fmt: skip
"""Modules that models often import."""

ALIKE = frozenset(
    {
        "Crypto", "aenum", "arnparse", "arrow", "asgiref", "bcrypt", "blob", "boto", "bson", "cdifflib", "cmap",
        "config_parser", "configparser2", "contextlib2", "cose", "cppy", "crypto", "cryptg", "ctransformers", "cuid",
        "cupyx", "curies", "dataset", "datazets", "dill", "dlib", "dydantic", "emails", "enumb", "fastai", "geopandas",
        "geotext", "glob2", "glog", "glom", "graph_lib", "grequests", "grip", "harfile", "hickle", "hiredis", "hjson",
        "httpr", "hvac", "icalendar", "ijson", "imaplib2", "importlab", "inspect2", "itypes", "jaxlib", "jdatetime",
        "json5", "jsons", "lime", "linecache2", "llm", "lob", "locales", "locate", "locket", "match", "mcap", "mgzip",
        "mmgp", "mocket", "mpmath", "ngboost", "ntplib", "numexpr", "numpyro", "openapi", "oyaml", "panda", "path",
        "pathlib2", "pdoc", "pgzip", "pickle5", "pickley", "pipe", "piper", "pipfile", "pnnx", "polib", "pqdm", "psutil",
        "pyaml", "pydo", "pydoe", "pydot", "pymantic", "random2", "rarfile", "scapy", "scipp", "scrypt", "selectors2",
        "shutils", "sickle", "simplejson", "siwe", "sklearnex", "smmap", "sockets", "statsd", "stqdm", "structlog",
        "sunpy", "telnetlib3", "tensorrt_llm", "textwrap3", "times", "tomli", "torchx", "traceback2", "trame", "ttp",
        "typer", "typos", "ujson", "ulid", "unicodedata2", "unittest2", "urllib3", "uuid6", "uuid7", "weave", "xarray",
        "xdoctest", "xdrlib3", "xlib", "xoto3", "yaql", "yarl", "zthreading",
    }
)  # fmt: skip
"""Real packages with names near those of the standard library or of WIDESPREAD, from the 15,000 most downloaded of PyPI."""


def misspelt(name: str, known: Collection[str]) -> str | None:
    """Return the known name one edit away from `name`: a character added, left out, replaced, or two exchanged."""
    if name in known:
        return None
    return next((each for each in sorted(known) if len(each) >= SHORTEST and _one_edit(name, each)), None)


def _one_edit(name: str, other: str) -> bool:
    short, long = sorted((name, other), key=len)
    start = next((at for at, (one, two) in enumerate(zip(short, long, strict=False)) if one != two), len(short))
    left, right = short[start:], long[start:]
    if len(left) != len(right):
        return left == right[1:]
    return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
