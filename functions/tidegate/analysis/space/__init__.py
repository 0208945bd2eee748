"""Shared by `reach` and `compare`: sets of classes as bits, values that represent a class, outcomes of a context.

docs/architecture.md, "Two analyses of one space", has the reasons why each has axes of its own.
"""
