"""What a run would need on a machine that you do not have: `python -m pivotrl_jax.plan`.

Start with summary.py; programs.py compiles the run's own programs, chips.py knows the machines.
"""
