"""What a run would need on a machine that is not there: `python -m pivotrl_jax.plan`.

Start with summary.py; programs.py compiles the run's own programs, chips.py knows the machines.
"""
