"""FLOPs of a traced program, counted from its jaxpr.

XLA's own `cost_analysis` counts the body of a loop once, and a model is a loop over layers. As in every
published utilisation, only matrix products count: 2 M N K for [M, K] x [K, N]. Softmax, norms, rotations and
the optimizer are left out.

Counts are for all devices together. Outside a `shard_map` a jaxpr has global shapes, so the count is that of
the mathematics, whatever copies the partitioner makes. Inside one the shapes are those of a shard, and every
shard counts.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval


@dataclasses.dataclass(frozen=True)
class Costs:
    flops: float  # of all devices
    by_product: dict[str, float]  # the same by primitive: "dot_general", "ragged_dot_general"


# Length of the scan directly around a `while` (0: none) -> how often it runs, which no jaxpr says.
Trips = Callable[[int], float]


def causal(steps: float) -> Trips:
    """Trips of this project's loops. Inside a scan over B blocks of queries it is the loop over the earlier
    blocks of keys (`attention.forest_attention`); elsewhere it is the decode loop, of `steps` tokens.

    Causality leaves block i its i earlier blocks, (B - 1) / 2 on average. That holds for a row with a single
    sequence; a forest of several needs fewer.
    """
    return lambda blocks: (blocks - 1) / 2 if blocks else steps


def flops(jaxpr: ClosedJaxpr, while_trips: float | Trips, platform: str, ragged_share: float = 1.0) -> Costs:
    """FLOPs of `jax.jit(f).trace(...).jaxpr` or `jax.make_jaxpr(f)(...)`.

    platform: "tpu", "cuda" or "cpu", the branch of `jax.lax.platform_dependent` that counts. Of any other
    `cond` the most expensive branch counts. ragged_share: the share of a ragged product's rows that belong to
    one of its groups. It is 1, or 1 / e when the groups are spread over e devices that all receive all rows.
    """
    trips = while_trips if callable(while_trips) else lambda blocks: while_trips
    # A custom gradient computes that of every input; what nothing uses (frozen matrices) is never run
    used, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=True)
    total = _Walk(trips, platform, ragged_share).cost(used, scan=0)
    return Costs(sum(total.values()), dict(total))


Count = collections.Counter  # primitive -> FLOPs


def _times(count: Count, n: float) -> Count:
    return Count({name: value * n for name, value in count.items()})


@dataclasses.dataclass(frozen=True)
class _Walk:
    trips: Trips
    platform: str
    ragged_share: float

    def cost(self, jaxpr, scan: int) -> Count:
        """`scan` is the length of the innermost loop around this jaxpr if that is a scan, else 0."""
        total = Count()
        for eqn in (jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr).eqns:
            total.update(self.equation(eqn, scan))
        return total

    def equation(self, eqn: JaxprEqn, scan: int) -> Count:
        name, p = eqn.primitive.name, eqn.params
        if name == "dot_general":
            return Count({name: _product(eqn, p["dimension_numbers"])})
        if name == "ragged_dot_general":
            numbers = p["ragged_dot_dimension_numbers"]
            all_rows = _product(eqn, numbers.dot_dimension_numbers, numbers.rhs_group_dimensions)
            return Count({name: all_rows * self.ragged_share})
        if name == "scan":
            return _times(self.cost(p["jaxpr"], p["length"]), p["length"])
        if name == "while":
            body = self.cost(p["body_jaxpr"], 0) + self.cost(p["cond_jaxpr"], 0)
            return _times(body, self.trips(scan)) if body else body  # no products: the trips do not matter
        if name == "cond":
            return self.branch(p, scan)
        inner = Count()
        for jaxpr in _jaxprs(p):
            inner.update(self.cost(jaxpr, scan))
        return _times(inner, _copies(name, p)) if inner else inner

    def branch(self, params, scan: int) -> Count:
        """The platform's branch of a `platform_dependent`; of any other choice, the most expensive branch."""
        branches, platforms = params["branches"], params.get("branches_platforms")
        if platforms:
            named = [i for i, names in enumerate(platforms) if names and self.platform in names]
            chosen = named[0] if named else platforms.index(None)  # None: the default
            return self.cost(branches[chosen], scan)
        return max((self.cost(branch, scan) for branch in branches), key=lambda count: sum(count.values()))


def _product(eqn: JaxprEqn, numbers, groups=()) -> float:
    """2 x all elements of the left side x the free dimensions of the right side.

    This also holds for a ragged product, where every row meets one matrix, and for its gradient, where the
    rows are summed by group. Elementwise products and their sums may be written as products, too (the norms
    of `layers.py` are): they have no sum, or no axis but those summed and shared, and count nothing.
    """
    (_, contracted), (_, batch) = numbers
    left, right = (x.aval.shape for x in eqn.invars[:2])
    if not contracted or len(contracted) + len(batch) == len(left) == len(right):
        return 0.0
    bound = {*contracted, *batch, *groups}
    return 2.0 * math.prod(left) * math.prod(n for i, n in enumerate(right) if i not in bound)


def _copies(name: str, params) -> int:
    """How often the jaxprs of a call run: once per shard of a `shard_map`, once per program of a Pallas grid,
    and once otherwise."""
    if name == "shard_map":
        manual = params.get("newly_manual_axes", params.get("manual_axes"))  # JAX 0.10, later
        return math.prod(params["mesh"].shape[axis] for axis in manual)
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _jaxprs(params) -> Iterator:
    """The jaxprs among an equation's parameters: the body of a jit, a checkpoint, a custom derivative."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Jaxpr | ClosedJaxpr):
                yield item
