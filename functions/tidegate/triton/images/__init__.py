"""What the images of model servers hold: backends and Python modules, so that models are judged by where they will run.

This imports nothing: `describe` runs in images that have the standard library alone.
"""
