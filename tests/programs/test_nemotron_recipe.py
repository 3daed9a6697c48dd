"""configs/tau2.py:nemotron: NeMo-RL's public recipe, and the sample of rows that it reads."""

import json
import subprocess
import sys

import pytest
from support.configs import load
from support.paths import ROOT

from pivotrl_jax.pivots import candidates
from pivotrl_jax.records import Candidate, read_records
from pivotrl_jax.run import check_config
from pivotrl_jax.trajectories import extract, sources

SAMPLE = ROOT / "configs" / "samples" / "tool_use_pivots.jsonl"


@pytest.fixture
def config():
    return load(ROOT / "configs" / "tau2.py").get_config("nemotron").copy_and_resolve_references()


def test_it_is_the_published_recipe(config):
    check_config.check(config)
    check_config.check_training(config)
    g, v, s = config.grpo, config.validation, config.sampling
    assert config.model.checkpoint == "Qwen/Qwen3-30B-A3B-Thinking-2507"
    assert (g.pivots_per_step, g.group_size, g.baseline, g.normalise) == (64, 16, "leave_one_out", "std")
    assert (g.clip_low, g.clip_high, g.kl_coefficient, g.loss) == (0.2, 0.2, 0.0, "grpo")
    assert (g.learning_rate, g.warmup_steps, g.router, g.aggregation) == (1e-6, 0, "frozen", "token_mean")
    assert (v.every, v.turns, v.samples) == (10, 512, 1) and (s.temperature, s.top_p) == (1.0, 1.0)
    assert config.data.max_prompt_tokens + s.max_tokens == max(config.compute.row_lengths) == 32_768
    assert (config.data.min_pass_rate, config.data.max_pass_rate) == (0.0, 1.0), "no filter by default"


def test_it_reads_the_sample(config):
    config.data.source, config.data.max_pass_rate, config.validation.turns = str(SAMPLE), 0.6, 3
    data, validation = sources.load_with_validation(config)
    trained = extract.extract(data.demonstrations)
    validated = extract.extract(validation.trajectories)
    assert len(trained) + len(validated) == 8 and len(validated) >= 3 and not data.held_out
    assert {c.scenario for c in trained}.isdisjoint(c.scenario for c in validated)
    assert {c.verifier for c in trained} == {"tool_call:nemo_gym"}
    assert not candidates.self_check([*trained, *validated]).left_out
    assert len(data.skipped) == 3 and data.unrated == 1


def test_the_candidates_program_has_the_filter(tmp_path):
    command = [sys.executable, "-m", "pivotrl_jax.candidates", str(SAMPLE), f"--out={tmp_path / 'c.jsonl'}"]
    flags = ["--max_pass_rate=0.6", "--pass_rate_field=qwen_235b_info"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_records(tmp_path / "c.jsonl", Candidate)) == 8
    assert "1 rows have no published pass rate and were kept" in done.stdout
    assert "tool_use_pivots:5: pass_rate_high: its published pass rate is 0.75, above 0.6" in done.stderr
    done = subprocess.run(
        [*command, "--min_pass_rate=0.6", "--max_pass_rate=0.5"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "want 0 <= min_pass_rate <= max_pass_rate <= 1" in done.stderr


@pytest.mark.slow
def test_the_recipe_trains_on_the_sample_in_small(tmp_path):
    small = {
        "model.checkpoint": "embedded",
        "model.dtype": "float32",
        "data.source": SAMPLE,
        "data.max_pass_rate": 0.6,
        "data.max_prompt_tokens": 960,
        "compute.row_lengths": "(1024,)",
        "compute.log_prob_chunk": 128,
        "compute.attention_chunk": 128,
        "sampling.max_tokens": 64,
        "grpo.steps": 2,
        "grpo.pivots_per_step": 2,
        "grpo.group_size": 4,
        "grpo.microbatch_rows": 1,
        "grpo.batch.rows": 1,
        "validation.every": 1,
        "validation.turns": 3,
        "validation.batch.rows": 1,
        "evaluate.batch.rows": 1,
        "workdir": tmp_path,
    }
    command = [sys.executable, "-m", "pivotrl_jax.train", "--config=configs/tau2.py:nemotron"]
    command += [f"--config.{name}={value}" for name, value in small.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    skipped = (tmp_path / "skipped.jsonl").read_text()
    assert skipped.count("pass_rate_high") == 3
    facts = json.loads((tmp_path / "run.json").read_text())["skipped"]
    assert (facts["pass_rate"], facts["without_pass_rate_kept"]) == (3, 1)
    assert "validation/turn_pass" in (tmp_path / "metrics.jsonl").read_text()
