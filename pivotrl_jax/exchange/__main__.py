"""`python -m pivotrl_jax.exchange export|import ...`"""

from pivotrl_jax import terminal
from pivotrl_jax.exchange import convert

terminal.run("exchange", convert.run)
