"""Arrays: the decoder over token forests, and what it is made of. Knows no strings and no files.

Start with forest.py (how tokens are laid out), then decoder.py.
"""
