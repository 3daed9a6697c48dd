"""python -m pivotrl_jax.plan: bytes and FLOPs are those of arithmetic; bad input is named."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys

import jax
import pytest
from support.paths import ROOT

from pivotrl_jax.checkpoints import hf_config
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder
from pivotrl_jax.plan import summary
from pivotrl_jax.records import InputError

CONFIG = "configs/bfcl.py"


def run(*flags: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "pivotrl_jax.plan", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def page_of(*flags: str) -> dict:
    code, out, err = run(*flags)
    assert code == 0, err[-3000:]
    assert "usable" in out and "one optimizer step" in out  # the tables
    return json.loads(out.splitlines()[-1])


def parameters(config: model_config.ModelConfig) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(decoder.param_shapes(config)))


@pytest.fixture(scope="module")
def two_gpus() -> dict:
    return page_of(f"--config={CONFIG}", "--mesh=data:2", "--device=h100", "--compiler=cpu")


def test_bytes_are_those_of_the_parameters_and_shapes(two_gpus):
    config, there = hf_config.load_config(ROOT / "pivotrl_jax/assets/tiny", "float32"), two_gpus["bytes"]
    size = 4 * parameters(config)
    assert there["parameters"] == there["gradients"] == size  # data: each device has all of them
    assert size * 2 <= there["optimizer"] <= size * 2 + 64  # two moments and counters
    rows, s = 4, two_gpus["shapes"]  # of 8 sampler rows each device has 4
    token = 2 * 4 * config.num_layers * config.num_kv_heads * config.head_dim
    assert there["kv_cache"] == rows * token * (s["prefix_slots"] + s["branches"] * s["max_tokens"])
    assert there["sampler_parameters"] == 0  # float32 and whole: the learner's own
    assert two_gpus["fits"] and two_gpus["estimate"] and two_gpus["devices"] == 2


def test_flops_are_those_of_a_transformer(two_gpus):
    config, s = hf_config.load_config(ROOT / "pivotrl_jax/assets/tiny", "float32"), two_gpus["shapes"]
    D, L, T = config.hidden_size, config.num_layers, s["slots"]
    attention = 2 * D * config.head_dim * (config.num_heads + config.num_kv_heads)
    experts = 3 * config.experts_per_token * D * config.expert_size + D * config.num_experts
    weights = L * (attention + experts) + D * config.vocab_size
    scores = 2 * L * config.num_heads * config.head_dim * T / 2  # both products, half of them causal
    tokens = s["learner_rows"] * T
    gradient = two_gpus["arithmetic_intensity"]  # forward, and twice that backward
    assert gradient.keys() == {"gradient of a microbatch", "optimizer", "rollouts"}
    floor = two_gpus["floor_seconds"]["gradient of a microbatch"]["compute"]
    want = 6 * tokens * (weights + scores) / 2 / 494.7e12  # the H100's rate in float32, as TF32
    assert 0.95 * want < floor < 1.25 * want  # the diagonal blocks are whole; scores are computed again


def test_data_parallel_gradients_are_summed_once(two_gpus):
    """Ring: 2 (n - 1) / n of every gradient, float32, once per microbatch; of the tied embedding twice, as
    input and as output; and a few scalars."""
    config = hf_config.load_config(ROOT / "pivotrl_jax/assets/tiny", "float32")
    size = two_gpus["bytes"]["gradients"] + 4 * config.vocab_size * config.hidden_size
    sent = two_gpus["collective_bytes"]["all-reduce"] / two_gpus["calls_per_step"]["gradient of a microbatch"]
    assert size <= sent < 1.001 * size, (size, sent)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install -e '.[plan]'")
def test_a_tpu_is_compiled_for_by_its_own_compiler():
    page = page_of(
        f"--config={CONFIG}", "--mesh=fsdp:2,expert:2", "--device=v5e", "--config.compute.row_lengths=(1024,)"
    )
    assert not page["estimate"] and page["fits"] and page["mesh"] == {"fsdp": 2, "expert": 2}
    assert page["collective_bytes"]["all-gather"] > 0 and page["usable_bytes"] == 15.75 * 2**30
    config = hf_config.load_config(ROOT / "pivotrl_jax/assets/tiny", "float32")
    assert page["bytes"]["parameters"] < 0.6 * 4 * parameters(config)


def test_the_numbers_of_released_checkpoints_are_known():
    known = {path.name for path in summary.KNOWN.iterdir()}
    assert {
        "Qwen3-0.6B",
        "Qwen3-32B",
        "Qwen3-30B-A3B-Thinking-2507",
        "Qwen3-235B-A22B-Thinking-2507",
        "Qwen2.5-7B-Instruct",
        "Llama-3.1-8B-Instruct",
        "SmolLM2-135M-Instruct",
    } <= known
    billions = {name: parameters(hf_config.load_config(summary.KNOWN / name)) / 1e9 for name in known}
    for name, count in billions.items():
        size, unit = re.search(r"([\d.]+)([BM])", name).groups()
        said = float(size) / (1000 if unit == "M" else 1)
        assert abs(count - said) < (0.07 if name.startswith(("Qwen3", "SmolLM2")) else 0.25) * said, (
            name,
            count,
        )
    exact = {"SmolLM2-135M-Instruct": 134_515_008, "Llama-3.1-8B-Instruct": 8_030_261_248}
    exact |= {"Llama-3.2-1B-Instruct": 1_235_814_400, "Qwen2.5-0.5B-Instruct": 494_032_768}
    exact |= {"Qwen2.5-7B-Instruct": 7_615_616_512}
    assert {name: round(billions[name] * 1e9) for name in exact} == exact  # as their model cards say
    for owner, name in (("Qwen", "Qwen3-0.6B"), ("HuggingFaceTB", "SmolLM2-135M-Instruct")):
        assert summary.checkpoint_directory(f"{owner}/{name}") == summary.KNOWN / name


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--mesh=fsdp:2", "--device=abacus"], "--device=abacus names no chip; choose one of v4, v5e"),
        (["--mesh=fsdp2", "--device=h100"], "--mesh=fsdp2: 'fsdp2' is not axis:size"),
        (["--mesh=model:2", "--device=h100"], r"mesh axes \['model'\] are unknown"),
        (["--mesh=expert:3", "--device=h100"], "mesh axis expert: 3 does not divide layers"),
        (["--mesh=fsdp:2", "--device=h100", "--config.grpo.steps=0"], "config.grpo.steps is 0; want"),
        (
            ["--mesh=fsdp:2", "--device=h100", "--config.model.checkpoint=/nowhere"],
            "/nowhere/config.json: no such",
        ),
    ],
)
def test_bad_input_is_one_sentence(flags, sentence):
    code, _, err = run(f"--config={CONFIG}", *flags)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 1 and "Traceback" not in err
    assert re.search(f"^error: .*{sentence}", lines[-1]), err


def test_a_mesh_is_read_from_its_flag():
    assert summary.parse_mesh("fsdp:8, expert:4") == {"fsdp": 8, "expert": 4}
    for text in ("", "fsdp", "fsdp:", "fsdp:x", "fsdp:2,fsdp:4"):
        with pytest.raises(InputError, match="is not axis:size"):
            summary.parse_mesh(text)
