"""Compile time by depth: `python experiments/benchmarks/compile_time.py`

Lowers and compiles the gradient of a microbatch and the sampler, as a run does. The model is like
Qwen3-30B-A3B, scaled down 8-fold, with 4 and with 48 layers; the two alternate, three times each. Prints one
JSON line: seconds (medians) and their ratio. Layers are scanned, so the target is a ratio below 2.
"""

import dataclasses
import json
import platform
import statistics
import time

import jax
import jax.numpy as jnp

from pivotrl_jax.checkpoints import hf_config, locate
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives, optimizer

MODELS = locate.EMBEDDED.parent / "models"  # config.json of released checkpoints
SLOTS, ROWS, BRANCHES, REPEATS = 2048, 2, 8, 3


def config_of(layers: int) -> model_config.ModelConfig:
    whole = hf_config.load_config(MODELS / "Qwen3-30B-A3B-Thinking-2507")
    small = {"hidden_size": 256, "num_heads": 8, "num_kv_heads": 2, "expert_size": 96, "num_experts": 16}
    return dataclasses.replace(whole, num_layers=layers, vocab_size=19_000, head_dim=32, **small)


def seconds(layers: int) -> tuple[float, float]:
    """Seconds to compile the gradient, and the sampler."""
    config, mesh = config_of(layers), sharding.make_mesh({})
    shapes = decoder.param_shapes(config)
    row = jax.ShapeDtypeStruct((ROWS, SLOTS), jnp.int32)
    floats = {name: jax.ShapeDtypeStruct(row.shape, jnp.float32) for name in ("weight",)}
    batch = {**dict.fromkeys(("tokens", "position", "parent", "subtree_end"), row), **floats}
    adamw = optimizer.make_optimizer(1e-6, 0, 0.0, 0.9, 0.95, 1.0)
    compute = learner_lib.Compute(attention_chunk=512, log_prob_chunk=512, remat="full")
    began = time.perf_counter()
    learner = learner_lib.Learner(
        config,
        dataclasses.replace(compute, rows=ROWS, mesh=mesh),
        adamw,
        objectives.negative_log_likelihood,
        1.0,
    )
    learner.accumulate.lower(shapes, {}, shapes, batch).compile()
    middle = time.perf_counter()
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=64, stop_ids=(0,))
    sampler = Sampler(config, sampling, decode_slots=BRANCHES, attention_chunk=512, mesh=mesh)
    branch = jax.ShapeDtypeStruct((ROWS, BRANCHES), jnp.int32)
    numbers = jax.ShapeDtypeStruct((ROWS, BRANCHES, 2), jnp.int32)
    sampler.run.lower(shapes, row, row, row, branch, jax.random.key(0), numbers).compile()
    return middle - began, time.perf_counter() - middle


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    seconds(2)  # not counted: the first compilation in a process takes longer
    found = {layers: [] for layers in (4, 48)}
    for _ in range(REPEATS):
        for layers, times in found.items():
            times.append(seconds(layers))
    medians = {n: [statistics.median(t[i] for t in times) for i in (0, 1)] for n, times in found.items()}
    ratio = [medians[48][i] / medians[4][i] for i in (0, 1)]
    names = ("gradient", "sampler")
    page = {
        "benchmark": "compile_time",
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "machine": f"{platform.machine()}, {jax.device_count()} device(s)",
        "seconds": {str(n): dict(zip(names, m)) for n, m in medians.items()},
        "ratio_48_to_4": dict(zip(names, ratio)),
    }
    print(json.dumps(page))


if __name__ == "__main__":
    main()
