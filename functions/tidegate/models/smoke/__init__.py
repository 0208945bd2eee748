"""Loads models on a scratch Triton, sends them their golden requests, and checks the answers."""
