"""What a run, its turns, a selection and an evaluation are in Python and in a notebook; no jax.

Start with opened.py, which reads a run's directory. pages.py draws what a notebook shows.
"""
