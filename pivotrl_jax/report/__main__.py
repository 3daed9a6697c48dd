"""`python -m pivotrl_jax.report --workdir=DIR`"""

from pivotrl_jax.report.report import main

main()
