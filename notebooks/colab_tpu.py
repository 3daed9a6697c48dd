# %% [markdown]
# # PivotRL for Qwen3-0.6B on a TPU (v5e-1 of Colab, v5e-8)
#
# LoRA adapters of rank 32 on Qwen3-0.6B, trained on the pivots of BFCL's multi-turn function calling.
# Choose a TPU runtime first. By the planner, which asks the TPU's own compiler, a run with rows of 8,192
# tokens needs 3.1 of the 15.8 GiB of one v5e chip; if every prompt were that long, a step of 16 pivots x 8
# rollouts would take 36 seconds at least. It has not been run on a TPU: please report what you see.

# %%
import os

import pivotrl_jax.api as pivotrl

TINY = bool(os.environ.get("PIVOTRL_TINY"))  # True: the embedded model and world on a CPU, in a minute

# %%
import jax

print(len(jax.devices()), jax.devices()[0].device_kind)
assert TINY or jax.default_backend() == "tpu", "no TPU here: choose a TPU runtime, or set TINY = True"

# %% [markdown]
# ## The config
#
# One chip needs nothing. On eight, the rows of a batch are spread over the axes `data` and `fsdp`; a model
# this small is best kept whole on every chip, so all chips go to `data`. Attention is a Pallas kernel on
# TPUs. The first call of each program compiles for minutes; compiled programs are kept in
# `~/.cache/pivotrl_jax`.

# %%
if TINY:
    config = pivotrl.load_config(
        "bfcl",
        workdir="runs/colab_tpu_tiny",
        model={"lora": {"rank": 4}},
        data={"demonstrations": 8, "held_out_tasks": 4},
        grpo={"steps": 2, "pivots_per_step": 2},
        evaluate={"tasks": 4, "turn_trajectories": 4, "skill_items": 2},
    )
else:
    chips = len(jax.devices())
    config = pivotrl.load_config(
        "bfcl:qwen3_0p6b",
        workdir="runs/colab_tpu",  # on Colab: a folder of your Drive survives the session
        mesh={"data": chips, "fsdp": 1},
        profile={"adaptive": {"round": 1}},  # stops sampling where the outcome is clear
        data={"limit": 128},
        grpo={"steps": 40, "microbatch_rows": chips},
        evaluate={"tasks": 40, "turn_trajectories": 40, "skill_items": 40},
    )
    for section in (config.profile, config.validation, config.grpo, config.evaluate):
        section.batch.rows = chips  # a row per chip at a time

# %% [markdown]
# ## Check the data, then find the pivots

# %%
print(pivotrl.self_check(config).table()[0])

# %%
run = pivotrl.find_pivots(config)
run.selection

# %%
run.turns("pivot", limit=3)

# %% [markdown]
# ## Train, and look at the run

# %%
run = pivotrl.train(config)
run

# %% [markdown]
# ## The same policy, evaluated again
#
# `hf/` is what "after" was measured on. Evaluations are kept by the policy's fingerprint.

# %%
pivotrl.evaluate(config, run.path / "hf")
