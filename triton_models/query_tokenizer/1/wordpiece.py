"""BERT's uncased WordPiece in plain Python: NVIDIA's image has numpy and no tokenizer library.

Devlin et al., "BERT", 2019, https://arxiv.org/abs/1810.04805; the reference is tokenization.py in
https://github.com/google-research/bert. Serving encodes queries with it, training the titles.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_TOKENS = 64
MAX_WORD_CHARACTERS = 100

_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def load_vocabulary(path: Path) -> dict[str, int]:
    """The vocabulary of a `vocab.txt`: one token per line, its id is the line's number from 0."""
    return {token: number for number, token in enumerate(path.read_text("utf-8").removesuffix("\n").split("\n"))}


def encode(text: str, vocabulary: Mapping[str, int], max_tokens: int = MAX_TOKENS) -> list[int]:
    """The token ids of a text, `[CLS]` and `[SEP]` included, cut to `max_tokens`."""
    ids = [vocabulary["[CLS]"]]
    for word in _words(text):
        ids.extend(_pieces(word, vocabulary))
        if len(ids) >= max_tokens - 1:
            break
    return [*ids[: max_tokens - 1], vocabulary["[SEP]"]]


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """The longest pieces from the left; the whole word is `[UNK]` where any part of it has none."""
    unknown = [vocabulary["[UNK]"]]
    if len(word) > MAX_WORD_CHARACTERS:
        return unknown
    ids: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            token = vocabulary.get(prefix + word[start:end])
            if token is not None:
                break
        else:
            return unknown
        ids.append(token)
        start = end
    return ids


def _words(text: str) -> Iterator[str]:
    spaced = "".join(f" {c} " if _is_cjk(c) else " " if c.isspace() else c for c in text if not _is_dropped(c))
    for word in spaced.split():
        plain = (c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        yield from "".join(f" {c} " if _is_punctuation(c) else c for c in plain).split()


def _is_dropped(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character).startswith("C")


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


def _is_cjk(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _CJK)
