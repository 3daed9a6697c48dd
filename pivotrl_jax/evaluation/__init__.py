"""How good is a policy: held-out episodes and turns, out-of-domain skills, and their confidence intervals.

Start with evaluation.py; validation.py does the same while a policy trains.
"""
