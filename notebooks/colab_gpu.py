# %% [markdown]
# # PivotRL for Qwen3-0.6B on one small GPU (Colab T4, L4, A100)
#
# LoRA adapters of rank 32 on Qwen3-0.6B, trained on the pivots of BFCL's multi-turn function calling.
# Choose a GPU runtime first (Runtime, Change runtime type). By the planner, with rows of 8,192 tokens, the
# run needs 5.8 of the T4's 14.9 GiB; if every prompt were that long, a step of 16 pivots x 8 rollouts would
# take ten minutes there, so the cells below start small. It has not been run on a T4: please report what
# you see.

# %%
import os

import pivotrl_jax.api as pivotrl

TINY = bool(os.environ.get("PIVOTRL_TINY"))  # True: the embedded model and world on a CPU, in a minute

# %%
import jax

print(jax.devices(), jax.devices()[0].device_kind)
assert TINY or jax.default_backend() == "gpu", "no GPU here: choose a GPU runtime, or set TINY = True"

# %% [markdown]
# ## The config
#
# `bfcl:qwen3_0p6b` has the memory settings: bfloat16 weights under adapters, every layer recomputed in the
# backward pass (`compute.remat="full"`), rows of 4,096 and 8,192 tokens, one row at a time. It answers
# without thinking first, in at most 256 tokens. A T4 has no bfloat16, so its arithmetic is float32 there.
#
# If memory runs out: halve `grpo.batch.samples_per_row` and `decode_slots`, then `data.max_prompt_tokens`
# and `compute.row_lengths`.

# %%
if TINY:
    config = pivotrl.load_config(
        "bfcl",
        workdir="runs/colab_gpu_tiny",
        model={"lora": {"rank": 4}},
        data={"demonstrations": 8, "held_out_tasks": 4},
        grpo={"steps": 2, "pivots_per_step": 2},
        evaluate={"tasks": 4, "turn_trajectories": 4, "skill_items": 2},
    )
else:
    has_bfloat16 = "T4" not in jax.devices()[0].device_kind
    config = pivotrl.load_config(
        "bfcl:qwen3_0p6b",
        workdir="runs/colab_gpu",  # on Colab: a folder of your Drive survives the session
        model={"dtype": "bfloat16" if has_bfloat16 else "float32"},
        profile={"adaptive": {"round": 1}},  # stops sampling where the outcome is clear
        data={"limit": 64},
        grpo={"steps": 20, "pivots_per_step": 8},
        evaluate={"tasks": 20, "turn_trajectories": 20, "skill_items": 20},
    )

# %% [markdown]
# ## Check the data, then find the pivots
#
# The self-check needs only the tokenizer. Profiling is the long part; it is kept shard by shard, so a
# session that ends loses little: run the notebook again with the same `workdir`.

# %%
print(pivotrl.self_check(config).table()[0])

# %%
run = pivotrl.find_pivots(config)
run.selection

# %%
run.turns("pivot", limit=3)

# %%
run.turns("all_fail", limit=3)

# %% [markdown]
# ## Train, and look at the run

# %%
run = pivotrl.train(config)
run

# %% [markdown]
# ## Talk to it
#
# `hf/` has merged weights for any engine, and `adapter/` is the PEFT adapter.

# %%
import openai

with pivotrl.serve(run.path / "hf", port=0, context=2048, rows=1) as server:
    client = openai.OpenAI(base_url=server.url, api_key="none")
    messages = [{"role": "user", "content": "Which tools would you need to book a flight?"}]
    reply = client.chat.completions.create(model=server.model, messages=messages, max_tokens=64)
print(reply.choices[0].message.content)
