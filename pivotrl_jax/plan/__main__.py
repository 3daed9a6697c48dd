"""`python -m pivotrl_jax.plan --config=... --mesh=... --device=...`"""

from pivotrl_jax.plan.summary import main
from pivotrl_jax.run import cli
from pivotrl_jax.training.tables import TABLES

cli.start(main, TABLES)
