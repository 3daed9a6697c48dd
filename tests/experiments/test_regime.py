"""experiments/regime: its arms are configs that can run, and verifiers accept the demonstrations of its near
families."""

import ast
import importlib.util

import pytest
from support.configs import CONFIGS
from support.paths import ROOT

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.run import check_config, fields
from pivotrl_jax.trajectories import extract


def script(name):
    spec = importlib.util.spec_from_file_location(f"regime_{name}", ROOT / f"experiments/regime/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


near, runs = script("near"), script("runs")


@pytest.mark.parametrize("test, arm", [(test, arm) for test, arms in runs.ARMS.items() for arm in arms])
def test_an_arm_is_a_config_that_can_run(test, arm, tmp_path):
    config = CONFIGS.get_config()
    for flag in runs.command(test, arm, 0, tmp_path, quick=False)[4:]:
        name, _, text = flag.removeprefix("--config.").partition("=")
        *section, last = name.split(".")
        is_text = isinstance(fields.value_of(config, name), str)
        value = text if is_text else ast.literal_eval(text)
        (fields.value_of(config, ".".join(section)) if section else config)[last] = value
    check_config.check(config)
    check_config.check_training(config)


@pytest.mark.parametrize("family", near.FAMILIES)
def test_the_demonstration_of_a_near_item_is_accepted(family):
    trajectories = near.trajectories(family, 6)
    candidates = extract.extract(trajectories)
    assert len(candidates) >= 6 and near.trajectories(family, 6) == trajectories
    for candidate in candidates:
        action = message_to_action(candidate.demonstration)
        verdict = verifiers.VERIFIERS[candidate.verifier.partition(":")[0]].verify(candidate, action)
        assert verdict.reward == 1, (candidate, verdict)


def test_near_rows_are_none_of_pretraining():
    """Blocks of pretraining have the seeds n * 1_000_003 + block, with a few thousand blocks at most."""
    assert near.SEED % 1_000_003 > 900_000
