"""Pivots and rollouts <-> NeMo Gym rows: `python -m pivotrl_jax.exchange export|import`.

Start with convert.py; rows.py converts the rows, contract.py has the rules they must satisfy.
"""
