"""Shadows: copies of requests, and how their answers differ from those that callers got.

A `ShadowCopy` (`copy.py`) is a request on its way to a shadow, and an `Exchange` (`exchange.py`) both answers to it. `comparison.py`
compares the tensors of two answers, `tallies.py` adds up the results, and `report.py`, `pictures.py` and `page.py` show them.
Comparing takes time that grows with the answers, so a worker process does it for the local gateway. Nothing here does I/O.
"""
