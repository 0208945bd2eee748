"""Character n-grams of a text, hashed to columns. Serving counts a query's with it, training the titles'."""

from __future__ import annotations

import unicodedata
from zlib import crc32

import numpy as np
import numpy.typing as npt

COLUMNS = 2048
LENGTHS = (3, 4)


def grams(text: str) -> npt.NDArray[np.float32]:
    """log(1 + count) of the text's 3- and 4-grams, each hashed to one of `COLUMNS` columns.

    Case and accents do not matter, and n-grams do not cross words: a word's borders count as blanks.
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = [f" {word} " for word in plain.split()]
    columns = [
        crc32(word[start : start + length].encode()) % COLUMNS
        for word in words
        for length in LENGTHS
        for start in range(len(word) - length + 1)
    ]
    counts: npt.NDArray[np.int64] = np.bincount(np.array(columns, np.int64), minlength=COLUMNS)
    return np.log1p(counts).astype(np.float32)
