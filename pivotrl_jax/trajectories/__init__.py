"""From files of demonstrations to candidates: read, filter, split, cut out every assistant turn.

Start with reading.py; readers/ has one file per format.
"""
