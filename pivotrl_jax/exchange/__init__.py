"""Pivots and rollouts <-> NeMo Gym rows: `python -m pivotrl_jax.exchange export|import`.

Start with convert.py; rows.py has the rows, contract.py the rules they must satisfy.
"""
