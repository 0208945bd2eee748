"""Fleets and gateways that are larger than a machine: the real code on a simulated clock, with stores and servers in memory."""
