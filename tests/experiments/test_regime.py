"""experiments/regime: its arms are configs that can run, and verifiers accept the demonstrations of its near
families."""

import ast
import importlib.util
import json

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


def test_what_is_kept_of_a_run_names_its_turns_by_a_hash(tmp_path):
    turns = [{"id": f"t{i}@1", "scenario": "s", "is_call": i > 0, "mean": i / 2} for i in range(3)]
    found = {
        "episodes": [True, False],
        "turns": turns,
        "near": {"induction": [0.5]},
        "kl": {"near": [0.12345]},
    }
    (tmp_path / "run.json").write_text(json.dumps({"counts": {"pivot": 2}, "seconds": {"training": 1.5}}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    (tmp_path / "measured.json").write_text(json.dumps({"pi_0": found, "10": found}))
    out = tmp_path / "results" / "T1" / "pivotrl_seed0.json"
    runs.keep(tmp_path, out)
    kept = json.loads(out.read_text())
    assert kept["10"]["turns"] == [0, 0.5, 1] and kept["10"]["is_call"] == "011"
    assert kept["10"]["kl"]["near"] == [0.1235] and kept["10"]["episodes"] == [True, False]
    assert kept["counts"] == {"pivot": 2} and [m["step"] for m in kept["metrics"]] == [0, 1]
    others = runs.compact(found | {"turns": list(reversed(turns))})
    assert others["turns_of"] != kept["10"]["turns_of"]
