"""Tests of tidegate.rules.cases."""
