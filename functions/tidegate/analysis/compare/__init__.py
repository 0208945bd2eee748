"""Compares two revisions: what changed, and exactly which share of the traffic moves. Pure: bundles in, values out."""
