"""SIGTERM or SIGINT while training: the steps so far are saved, and the run ends as if nothing had been."""

import contextlib
import os
import shutil
import signal
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from support import tiny_run
from support.learning import equal, learn, metrics

from pivotrl_jax import verifiers as verifiers_lib
from pivotrl_jax.checkpoints import orbax
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import interrupts
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training.saving import UNWRITTEN


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))


def validate(steps, params):
    return {"validation/turn_pass": float(jnp.sum(params["embed"])) + steps}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        return workdir, *learn(workdir, validate=validate)


def signalling(call, number, which=signal.SIGTERM):
    """`call`, but a signal comes in the middle of its nth call."""
    calls = []

    def signalled(*args, **kwargs):
        calls.append(0)
        if len(calls) == number:
            os.kill(os.getpid(), which)
        return call(*args, **kwargs)

    return signalled


@contextlib.contextmanager
def interrupted(saved, which=signal.SIGTERM):
    with pytest.raises(interrupts.Interrupted) as found, interrupts.handled():
        yield
    assert found.value.number == which and found.value.status == 128 + which
    assert found.value.saved == f"training is saved after {saved} {'steps' if saved > 1 else 'step'}"


def require_equal(workdir, whole):
    again, totals = learn(workdir, validate=validate)
    assert equal(again, whole[1]) and metrics(workdir) == metrics(whole[0])
    assert {**totals, "seconds": 0} == {**whole[2], "seconds": 0} and UNWRITTEN not in totals


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_while_sampling(whole, tmp_path, monkeypatch, which):
    monkeypatch.setattr(Rollouts, "sample", signalling(Rollouts.sample, 4, which))
    with interrupted(3, which):
        learn(tmp_path, validate=validate)
    assert orbax.steps_in(tmp_path / "checkpoints")[-1] == 3
    monkeypatch.undo()
    monkeypatch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    require_equal(tmp_path, whole)


def test_in_the_middle_of_an_update_that_update_is_finished_and_saved(whole, tmp_path, monkeypatch):
    step = learner_lib.Learner.step
    monkeypatch.setattr(learner_lib.Learner, "step", signalling(step, 3))
    with interrupted(3):
        learn(tmp_path, validate=validate)
    monkeypatch.setattr(learner_lib.Learner, "step", step)
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1], "step 2 is not validated yet"
    require_equal(tmp_path, whole)
    require_equal(tmp_path, whole)  # a finished run says the same again


@pytest.mark.parametrize("number", [1, 3, 4])
def test_while_validating_and_again_in_the_validation_that_is_caught_up_on(whole, tmp_path, number):
    for validation in (number, 1):
        with interrupted(number):
            learn(tmp_path, validate=signalling(validate, validation))
        assert [line["step"] for line in metrics(tmp_path)] == list(range(number - 1))
    require_equal(tmp_path, whole)


def test_in_the_write_of_a_checkpoint(whole, tmp_path, monkeypatch):
    save = orbax.Checkpoints.save
    monkeypatch.setattr(orbax.Checkpoints, "save", signalling(save, 1))
    with interrupted(2):
        learn(tmp_path, validate=validate)
    monkeypatch.setattr(orbax.Checkpoints, "save", save)
    assert orbax.steps_in(tmp_path / "checkpoints") == [2]
    require_equal(tmp_path, whole)


def test_a_state_that_the_stopping_rule_has_not_seen_is_not_saved(tmp_path, monkeypatch):
    changes = {"kl_budget": 1e6}
    calm, totals = learn(tmp_path / "calm", **changes)
    step = learner_lib.Learner.step
    monkeypatch.setattr(learner_lib.Learner, "step", signalling(step, 3))
    with interrupted(2):
        learn(tmp_path / "killed", **changes)
    monkeypatch.setattr(learner_lib.Learner, "step", step)
    again, others = learn(tmp_path / "killed", **changes)
    assert equal(again, calm) and {**others, "seconds": 0} == {**totals, "seconds": 0}
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "calm")


def test_before_the_first_update_there_is_nothing_to_save(tmp_path, monkeypatch):
    monkeypatch.setattr(Rollouts, "sample", signalling(Rollouts.sample, 1))
    with pytest.raises(interrupts.Interrupted) as found, interrupts.handled():
        learn(tmp_path)
    assert found.value.saved == "" and not orbax.steps_in(tmp_path / "checkpoints")


def test_when_the_disk_is_full_the_error_names_it_and_the_checkpoint_before_is_whole(
    whole, tmp_path, monkeypatch
):
    learn(tmp_path, validate=validate, steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(
            InputError, match=r"0\.0 MB are free, and the checkpoint of step 4 takes \d+\.\d; free"
        ):
            learn(tmp_path, validate=validate)
    assert orbax.steps_in(tmp_path / "checkpoints") == [2]
    require_equal(tmp_path, whole)
