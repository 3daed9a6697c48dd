"""Checkpoints: what is restored is what was saved, of the right run, however the last one ended."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from support.checkpoints import IDENTITY, make_state
from support.paths import ROOT, TESTS

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.records import InputError


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_state_and_host_come_back_bit_for_bit(tmp_path):
    state, host = make_state(), {"cursor": [3, 1], "seed": 2**40, "note": "Käse"}
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        assert c.restore_latest(state) is None
        c.save(5, state, host)
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        template = jax.eval_shape(lambda: state)
        for like in (make_state(fill=0.0), jax.tree.map(lambda x: x, state), template):
            restored, host_again = c.restore_latest(like)
            assert_same_bits(restored, state)
            assert host_again == host and c.latest_step() == 5


def test_only_the_latest_are_kept(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        for step in (1, 2, 10):
            c.save(step, make_state(fill=step), {"step": step})
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} == {"2", "10"}
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        restored, host = c.restore_latest(make_state())
        assert host == {"step": 10}
        assert_same_bits(restored.params, make_state(fill=10).params)


def test_steps_only_move_forward_until_cleared(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        c.save(4, make_state(), {"first": True})
        c.save(4, make_state(), {"first": False})  # there already: left alone
        assert c.restore_latest(make_state())[1] == {"first": True}
        with pytest.raises(ValueError, match="step 3 < 4"):
            c.save(3, make_state(), {})
        c.clear()
        assert c.restore_latest(make_state()) is None
        c.save(3, make_state(), {})
        assert c.latest_step() == 3


@pytest.mark.parametrize(
    "change, words",
    [
        ({"learning_rate": 2e-3}, "learning_rate is 0.001 there and 0.002 here"),
        ({"model": {"hidden_size": 4, "num_layers": 2}}, "model.hidden_size is 3 there and 4 here"),
        ({"model": {"hidden_size": 3}}, "model.num_layers is 2 there and absent here"),
        ({"warmup": 5}, "warmup is absent there and 5 here"),
    ],
)
def test_another_run_is_refused_with_the_difference(tmp_path, change, words):
    with Checkpoints(tmp_path, IDENTITY, keep=1) as c:
        c.save(1, make_state(), {})
    with Checkpoints(tmp_path, {**IDENTITY, **change}, keep=1) as c:
        with pytest.raises(InputError, match=words) as e:
            c.restore_latest(make_state())
    assert "\n" not in str(e.value) and "betas" not in str(e.value)


def test_another_state_is_refused_with_the_difference(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, keep=1) as c:
        c.save(1, make_state(), {})
        with pytest.raises(
            InputError, match=r"params.embed is 'float32\[5, 3\]' there and 'float32\[5, 4\]' here"
        ):
            c.restore_latest(make_state(hidden=4))
        bare = {"params": make_state().params}
        with pytest.raises(InputError, match=r"opt_state.* there and absent here"):
            c.restore_latest(bare)


KILLED = """
import os, pathlib, sys
sys.path.insert(0, {here!r})
from support.checkpoints import IDENTITY, make_state
from pivotrl_jax.checkpoints.orbax import Checkpoints
c = Checkpoints({where!r}, IDENTITY, keep=1)
c.save(1, make_state(fill=1.0), {{"step": 1}})
os.rename = os.replace = os.renames = lambda *a, **k: os._exit(9)  # dies where a save would become visible
c.save(2, make_state(fill=2.0), {{"step": 2}})
"""


def test_killed_while_saving_resumes_from_the_step_before(tmp_path):
    script = KILLED.format(here=str(TESTS), where=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert ended.returncode == 9, ended.stderr.decode()
    assert any("tmp" in p.name for p in tmp_path.iterdir())  # the half-written save is really there
    with Checkpoints(tmp_path, IDENTITY, keep=1) as c:
        restored, host = c.restore_latest(make_state())
        assert host == {"step": 1}
        assert_same_bits(restored, make_state(fill=1.0))
        c.save(2, make_state(fill=2.0), {"step": 2})
        assert c.restore_latest(make_state())[1] == {"step": 2}
    assert not any("tmp" in p.name for p in tmp_path.iterdir())


def test_a_damaged_checkpoint_is_named_not_skipped(tmp_path):
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        c.save(1, make_state(), {})
        c.save(2, make_state(), {})
    for file in (tmp_path / "2" / "state").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(b"")
    with Checkpoints(tmp_path, IDENTITY, keep=2) as c:
        with pytest.raises(InputError, match="2: cannot read the checkpoint"):
            c.restore_latest(make_state())
