"""Backends and Python modules in the images of model servers.

This imports nothing: `describe` runs in images that have the standard library alone.
"""
