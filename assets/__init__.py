"""Builds what is deployed of the functions: `make package`."""
