"""The decoder over token forests and its parts. This package works on arrays only: no text and no files.

Start with forest.py (how tokens are laid out), then decoder.py. To add a model family, start with
families/__init__.py.
"""
