"""The examples that the project ships, by name: what else is in `routing_rules/` and `triton_models/` is a user's.

A test that reads these folders asserts about the names here, or derives what it asserts from what it finds.
"""

from __future__ import annotations

from tests.support.parts import ROOT

RULES = ROOT / "routing_rules"
MODELS = ROOT / "triton_models"

OBJECTIVES = ("purchase_propensity", "title_playlist", "title_ranking", "title_search")
RANKING = ("title_ranking_popularity", "title_ranking_svd", "title_ranking_ease")
SEARCH = ("title_search_lexical", "title_search_semantic")
PURCHASE = ("purchase_propensity_base", "purchase_propensity_gbdt")
PLAYLIST = ("title_playlist",)
ENSEMBLES = RANKING + SEARCH + PURCHASE + PLAYLIST
