"""One config per domain, each with a function per size; installed as pivotrl_jax.configs.

`--config=bfcl`, `--config=bfcl:real` or a path like `--config=configs/bfcl.py` choose one.
"""
