"""Tallies of shadows as docs/shadows.md shows them."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from tidegate.aws.shadow_tallies import S3ShadowTallies, hour_of
from tidegate.rules.contract import Ranking
from tidegate.shadows.counts import Drop, LeftOut, dropped, left_out
from tidegate.shadows.exchange import NoAnswer, Pair
from tidegate.shadows.sampled import SAMPLED, PairCounts
from tidegate.shadows.tallies import Tallies

from tests.shadows.answers import answer, exchange
from tests.support.aws import LocalAws

RANKING = Ranking("TITLE_IDS", 10)
SVD = Pair(
    "title_ranking",
    "svd-canary",
    "title_ranking@champion",
    "title_ranking_ease/1",
    "title_ranking_svd",
    "title_ranking_svd/1",
)
FP16 = Pair(
    "purchase_propensity",
    "default",
    "purchase_propensity_gbdt",
    "purchase_propensity_gbdt/1",
    "purchase_propensity_gbdt/2",
    "purchase_propensity_gbdt/2",
)
NOON = 1_795_953_600.0
"""2026-11-29 at 12:00 UTC."""


def tallies() -> Tallies:
    """Two pairs: a ranking by another model, and the same numbers in half precision."""
    found, counted = Tallies(), PairCounts()
    counted.add(SVD, "5f2c", NOON, SAMPLED, 412)
    counted.add(SVD, "5f2c", NOON + 399, dropped(Drop.OVERLOADED), 7)
    counted.add(SVD, "5f2c", NOON + 399, left_out(LeftOut.STREAMED), 3)
    counted.add(FP16, "5f2c", NOON, SAMPLED, 400)
    found.count(counted.take())
    for number in range(400):
        at, ids = NOON + number, np.arange(20)
        scores = np.linspace(1.0, 0.05, 20, dtype=np.float32) * (1 + number % 7)
        moved = np.roll(ids, 1) if number % 4 == 0 else ids[[1, 0, *range(2, 20)]]
        moved = np.where(moved == number % 23, 99, moved)
        primary = answer(
            {"TITLE_IDS": ("INT64", ids[None]), "TITLE_SCORES": ("FP32", scores[None])}, latency_ms=2.0 + number % 5 / 4
        )
        other = {
            "TITLE_IDS": ("INT64", moved[None]),
            "TITLE_SCORES": ("FP32", scores[None] * np.float32(1.25)),
            "TITLES": ("BYTES", np.array([[b"Fargo"]], object)),
        }
        shadow = answer(other, latency_ms=2.0 + number % 11 / 3)
        failed = NoAnswer.TIMEOUT if number % 100 == 7 else Drop.LATE if number % 40 == 9 else shadow
        found.add(exchange(primary, failed, RANKING, SVD, at))
        score = np.array([[1 / (2 + number)]])
        found.add(
            exchange(
                answer({"PROPENSITY": ("FP32", score.astype(np.float32))}),
                answer({"PROPENSITY": ("FP16", score.astype(np.float16))}, latency_ms=1.5),
                pair=FP16,
                at=at,
            )
        )
    return found


def plant(aws: LocalAws, *stored: bytes) -> list[str]:
    """Store tallies, each of another writer, and return the options that name where they are."""
    store = S3ShadowTallies(aws.objects())
    hour = hour_of(time.time())

    async def work() -> None:
        for number, data in enumerate(stored):
            await store.write(hour, f"writer-{number}", data)

    asyncio.run(work())
    return ["--endpoint-url", aws.url, "--bucket", aws.bucket]
