"""Tests of tidegate.analysis.cases."""
