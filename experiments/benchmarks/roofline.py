"""How much of this machine's rate of matrix products the model reaches:
`python experiments/benchmarks/roofline.py --model=SmolLM2-135M-Instruct --dtype=bfloat16`

One row of `--length` tokens, a single sequence, goes forward through the layers, and forward and backward
with adapters of rank 16 (`--rank=0`: all parameters), with every layer recomputed in the backward pass, as
configs/bfcl.py:smollm2 trains. The ceiling is the model's own widest product, [length, D] by [D, mlp], in the
same dtype. The three take turns, `--runs` times after one round that is not counted; numbers are medians.

FLOPs are those of the mathematics (`plan/costs.py`): recomputation is not counted, so a share of 1 could not
be reached with it. Weights are random and no vocabulary is involved. Prints one JSON line.
"""

import argparse
import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import peers

from pivotrl_jax.checkpoints import hf_config, locate
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, lora, products
from pivotrl_jax.plan import costs

MODELS = locate.EMBEDDED.parent / "models"  # config.json of released checkpoints
CHUNK = 128


def programs(config: model_config.ModelConfig, length: int) -> tuple[dict, dict]:
    """({"forward", "both", "ceiling"}: function without arguments, the same: FLOPs of one call)."""
    params = decoder.init_params(config, jax.random.key(0))
    row = jnp.arange(length, dtype=jnp.int32)[None]
    rows = decoder.Rows(row % config.vocab_size, row, jnp.full_like(row, length))

    def forward(remat, trained, base):
        hidden = decoder.hidden_states(config, lora.join(base, trained), rows, CHUNK, remat)
        return hidden.astype(jnp.float32).sum()

    trained = lora.trained(config, params)
    base = lora.base(params) if config.lora else {}
    x = jnp.ones((length, config.hidden_size), config.dtype)
    w = jnp.ones((config.hidden_size, config.mlp_size), config.dtype)
    cases = {
        "forward": (lambda remat: lambda t, b: forward(remat, t, b), (trained, base)),
        "both": (lambda remat: jax.grad(lambda t, b: forward(remat, t, b)), (trained, base)),
        "ceiling": (lambda remat: products.matmul, (x, w)),
    }
    calls, flops = {}, {}
    for name, (make, arguments) in cases.items():
        f = jax.jit(make("full"))
        calls[name] = lambda f=f, arguments=arguments: jax.block_until_ready(f(*arguments))
        jaxpr = jax.make_jaxpr(make("nothing"))(*arguments)
        flops[name] = costs.flops(jaxpr, costs.causal(0), jax.default_backend()).flops
    return calls, flops


def seconds(call, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="a folder of assets/models")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--layers", type=int, default=0, help="0: as many as the model has")
    parser.add_argument("--length", type=int, default=1792)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    config = hf_config.load_config(MODELS / options.model, options.dtype)
    config = dataclasses.replace(
        config,
        num_layers=options.layers or config.num_layers,
        lora=model_config.Lora(options.rank, 2.0 * options.rank) if options.rank else None,
    )
    calls, flops = programs(config, options.length)
    repeats = {"forward": 1, "both": 1, "ceiling": 50}
    taken = peers.take_turns(
        {name: lambda number, name=name: seconds(calls[name], repeats[name]) for name in calls}, options.runs
    )
    median = {name: float(np.median(times)) for name, times in taken.items()}
    rate = {name: flops[name] / median[name] for name in calls}
    page = peers.facts("roofline") | vars(options)
    page |= {f"{name}_seconds": value for name, value in median.items()}
    page |= {f"{name}_gflops": value / 1e9 for name, value in rate.items()}
    page |= {f"{name}_share": rate[name] / rate["ceiling"] for name in ("forward", "both")}
    peers.report(page)


if __name__ == "__main__":
    main()
