"""Speed of the experts' products on a CPU, compared with an ideal and with `jax.lax.ragged_dot`.

    python experiments/benchmarks/experts.py [--runs=21]

There are two sizes, (1024 tokens, 128 experts, top 8, hidden 256, width 96) and (4096, 8, 2, 128, 128), each
with balanced and with skewed routing (the probability of an expert is proportional to 1 / its rank). Timed in
turns; times are medians:

- ideal: the same MLP over equal-sized groups as batched products, without routing;
- blocked: `experts.blocked_mlp`, from sorting by expert to the weighted sum;
- ragged: `experts.ragged_mlp`, the same with `jax.lax.ragged_dot`; three runs, after the others.

Both the forward pass and forward plus backward (gradients of inputs, router weights and all matrices) are
timed. Rates count only useful work, so padding lowers them. Prints one JSON line: rates in GFLOP/s, and their
ratios to the ideal rate.
"""

import functools
import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from pivotrl_jax.models import experts

RUNS = flags.DEFINE_integer("runs", 21, "Timed runs of each; the median counts.")
SIZES = ((1024, 128, 8, 256, 96), (4096, 8, 2, 128, 128))  # tokens, experts, top k, hidden, width


def inputs(size, skewed: bool):
    M, E, A, D, F = size
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, E + 1) if skewed else np.ones(E)
    expert = [rng.choice(E, A, replace=False, p=share / share.sum()) for _ in range(M)]
    shapes = (M, D), (M, A), (E, D, F), (E, D, F), (E, F, D)
    x, weight, gate, up, down = (jnp.asarray(rng.normal(size=s) * 0.1, jnp.float32) for s in shapes)
    return x, weight, jnp.asarray(np.stack(expert), jnp.int32), gate, up, down


def ideal_mlp(rows_EPD, gate, up, down):
    inner = jax.nn.silu(jnp.einsum("epd,edf->epf", rows_EPD, gate)) * jnp.einsum("epd,edf->epf", rows_EPD, up)
    return jnp.einsum("epf,efd->epd", inner, down)


def compiled(f, *args):
    """(forward, forward and backward), compiled, as functions without arguments."""

    def both(*args):
        out, vjp = jax.vjp(f, *args)
        return out, vjp(out)

    return functools.partial(jax.jit(f), *args), functools.partial(jax.jit(both), *args)


def seconds(calls: dict, runs: int) -> dict:
    """Median seconds of each call; the calls take turns."""
    taken = {name: [] for name in calls}
    for run in range(runs + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if run > 1:
                taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(times)) for name, times in taken.items()}


def measure(size, skewed: bool, runs: int) -> dict:
    M, E, A, D, F = size
    x, weight, expert, *matrices = inputs(size, skewed)
    groups = jnp.tile(x, (A, 1)).reshape(E, M * A // E, D)

    def routed(mlp):
        return lambda x, weight, *matrices: mlp(x, weight, expert, *matrices)

    cases = {
        "ideal": (ideal_mlp, groups, *matrices),
        "blocked": (routed(experts.blocked_mlp), x, weight, *matrices),
        "ragged": (routed(experts.ragged_mlp), x, weight, *matrices),
    }
    calls = {}
    for name, case in cases.items():
        calls[name, "forward"], calls[name, "both"] = compiled(*case)
    slow = {" ".join(k): v for k, v in calls.items() if "ragged" in k}
    taken = seconds({" ".join(k): v for k, v in calls.items() if "ragged" not in k}, runs)
    taken |= seconds(slow, 3)
    work = {"forward": 6 * M * A * D * F, "both": 18 * M * A * D * F}
    rate = {k: work[k.split()[1]] / t / 1e9 for k, t in taken.items()}
    ratio = {k: round(r / rate["ideal " + k.split()[1]], 3) for k, r in rate.items() if "ideal" not in k}
    return {"gflops": {k: round(r, 1) for k, r in rate.items()}, "of_ideal": ratio}


def main(argv) -> None:
    page = {
        "benchmark": "experts",
        "jax": jax.__version__,
        "cores": os.cpu_count(),
    }
    page["runs"] = RUNS.value
    for size in SIZES:
        for skewed in (False, True):
            name = f"{size} {'skewed' if skewed else 'balanced'}"
            page[name] = measure(size, skewed, RUNS.value)
            print(name, page[name], file=sys.stderr)
    print(json.dumps(page))


if __name__ == "__main__":
    app.run(main)
