"""Draws a playlist title by title, each with regard to the one before: a Markov chain over titles that begins with a
member's likes.

Serving and training run this file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

CONTINUITY = 0.3
"""How much the title before counts, where all that the member likes together counts as 1."""

Weights = npt.NDArray[np.float32]
Marks = npt.NDArray[np.bool_]


class Chain:
    """The chance of each title to come next, as logarithms up to a constant.

    `likes` has how many members like each title. `followers[a, b]` has how often members who like `a` liked `b` among the
    next titles. `prior` is how many such pairs of each title popularity is worth: with few of them, it decides.
    """

    def __init__(self, likes: npt.NDArray[np.int64], followers: npt.NDArray[np.uint16], prior: float) -> None:
        share = ((likes + 0.5) / (likes + 0.5).sum()).astype(np.float32)
        self.popularity: Weights = np.log(share)
        self.pull: Weights = np.log1p(followers / (np.float32(prior) * share))

    def beginning(self, liked: Marks) -> Weights:
        """The weights by a member's likes alone; without any they are those of popularity."""
        if not liked.any():
            return self.popularity
        weights: Weights = self.popularity + self.pull[liked].mean(axis=0)
        return weights

    def after(self, title: int, beginning: Weights) -> Weights:
        """The weights of what comes after a title."""
        weights: Weights = beginning + np.float32(CONTINUITY) * self.pull[title]
        return weights


def playlist(chain: Chain, liked: Marks, seen: Marks, temperature: float, seed: int) -> Iterator[int]:
    """Yield positions of titles, none of them seen and none twice, until none is left.

    Args:
        temperature: 0 takes the best title each time (of equal ones the first in the catalogue), 1 draws by the chain's
            chances, and more gives rare titles a greater chance.
        seed: equal seeds give equal playlists.
    """
    random = np.random.default_rng(seed)
    left = ~seen
    weights = beginning = chain.beginning(liked)
    while left.any():
        # The best of weights with Gumbel noise is a draw by their softmax.
        drawn = weights / temperature + random.gumbel(size=len(weights)) if temperature else weights
        title = int(np.where(left, drawn, -np.inf).argmax())
        yield title
        left[title] = False
        weights = chain.after(title, beginning)
