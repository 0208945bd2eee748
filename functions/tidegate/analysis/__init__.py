"""Analyses of rules before a publish: reachability, coverage, differences, replay, cases."""
