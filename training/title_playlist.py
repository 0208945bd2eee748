"""Title playlist: a Markov chain over titles, from the order in which members liked them.

The method is that of Rendle et al., "Factorizing personalized Markov chains for next-basket recommendation", WWW 2010,
https://doi.org/10.1145/1772690.1772773, in its plainest form: counted, not factorised. MovieLens has the time at which
a title was rated, not watched, so an order says what members think of together.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.artefacts import Artefacts, step_code
from training.measures import rounded
from training.movielens import MovieLens
from training.title_ranking import CUTOFF, HELD_OUT_SHARE, Cases, History, as_cases, split

FOLLOWING = 10
"""So many of the next likes follow a like."""

PRIORS = (50, 100, 200, 400)

Counts = npt.NDArray[np.int64]
_STEP = step_code("title_generator/1/playlist.py")


def build(data: MovieLens, out: Artefacts) -> dict[str, Any]:
    """Write the chain; return its offline metrics."""
    train, tested = split(data)
    titles = len(data.titles)
    prior = _best_prior(train, titles)
    likes, followers = _counted(train, titles)
    out.write("title_generator/1/chain.npz", _stored(data, likes, followers, prior))
    chain = _STEP.Chain(likes, followers, prior)
    cases = as_cases(tested, titles)
    best = np.array([_first(chain, row) for row in cases.shown > 0])
    popular = _STEP.Chain(likes, np.zeros_like(followers), prior)
    return {
        "prior": prior,
        "recall10": rounded(cases.found(best).mean()),
        "coverage": rounded(len(np.unique(best)) / titles),
        "perplexity": rounded(_perplexity(chain, cases, tested)),
        "perplexity_likes_alone": rounded(_perplexity(chain, cases, tested, follows=False)),
        "perplexity_popularity": rounded(_perplexity(popular, cases, tested)),
    }


def _counted(histories: Sequence[History], titles: int) -> tuple[Counts, npt.NDArray[np.uint16]]:
    """How many members like each title, and how often each title followed each other one."""
    likes = np.bincount(np.concatenate(histories), minlength=titles)
    followers = np.zeros((titles, titles), np.uint16)
    for history in histories:
        for distance in range(1, min(FOLLOWING, len(history) - 1) + 1):
            np.add.at(followers, (history[:-distance], history[distance:]), 1)
    return likes, followers


def _stored(data: MovieLens, likes: Counts, followers: npt.NDArray[np.uint16], prior: int) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=np.array([title.id for title in data.titles], np.int64),
        titles=np.array([title.label for title in data.titles]),
        likes=likes,
        followers=followers,
        prior=np.int64(prior),
    )
    return buffer.getvalue()


def _best_prior(train: Sequence[History], titles: int) -> int:
    """The prior with the lowest perplexity on members that are held out of *training*; tested members play no part."""
    held_out = len(train) // HELD_OUT_SHARE
    cases, counted = as_cases(train[:held_out], titles), _counted(train[held_out:], titles)
    return min(PRIORS, key=lambda prior: _perplexity(_STEP.Chain(*counted, prior), cases, train[:held_out]))


def _first(chain: Any, shown: npt.NDArray[np.bool_]) -> list[int]:
    """The first titles of the best playlist of a member who has seen what is shown."""
    drawn: Iterator[int] = _STEP.playlist(chain, shown, shown, temperature=0, seed=0)
    return [next(drawn) for _ in range(CUTOFF)]


def _perplexity(chain: Any, cases: Cases, histories: Sequence[History], *, follows: bool = True) -> float:
    """Among how many equally likely titles the chain chooses: the perplexity of the hidden likes, each given those before.

    A guess among all titles would have the perplexity of the number of titles that are not shown. Without `follows`, the title
    before has no effect.
    """
    losses = []
    for shown, hidden, history in zip(cases.shown > 0, cases.hidden > 0, histories, strict=True):
        left = ~shown
        weights = beginning = chain.beginning(shown)
        for title in history[hidden[history]]:
            candidates = weights[left]
            most = candidates.max()
            losses.append(most + np.log(np.exp(candidates - most).sum()) - weights[title])
            left[title] = False
            weights = chain.after(title, beginning) if follows else beginning
    return float(np.exp(np.mean(losses)))
