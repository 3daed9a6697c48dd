# %% [markdown]
# # The variance signal: Theorem 3.2, checked
#
# PivotRL keeps turns whose rewards vary. Theorem 3.2 says why: at a state $s$, (i) the Fisher norm of the
# natural gradient of the expected reward equals the *standard deviation* of the reward, and (ii) along the
# KL path $\pi_\beta \propto \pi_0 e^{r/\beta}$, the population GRPO score is $\sigma_\beta / \beta^2$. Both
# sides are computed here by automatic differentiation, never from the closed form that the theorem states.
# The code is that of `experiments/theorem_3_2`, whose README has the numbers at full size.

# %%
import os
import sys
from pathlib import Path

import jax
from IPython.display import Image

places = (Path("experiments"), Path("../experiments"), Path("pivotrl_jax/experiments"))
EXPERIMENTS = next(path for path in places if (path / "theory.py").is_file()).resolve()
sys.path += [str(EXPERIMENTS / "theorem_3_2"), str(EXPERIMENTS)]
import policy
import tabular
import theory

QUICK = bool(os.environ.get("PIVOTRL_QUICK"))  # True: fewer states and draws
OUT = Path("runs/notebook_theorem_3_2")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One state, by hand
#
# A softmax policy over five actions, with arbitrary rewards.

# %%
with jax.enable_x64(True):
    logits = jax.random.normal(jax.random.key(0), (5,), "float64")
    rewards = jax.random.normal(jax.random.key(1), (5,), "float64")
    print("Fisher norm of the natural gradient:", theory.natural_gradient_norm(logits, rewards))
    print("standard deviation of the reward:   ", theory.reward_std(jax.nn.log_softmax(logits), rewards))

# %% [markdown]
# ## Both claims at random states
#
# The largest relative error over random policies with 2 to 16 actions, with binary and continuous rewards.

# %%
claims = tabular.claims(states=200 if QUICK else 1000, seed=0)
for name in ("natural_gradient", "grpo_score"):
    print(
        f"{name:16s} largest relative error {claims[name]['max_rel_error']:.1e} at {claims['states']} states"
    )
assert max(claims[name]["max_rel_error"] for name in ("natural_gradient", "grpo_score")) < 1e-6

# %% [markdown]
# ## What a group of G samples sees of it
#
# GRPO has G samples and not the population: the mean of its estimate over the truth (left), and its spread
# (right). A rare success is mostly not seen at all by a small group.

# %%
groups = tabular.groups(draws=2_000 if QUICK else 40_000, seed=0)
tabular.draw(groups, OUT / "groups.png")
Image(str(OUT / "groups.png"))

# %% [markdown]
# ## A language model
#
# At the turns of the embedded world: the embedded model's gradient of every sampled completion's log-prob
# in all two million parameters, the Fisher norm from their Gram matrix, and the standard deviation of
# *another* sample's rewards, which is what a profile knows. A few turns here; the experiment has all.

# %%
states, found = policy.measure(quick=True, seed=0)
policy.draw(states, OUT / "policy.png")
Image(str(OUT / "policy.png"))

# %%
gap = found["fisher_against_own_std_max_rel"]
print(f"{found['mixed_samples']} of {found['candidates']} turns have mixed rewards")
print(f"Fisher norm against the std of its own sample: largest relative difference {gap:.1e}")
assert gap < 0.05
