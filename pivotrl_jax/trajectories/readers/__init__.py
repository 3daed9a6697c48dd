"""One file per format of trajectories; each recognises its files by content.

Start with base.py, which says what a reader is.
"""
