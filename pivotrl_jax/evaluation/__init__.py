"""How good a policy is: held-out episodes and turns, out-of-domain skills, and their confidence intervals.

Start with evaluation.py; validation.py does the same while a policy trains.
"""
