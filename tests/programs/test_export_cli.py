"""`pivotrl export`: a kept checkpoint as the end of a run writes it, and a sentence for what is not there."""

import json
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file
from support import profiles, tiny_run
from support.train_cli import MICRO, micro

from pivotrl_jax import export as export_program
from pivotrl_jax.checkpoints import hf, orbax
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import lora
from pivotrl_jax.records import InputError
from pivotrl_jax.run import export, metrics
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training.learner import TrainState
from pivotrl_jax.training.monitor import VALIDATION

STEPS = (10, 20, 30)


def shifted(params, step):
    """Parameters that differ with the step, by more than bfloat16 rounds away."""
    flat = traverse_util.flatten_dict(params)
    rng = np.random.default_rng(step)
    return traverse_util.unflatten_dict(
        {path: np.asarray(x) + 0.01 * rng.normal(size=x.shape).astype(np.float32) for path, x in flat.items()}
    )


def train(workdir, pi_0, scores=(), **changes):
    """What a training leaves: run.json, checkpoints of STEPS and a line of metrics per step."""
    config = profiles.config_of(workdir, model__checkpoint=str(pi_0), **changes)
    run = run_lib.open_run(config)
    run.write()
    trained = {}
    with Checkpoints(workdir / "checkpoints", run.identity(pivots="those"), 3) as checkpoints:
        for step in STEPS:
            params = shifted(run.initial_params(), step)
            trained[step] = lora.join(run.params, params) if run.trained_config.lora else params
            checkpoints.save(step, TrainState(np.int32(step), params, {"mu": params}), {"step": step})
    with metrics.MetricsWriter(workdir, 0) as writer:
        for step in range(STEPS[-1]):
            writer.write(step, {VALIDATION: scores[step + 1]} if step + 1 in scores else {"loss": 0.0})
    return run, trained


@pytest.fixture(scope="module")
def pi_0(tmp_path_factory):
    return tiny_run.save_random(tmp_path_factory.mktemp("export") / "pi_0")


@pytest.fixture(scope="module")
def adapted(pi_0, tmp_path_factory):
    """(work directory, run, step -> parameters) of a training of adapters beside a bfloat16 base."""
    workdir = tmp_path_factory.mktemp("export") / "adapted"
    numbers = {"model__dtype": "bfloat16", "model__param_dtype": "bfloat16", "model__lora__rank": 3}
    scores = {5: 0.9, 10: 0.4, 20: 0.6, 30: 0.6}
    return workdir, *train(workdir, pi_0, scores, **numbers)


def test_a_step_is_exported_as_the_end_of_a_run_exports_it(adapted, tmp_path):
    workdir, run, trained = adapted
    out, end = tmp_path / "out", tmp_path / "end"
    (line,) = export_program.export_step(workdir, "20", out)
    run.shared = end
    fingerprint = export.write(run, trained[20])
    assert f"step 20 (as asked) is in {out}/hf and {out}/adapter, read back bit by bit" in line
    for name in ("hf/model.safetensors", "adapter/adapter_model.safetensors"):
        there, here = load_file(out / name), load_file(end / name)
        assert there.keys() == here.keys()
        assert all(there[x].dtype == here[x].dtype and np.array_equal(there[x], here[x]) for x in there), name
    page = json.loads((out / "export.json").read_text("utf-8"))
    assert (page["step"], page["pi_0"], page["policy"]) == (20, run.policy, fingerprint)
    assert hf.checkpoint_fingerprint(out / "hf") == fingerprint and page["update_kept"]["float32"] > 0.99


def test_without_adapters_and_with_a_model_that_has_moved(pi_0, tmp_path):
    workdir = tmp_path / "run"
    _, trained = train(workdir, pi_0)
    profiles.edit(workdir / "run.json", lambda page: page["config"]["model"].update(checkpoint="/gone"))
    with pytest.raises(InputError, match="/gone"):
        export_program.export_step(workdir, "last", tmp_path / "out")
    export_program.export_step(workdir, "last", tmp_path / "out", str(pi_0))
    assert not (tmp_path / "out" / "adapter").exists()
    config = profiles.config_of(tmp_path / "evaluation", model__checkpoint=str(tmp_path / "out" / "hf"))
    again = run_lib.open_run(config).params
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(trained[30])))


def test_the_best_is_the_best_validated_of_those_that_are_kept(adapted, tmp_path):
    workdir, *_ = adapted
    step, remark = export_program.choose_step(workdir, "best")
    assert step == 20, "the first of equals"
    assert "0.600, the highest of 3 kept and validated" in remark
    assert "step 5 had 0.900 and is no longer kept" in remark
    assert export_program.choose_step(workdir, "last") == (30, "the last")


def test_what_is_not_there_is_one_sentence(adapted, pi_0, tmp_path, monkeypatch):
    workdir, *_ = adapted
    for step in ("25", "x", "-1", "020.5"):
        with pytest.raises(InputError, match=f"--step={step}: there is no such checkpoint .* 10, 20, 30"):
            export_program.choose_step(workdir, step)
    other = tmp_path / "run"
    train(other, pi_0, {5: 0.5})
    with pytest.raises(InputError, match=r"no checkpoint that is kept was validated; kept are 10, 20, 30"):
        export_program.choose_step(other, "best")
    (other / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"nothing was validated in .*every was 0.* 10, 20, 30"):
        export_program.choose_step(other, "best")
    monkeypatch.setattr(
        sys, "argv", ["export", f"--workdir={tmp_path}/no", "--step=last", f"--out={tmp_path}/out"]
    )
    with pytest.raises(InputError, match=r"/no/run.json: no such file; name the work directory"):
        export_program.main()
    (tmp_path / "no").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint; train the run first"):
        export_program.choose_step(tmp_path / "no", "last")
    with pytest.raises(InputError, match="is there already"):
        export_program.export_step(workdir, "last", pi_0)


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(adapted, pi_0, tmp_path):
    workdir, run, _ = adapted
    where = workdir / "checkpoints" / "20"
    shapes = jax.eval_shape(lambda: run.initial_params())
    places = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
        shapes,
    )
    with pytest.raises(InputError, match=r"of another run: policy is .* there and 'other' here"):
        orbax.restore_params(where, places, {"policy": "other"})
    with pytest.raises(InputError, match="of another run: "):
        orbax.restore_params(where, dict(list(places.items())[:0]), {})
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        orbax.restore_params(workdir / "checkpoints" / "7", places, {})


def test_what_is_read_back_is_compared(adapted, tmp_path):
    _, run, trained = adapted
    run.shared = tmp_path
    export.write(run, trained[10])
    again = export.read_back(run)[1]
    export.require_equal(run, trained[10], again)
    with pytest.raises(InputError, match="is not what was written"):
        export.require_equal(run, trained[20], again)


@pytest.mark.slow
def test_a_real_training_is_exported_and_evaluated(checkpoint, tmp_path):
    """The last step is what the run itself exported, byte for byte; the one before can be evaluated."""
    from support.train_cli import CONFIG, subprocess_of

    run = tmp_path / "run"
    code, _, err = micro(run, checkpoint, "method=random_turns")
    assert code == 0, err
    for step in ("last", "1"):
        flags = (f"--workdir={run}", f"--step={step}", f"--out={tmp_path / step}")
        code, out, err = subprocess_of("export", *flags)
        assert code == 0 and "read back bit by bit" in out, err
    weights = [
        (x / "hf" / "model.safetensors").read_bytes() for x in (run, tmp_path / "last", tmp_path / "1")
    ]
    assert weights[0] == weights[1] != weights[2]
    fixed = [f"--config={CONFIG}", f"workdir={tmp_path / 'evaluation'}", *MICRO]
    code, out, err = subprocess_of("evaluate", *fixed, f"--checkpoint={tmp_path / '1' / 'hf'}")
    assert code == 0 and "call_turn_pass" in out, err
