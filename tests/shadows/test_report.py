"""The figures, words and pictures of a report."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import NoAnswer
from tidegate.shadows.page import shadows_html
from tidegate.shadows.pair_tally import PairTally
from tidegate.shadows.pictures import shadows_svg
from tidegate.shadows.report import count_rows, different_share, heading, number, output_rows, pair_json, sentences
from tidegate.shadows.tallies import Tallies

from tests.shadows.answers import PAIR, answer, exchange, tensor
from tests.shadows.planted import FP16, RANKING, SVD, tallies


@pytest.fixture(name="pairs", scope="module")
def planted_pairs() -> dict[object, PairTally]:
    return tallies().pairs


def test_the_figures_are_those_of_the_answers(pairs):
    found = json.loads(json.dumps(pair_json(pairs[SVD]), allow_nan=False))
    assert (found["rule"], found["shadow_model"]) == ("svd-canary", "title_ranking_svd/1")
    assert (found["sampled"], found["sent"], found["compared"]) == (412, 390, 386)
    assert (found["dropped"], found["left_out"]) == ({"late": 10, "overloaded": 7}, {"streamed": 3})
    assert (found["missing"], found["not_compared"]) == (2, 0)
    assert (found["shadow_failed"], found["primary_failed"]) == ({"timeout": 4}, {})
    assert found["different_share"] == 1.0
    assert found["first_at"] == "2026-11-29T12:00:00+00:00"
    assert list(found["outputs"]) == ["TITLES", "TITLE_SCORES", "TITLE_IDS"], "the worst come first"
    assert found["outputs"]["TITLES"]["only_shadow"] == 386
    scores = found["outputs"]["TITLE_SCORES"]
    assert scores["relative_error"]["max"] == pytest.approx(0.2, rel=1e-6)
    assert (scores["absolute_error"]["max"], scores["elements"]) == (pytest.approx(1.75), 386 * 20)
    assert found["outputs"]["TITLE_IDS"]["absolute_error"] is None
    overlap = found["ranking"]["overlap"]
    assert (overlap["min"], overlap["p50"], overlap["max"]) == (0.8, 0.9, 1.0)
    assert sum(numbers for _, numbers in overlap["bins"]) == overlap["count"] == 386
    assert found["latency"]["ratio"]["p50"] == pytest.approx(1.5, rel=0.05)
    assert pair_json(pairs[FP16])["ranking"] is None


def test_an_infinite_error_is_null_and_counted():
    both = exchange(answer({"y": tensor("FP32", [1.0])}), answer({"y": tensor("FP32", [math.nan])}))
    found = tally_of(both)
    error = pair_json(found)["outputs"]["y"]["relative_error"]
    assert (error["count"], error["infinite"], error["p50"], error["max"], error["bins"]) == (1, 1, None, None, [])
    assert "∞" in next(iter(output_rows(found)))


def tally_of(*exchanges):
    made = Tallies()
    for each in exchanges:
        made.add(each)
    (tally,) = made.pairs.values()
    return tally


def test_failures_and_dropped_copies_are_said():
    same = answer({"y": tensor("FP32", [1.0])})
    tally = tally_of(
        *[exchange(same, NoAnswer.TIMEOUT)] * 2,
        exchange(same, NoAnswer.RESET),
        exchange(same, Drop.LATE),
        exchange(same._replace(status=500), same),
        exchange(same._replace(status=500), NoAnswer.RESET),
        exchange(same, answer({"y": tensor("FP32", [1.0])}), RANKING),
    )
    text = "\n".join(sentences(tally))
    assert "failures of the shadow alone: 3 (50.00 %): timeout 2, reset 1" in text
    assert "failures of the primary: 2 (33.33 %): status 500 2" in text
    assert "the shadow failed, too: 1" in text
    assert "sampled: 0, of which sent 6, dropped 1 (late 1)" in text
    assert "without two rankings to compare: 1" in text
    assert different_share(tally) == 3 / 4
    assert different_share(tally_of(exchange(same, Drop.LATE), exchange(same._replace(status=400), same))) is None


def test_each_pair_has_a_row_of_what_became_of_its_shadows(pairs):
    rows = {row[0]: row[1:] for row in count_rows(list(pairs.values()))}
    counts = rows["title_ranking, rule svd-canary: title_ranking_svd of title_ranking@champion"]
    assert counts == ("412", "390", "386", "17", "3", "2", "late 10, overloaded 7; streamed 3")
    page = shadows_html(list(pairs.values()))
    assert "".join(f"<td>{each}</td>" for each in counts) in page
    facts = "sampled: 412, of which sent 390, dropped 17 (late 10, overloaded 7), left out 3 (streamed 3), missing 2"
    assert facts in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (math.inf, "∞"), (0.0, "0"), (1.499, "1.5"), (1234.4, "1,234"), (2.5e7, "2.5e+07"), (-0.333, "-0.33"), (1.23e-7, "1.2e-07")],
)  # fmt: skip
def test_numbers_have_the_digits_that_a_quantile_has(value, text):
    assert number(value) == text


HOSTILE = PAIR._replace(objective="</title><script>alert(1)</script>", rule='"&\x00', shadow="x" * 500)


@pytest.mark.parametrize("draw", [shadows_svg, shadows_html])
def test_no_name_breaks_a_picture_or_a_page(draw, pairs):
    name = "<b>&\x01" + "y" * 200
    tally = tally_of(exchange(answer({name: tensor("FP32", [1])}), answer({name: tensor("FP32", [2])}), pair=HOSTILE))
    drawn = draw([tally, *pairs.values()])
    assert "<script" not in drawn
    assert "<b>" not in drawn
    if draw is shadows_svg:
        ET.fromstring(drawn)


def test_no_name_of_an_output_changes_a_terminal():
    tally = tally_of(exchange(answer({"\x1b[2J": tensor("FP32", [1])}), answer({})))
    assert "\x1b" not in str(list(output_rows(tally)))


def test_a_picture_has_a_histogram_of_each_distribution(pairs):
    root = ET.fromstring(shadows_svg(list(pairs.values())))
    texts = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {
        "overlap of the rankings",
        "Kendall's tau",
        "TITLE_SCORES: relative error",
        "PROPENSITY: absolute error",
    } <= texts
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for each in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(each.get("x", 0)), float(each.get("y", 0))
        assert 0 <= x <= x + float(each.attrib["width"]) <= width
        assert 0 <= y <= y + float(each.attrib["height"]) <= height


@pytest.mark.parametrize(
    "values", [([0.0], [0.0]), ([1.0], [math.inf]), ([1.0], [2.0]), ([5e-324], [0.0]), ([1e308], [-1e308]), ([], [])]
)
def test_any_distribution_can_be_drawn(values):
    first, second = (answer({"y": ("FP64", np.array(each))}, latency_ms=0.0) for each in values)
    tally = tally_of(exchange(first, second))
    ET.fromstring(shadows_svg([tally]))
    assert heading(tally) in shadows_html([tally])


def test_without_shadows_there_is_still_a_picture():
    assert "There are no shadows" in shadows_svg([])
    assert "No two answers were compared" in shadows_svg([tally_of(exchange(answer({}), NoAnswer.RESET))])


def test_the_page_loads_nothing_and_is_well_formed(pairs):
    class Page(HTMLParser):
        def __init__(self):
            super().__init__()
            self.loads, self.open = [], []

        def handle_starttag(self, tag, attrs):
            self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href")]
            self.loads += [tag] if tag in ("script", "link", "iframe", "object") else []
            self.open += [] if tag in ("meta", "br") else [tag]

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    page = Page()
    page.feed(shadows_html(list(pairs.values())))
    assert (page.loads, page.open) == ([], [])
