"""What changed between two revisions, and exactly which share of the traffic it moves. Pure: bundles in, values out."""
