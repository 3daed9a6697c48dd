"""The configs of the other domains: complete, checked, and the tiny size of each finds pivots to the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.configs import CONFIGS as BFCL
from support.configs import load, paths
from support.paths import ROOT

from pivotrl_jax import verifiers
from pivotrl_jax.pivots import candidates
from pivotrl_jax.records import Profile, read_records
from pivotrl_jax.run import check_config
from pivotrl_jax.trajectories import extract, sources

NAMES = ("tau2", "swe", "terminal", "browsecomp")
CONFIGS = {name: load(ROOT / "configs" / f"{name}.py") for name in NAMES}
SIZES = [(name, size) for name in NAMES for size in CONFIGS[name].SIZES]


def tiny(name):
    """The tiny config with its sources, or a skip where the sample is not there."""
    config = CONFIGS[name].get_config("tiny")
    for source in config.data.source.split(","):
        if not (ROOT / source).exists():
            pytest.skip(f"{source} is not here")
    return config


@pytest.mark.parametrize("name, size", SIZES)
def test_every_size_has_the_fields_of_bfcl_and_passes_the_check(name, size):
    config = CONFIGS[name].get_config(size)
    fields = {field for field in paths(config) if not field.startswith("data.verifier_options.")}
    assert fields == paths(BFCL.get_config()) and config.is_locked
    check_config.check(config)
    check_config.check_training(config)
    assert config.data.verifier in verifiers.VERIFIERS and config.name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_table_on_top_names_every_size_and_an_unknown_one_lists_them(name):
    module = CONFIGS[name]
    assert f"| qwen3_30b_a3b | `--config=configs/{name}.py` |" in module.__doc__
    for size in set(module.SIZES) - {"qwen3_30b_a3b"}:
        assert f"| {size} | `--config=configs/{name}.py:{size}` |" in module.__doc__
    with pytest.raises(ValueError, match=r"'huge'; choose one of qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny"):
        module.get_config("huge")


@pytest.mark.parametrize("name", NAMES)
def test_gold_is_accepted_and_garbage_rejected_on_the_sample(name, monkeypatch):

    config = tiny(name)
    monkeypatch.chdir(ROOT)
    demonstrations = sources.load(config.data, config.seed).demonstrations
    found = extract.extract(demonstrations)
    check = candidates.self_check(found)
    assert found and not check.left_out
    options = config.data.verifier_options.to_dict()
    assert all(options.items() <= candidate.case.items() for candidate in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tiny_finds_pivots_to_the_end(name, tmp_path):
    config = tiny(name)
    command = [sys.executable, "-m", "pivotrl_jax.find_pivots", f"--config=configs/{name}.py:tiny"]
    done = subprocess.run(
        [*command, f"--config.workdir={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    profiles = read_records(tmp_path / "profiles.jsonl", Profile)
    assert profiles and all(len(p.rewards) == config.profile.group_size for p in profiles)
    assert f"pivots: {tmp_path / 'pivots.jsonl'}" in done.stdout
    assert json.loads((tmp_path / "run.json").read_text())["config"]["name"] == name


def test_samples_are_whole_episodes():
    for name in ("search", "terminus"):
        lines = Path(ROOT / "configs" / "samples" / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert len(lines) == 8 and len({json.loads(line)["id"] for line in lines}) == 8
