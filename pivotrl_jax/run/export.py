"""What a run leaves: weights in Hugging Face layout, with the adapters merged into them, and the adapters.

The weights in `hf/` are those that "evaluation after" evaluates. Adapters are merged in float32 and written
as `config.model.lora.merged_dtype`. The update is often smaller than the spacing of bfloat16 around a weight;
rounding then loses it, and `run.facts["update_kept"]` says which share each precision keeps.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

from pivotrl_jax.checkpoints import hf, orbax, peft
from pivotrl_jax.models import decoder, lora, sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.run.run import Run

FEW = 0.9  # share of the update below which a warning is printed


def save_merged(run: Run, params: decoder.Params, directory: Path) -> decoder.Params:
    """Write a policy into `directory` in Hugging Face layout. Returns its parameters, adapters merged."""
    config = run.trained_config
    merged = lora.merged(config, params)
    dtype = run.config.model.lora.merged_dtype if config.lora else None
    hf.save(
        directory, run.model_config, merged, run.checkpoint, chat_template=run.other_template, dtype=dtype
    )
    return merged


def write(run: Run, params: decoder.Params) -> str:
    """Write hf/ and, under LoRA, adapter/. Returns the fingerprint of hf/."""
    export, config = run.shared / "hf", run.trained_config
    merged = save_merged(run, params, export)
    if config.lora:
        peft.save_adapter(run.shared / "adapter", config, params, base_name(run), run.other_template)
        shares = {name: lora.share_kept(merged, name) for name in ("float32", "bfloat16")}
        run.facts["update_kept"] = shares
        dtype = run.config.model.lora.merged_dtype
        if (kept := shares[dtype]) < FEW:
            print(
                f"warning: hf/ keeps {kept:.0%} of what the adapters learnt, since its weights are rounded "
                f"to {dtype}; set config.model.lora.merged_dtype=float32 and run again, or load adapter/ "
                "beside the base",
                file=sys.stderr,
            )
    return hf.checkpoint_fingerprint(export)


def read_back(run: Run) -> tuple[Run, decoder.Params]:
    """(the run with hf/ as its model, the parameters of hf/ on the mesh, bit by bit). If the weights are
    float32, so is the arithmetic: in bfloat16 it would round them."""
    export, dtype = run.shared / "hf", run.config.model.lora.merged_dtype
    config = run.model_config
    config = dataclasses.replace(config, dtype="float32") if dtype == "float32" else config
    shardings = sharding.param_shardings(decoder.abstract_params(config), run.mesh)
    params = hf.load_params(export, config, dtype, shardings)
    return dataclasses.replace(run, model_config=config, params=None, checkpoint=export), params


def require_equal(run: Run, params: decoder.Params, again: decoder.Params) -> None:
    """Raises InputError if `again`, which was read back, is not `params` with its adapters merged."""
    for (path, x), y in zip(
        jax.tree.leaves_with_path(lora.merged(run.trained_config, params)), jax.tree.leaves(again)
    ):
        pairs = ((x[i], y[i]) for i in range(len(y))) if isinstance(x, lora.Merged) else [(x, y)]
        if not all(np.array_equal(np.asarray(a.astype(b.dtype)), np.asarray(b)) for a, b in pairs):
            raise InputError(f"{run.shared / 'hf'}: {jax.tree_util.keystr(path)} is not what was written")


def restore(run: Run, where: Path) -> decoder.Params:
    """The parameters of a training checkpoint of this run, `where` being its step's directory; with adapters
    they are joined to the base. Without them the run no longer holds pi_0. Raises InputError."""
    config, initial = run.trained_config, run.initial_params()
    places = sharding.param_shardings(lora.trained(config, decoder.abstract_params(config)), run.mesh)
    template = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), initial, places
    )
    if not config.lora:
        run.params = initial = None
    identity = {name: value for name, value in run.identity().items() if name in ("policy", "model")}
    return lora.join(run.frozen or {}, orbax.restore_params(where, template, identity))


def base_name(run: Run) -> str:
    """The base model that an adapter is loaded on: the checkpoint's name on the hub, or its directory, which
    is in the cache for what was converted."""
    return run.hub_name or str(run.checkpoint.resolve())
