"""The same cases for every implementation of a port, the real one and that of `tidegate.testing`.

The stores have theirs in `tests/aws`: `test_bundle_stores.py`, `test_model_stores.py`, `test_drafts.py`, `test_registries.py`.
"""
