"""Arrays: the decoder over token forests, and what it is made of. No text and no files.

Start with forest.py (how tokens are laid out), then decoder.py. To add a model family, start with
families/__init__.py.
"""
