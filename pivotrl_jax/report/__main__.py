"""`python -m pivotrl_jax.report --workdir=DIR`"""

from pivotrl_jax import terminal
from pivotrl_jax.report.report import main

with terminal.ending("report"):
    main()
