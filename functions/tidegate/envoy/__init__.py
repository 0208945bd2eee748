"""Envoy as the data plane: its configuration from rules and a fleet, and how a decision is handed to it."""
