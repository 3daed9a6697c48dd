"""The out-of-domain suite for pretrained language models: what they knew and did before training on tools.

Start with items.py (the families); checks.py judges texts, and scores.py asks a policy.
"""
