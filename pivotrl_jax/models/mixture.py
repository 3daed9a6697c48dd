"""The mixture of experts of a decoder layer: its parameters, and the call on each device's tokens.

Routing and the grouped products are in `experts.py`; what the router returns is in `routing.py`.
"""

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import experts, routing, sharding
from pivotrl_jax.models.layers import adapter, declare


def mixture(module: nn.Module, h, recorded, token_weight) -> tuple[jax.Array, routing.RouterStats]:
    """(the experts' output [R, T, D] for `h` [R, T, D], the router outputs that the layer asks for).

    Recorded expert choices `recorded` [R, T, A] are replayed; `token_weight` [R, T] weighs tokens in the
    loads. Both may be None.
    """
    c, mesh = module.config, sharding.current_mesh()
    groups = _expert_matrices(module)
    letters, matrices = [tuple(g) for g in groups], [tuple(g.values()) for g in groups]
    specs = [
        tuple(sharding.spec(mesh, n, w.shape, module.column) for n, w in g.items()) if mesh else None
        for g in groups
    ]
    expert_axes = sharding.axes_of(mesh, "E", c.num_experts, module.column) if mesh else None
    split = sharding.TABLE["D"][module.column]

    # gathers what the products need: D whole, experts split over fewer axes
    def gather(group, names, along_experts):
        out = []
        for w, name in zip(group, names):
            w = sharding.gather(w, split, name.index("D")) if "D" in name else w
            out.append(sharding.gather(w, along_experts, 0))
        return tuple(out) if c.lora else out[0]

    def compute(h, rows, router, *matrices):
        h, rows, router, matrices = sharding.varying((h, rows, router, matrices))
        tokens = h.reshape(-1, c.hidden_size)
        router = sharding.gather(router, split, 0)
        probs = experts.probabilities(tokens, router)
        replayed = rows["recorded"].reshape(-1, c.experts_per_token) if "recorded" in rows else None
        weight, expert, top_k = experts.choose(probs, c.experts_per_token, c.norm_topk_prob, replayed)
        choices = top_k.reshape(*h.shape[:2], -1)
        stats = routing.router_stats(module.router_outputs, probs, choices, expert, rows.get("token_weight"))
        axes, along = expert_axes, None
        if isinstance(axes, tuple) and experts.cheaper_to_move_weights(c, tokens.shape[0]):
            axes, along = "expert", "fsdp"
        matrices = [gather(group, names, along) for group, names in zip(matrices, letters)]
        return experts.spread_mlp(tokens, weight, expert, *matrices, axes).reshape(h.shape), stats

    # the router stays in the dtype of its parameter, because rounding would flip near-ties
    router = declare(module, "router", "DE", 0.02)
    optional = {"recorded": recorded, "token_weight": token_weight}
    rows = {name: x for name, x in optional.items() if x is not None}
    in_specs = (sharding.BATCH, dict.fromkeys(rows, sharding.BATCH), P(split), *specs)
    out_specs = (sharding.BATCH, module.router_outputs.specs())
    return sharding.per_shard(compute, in_specs, out_specs)(h, rows, router, *matrices)


def _expert_matrices(module: nn.Module) -> list[dict[str, jax.Array]]:
    """Gate, up and down: per matrix, its array and those of its adapter, by axis letters."""
    out = []
    for name, inputs, outputs in (("gate", "D", "F"), ("up", "D", "F"), ("down", "F", "D")):
        letters = f"E{inputs}{outputs}"
        group = {letters: declare(module, name, letters, 0.02).astype(module.config.dtype)}
        if module.config.lora:
            a, b = adapter(module, name, inputs, outputs, experts=True)
            group |= {f"E{inputs}U": a, f"EU{outputs}": b}
        out.append(group)
    return out
