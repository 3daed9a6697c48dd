"""`python -m pivotrl_jax.exchange export|import ...`"""

from absl import app

from pivotrl_jax.exchange import convert

app.run(convert.main, flags_parser=convert.parse_flags)
