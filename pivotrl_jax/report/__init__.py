"""The page and the table about a run: `python -m pivotrl_jax.report`.

Start with report.py; inputs.py reads a work directory, page.py and plots.py draw it.
"""
