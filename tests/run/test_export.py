"""What a run exports is what is evaluated after it: hf/ is read back, bit by bit."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file
from support import tiny_run
from support.configs import CONFIGS

from pivotrl_jax.checkpoints import hf, hf_layout
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.run import export
from pivotrl_jax.run import run as run_lib


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_run.save_random(tmp_path_factory.mktemp("export") / "pi_0")


def trained(checkpoint, workdir, merged_dtype, size):
    """(a run with a bfloat16 base, parameters with adapters; B is of this size)"""
    config = CONFIGS.get_config().copy_and_resolve_references()
    config.model.checkpoint, config.workdir = str(checkpoint), str(workdir)
    config.model.dtype = config.model.param_dtype = "bfloat16"
    config.model.lora.update({"rank": 3, "alpha": 5.0, "merged_dtype": merged_dtype})
    run = run_lib.open_run(config)
    rng = np.random.default_rng(0)
    adapters = traverse_util.flatten_dict(run.initial_params())
    adapters = {
        path: size * rng.normal(size=x.shape).astype(np.float32) if path[-1].endswith("b") else x
        for path, x in adapters.items()
    }
    adapters = jax.tree.map(jax.numpy.asarray, traverse_util.unflatten_dict(adapters))
    return run, lora.join(run.params, adapters)


def test_only_what_the_hub_gave_is_a_model_of_the_hub(checkpoint, tmp_path):
    run, _ = trained(checkpoint, tmp_path, "float32", 0.1)
    assert run.hub_name == "" and export.base_name(run) == str(checkpoint.resolve())
    run.config.model.checkpoint = "owner/name"
    assert run.hub_name == export.base_name(run) == "owner/name"


@pytest.mark.parametrize("merged_dtype", ["float32", "bfloat16"])
def test_what_hf_holds_is_read_back(checkpoint, tmp_path, capsys, merged_dtype):
    run, params = trained(checkpoint, tmp_path, merged_dtype, 0.1)
    fingerprint = export.write(run, params)
    exported, again = export.read_back(run)
    assert fingerprint == hf.checkpoint_fingerprint(exported.checkpoint)
    assert exported.model_config.dtype == merged_dtype and not lora.has_adapters(again)
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    for place in hf_layout.places(run.model_config):
        x = np.ascontiguousarray(np.asarray(hf_layout.leaf(again, place.path))[place.index])
        assert x.dtype == stored[place.name].dtype == jax.numpy.dtype(merged_dtype)
        assert np.array_equal(place.as_hf(x), stored[place.name]), place.name
    assert run.facts["update_kept"][merged_dtype] > 0.95 and "warning" not in capsys.readouterr().err


def test_in_float32_the_export_computes_what_was_learnt(checkpoint, tmp_path):
    """An update that bfloat16 would lose: log-probs of hf/ differ from pi_0's as the trained policy's do."""
    run, params = trained(checkpoint, tmp_path, "float32", 1e-4)
    export.write(run, params)
    exported, again = export.read_back(run)
    tokens = np.arange(24, dtype=np.int32).reshape(2, 12)

    def logits(config, params):
        params = jax.tree.map(lambda x: x.astype("float32"), params)
        return decoder.logits(config, params, tokens)

    before = logits(exported.model_config, lora.base(params))
    model = lora.with_adapters(exported.model_config, run.config.model.lora)
    learnt = logits(model, params) - before
    kept = logits(exported.model_config, again) - before
    assert np.abs(learnt).max() > 1e-5
    np.testing.assert_allclose(kept, learnt, rtol=0, atol=0.05 * np.abs(learnt).max())


def test_an_update_that_rounding_loses_is_said(checkpoint, tmp_path, capsys):
    run, params = trained(checkpoint, tmp_path, "bfloat16", 1e-5)
    export.write(run, params)
    assert run.facts["update_kept"]["bfloat16"] < 0.5 < 0.99 < run.facts["update_kept"]["float32"]
    err = capsys.readouterr().err
    assert "of what the adapters learnt" in err and "config.model.lora.merged_dtype=float32" in err
