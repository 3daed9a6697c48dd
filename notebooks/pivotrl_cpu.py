# %% [markdown]
# # PivotRL on two CPU cores
#
# Read trajectories, find the turns that teach, look at them, train on them, and compare before and after:
# the whole method with the embedded world and the embedded model (a Qwen3-MoE of two million parameters),
# offline, in about six minutes. The same calls take your data and a real model.

# %%
import json
import os

import pivotrl_jax.api as pivotrl

QUICK = bool(os.environ.get("PIVOTRL_QUICK"))  # True: fewer demonstrations, tasks and steps, a minute

# %% [markdown]
# ## Read your trajectories
#
# Files, folders and hub datasets (`hf:owner/name`); formats are recognised by content. These are three
# made-up repairs that come with the package. Put your own path here.

# %%
SOURCE = pivotrl.load_config("swe:tiny").data.source
pivotrl.load_trajectories(SOURCE)

# %% [markdown]
# ## Does the verifier know the demonstrations?
#
# Every assistant turn becomes a *candidate*. Before anything is sampled, each demonstration must pass its
# own verifier, and garbage must fail. That needs a tokenizer and no model, so do it first with your own
# data.

# %%
config = pivotrl.load_config("swe:tiny", data={"source": SOURCE})
print("\n".join(pivotrl.self_check(config).table()))

# %% [markdown]
# Any action can be scored by hand, too.

# %%
action = {"type": "function_call", "name": "set_light", "arguments": '{"room": "attic", "on": true}'}
other = {**action, "arguments": '{"room": "attic", "on": false}'}
cases = [
    {"id": "the same", "expected_action": action, "candidate": [action]},
    {"id": "another", "expected_action": action, "candidate": [other]},
]
for scored in pivotrl.verify(cases, "tool_call"):
    print(scored.id, scored.verdict.reward, scored.verdict.reason)

# %% [markdown]
# ## Find the pivots
#
# From here on it is the embedded world: an expert's episodes with a few services (lights, music, calendar,
# ...). At every candidate, G = 8 actions are sampled from the starting policy and scored. Where all rewards
# are equal there is no gradient; where they vary and the mean is low, the turn is a *pivot*.

# %%
config = pivotrl.load_config("bfcl", workdir="runs/notebook")
if QUICK:
    config = pivotrl.load_config(
        "bfcl",
        workdir="runs/notebook_quick",
        data={"demonstrations": 8, "held_out_tasks": 8},
        grpo={"steps": 4, "pivots_per_step": 4},
        evaluate={"tasks": 8, "turn_trajectories": 8, "skill_items": 4},
    )
run = pivotrl.find_pivots(config)

# %%
run.selection

# %% [markdown]
# ## Look at them
#
# A pivot: what was asked, what the expert did, and what the policy tried. Open one.

# %%
run.turns("pivot", limit=5)

# %% [markdown]
# Where everything fails, it may be the policy, and it may be the verifier. Read a few.

# %%
run.turns("all_fail", limit=5)

# %% [markdown]
# ## Train
#
# GRPO on the pivots alone: nothing after the turn is ever played. `train` takes up what `find_pivots` left
# in `config.workdir`, evaluates before and after, and writes the weights in Hugging Face layout and a
# report.

# %%
run = pivotrl.train(config)
run

# %% [markdown]
# ## Before and after, turn by turn
#
# Held-out turns that the policy failed and now passes, and the other way round.


# %%
def held_out(when: str) -> dict[str, dict]:
    """Held-out turns by id."""
    page = json.loads((run.path / "evaluations" / f"{when}.json").read_text("utf-8"))
    return {turn["id"]: turn for turn in page["results"]["turns"]}


before, after = held_out("before"), held_out("after")
won = [id for id in before if before[id]["mean"] == 0 and after[id]["mean"] == 1]
lost = [id for id in before if before[id]["mean"] == 1 and after[id]["mean"] == 0]
print(f"{len(won)} turns won, {len(lost)} lost, of {len(before)}")
for id in won[:3]:
    print(
        f"\n{id}\n  before: {before[id]['replies'][0]['text']}\n  after:  {after[id]['replies'][0]['text']}"
    )

# %% [markdown]
# ## From here
#
# - `pivotrl.open_run("runs/notebook")` reads a run again, on any machine, without jax.
# - `run.path / "hf"` loads in transformers, and `pivotrl.serve(run.path / "hf")` serves it to OpenAI clients.
# - `run.path / "report.html"` is the report, with every candidate.
# - Your own data: the configs `swe`, `terminal`, `tau2`, `browsecomp`, each with a size `:tiny` for a CPU.
# - A real model on an accelerator: the notebooks `colab_gpu` and `colab_tpu`.
