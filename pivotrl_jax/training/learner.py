"""TrainState and the jitted update: log-probs of a packed forest -> loss -> gradients -> optimizer.

One program serves GRPO and SFT; they differ in the objective they pass. A step runs `accumulate` once per
microbatch of rows and `apply` once, so the number of rows never causes a compilation. Per-token weights
already carry the global denominator, so the result does not depend on how rows are cut into microbatches.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, lora, routing, sharding
from pivotrl_jax.models import log_probs as log_probs_lib
from pivotrl_jax.training.losses import Batch
from pivotrl_jax.training.objectives import Objective
from pivotrl_jax.training.optimizer import host_memory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array  # int32 scalar: optimizer steps taken
    params: decoder.Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Compute:
    """How and where a forest is computed. It changes speed and memory, not results, except for the
    load-balance loss, which is computed per microbatch."""

    attention_chunk: int
    log_prob_chunk: int
    remat: str  # a key of decoder.REMAT
    rows: int = 1  # of a microbatch: a multiple of the devices that rows are split over
    offload_optimizer: bool = False  # keep optimizer state in host memory between updates
    mesh: Mesh | None = None  # a Learner needs one


@dataclasses.dataclass(frozen=True)
class Routers:
    """What a step does with the routers of a mixture of experts. `replay` and `agreement` read the batch's
    `experts`, which the sampler chose.

    replay: tokens go to the sampler's experts, weighted by the learner's router. agreement: measure which
    share of the sampler's choices at trained tokens the learner makes, too. balance: coefficient of the
    load-balance loss (`routing.balance_loss`), a mean over microbatches weighted by their tokens.
    """

    replay: bool = False
    agreement: bool = False
    balance: float = 0.0

    @property
    def outputs(self) -> routing.RouterOutputs:
        return routing.RouterOutputs(choices=self.agreement, loads=bool(self.balance))

    def prepare(self, batch: Batch) -> Batch:
        """The batch with `real`, which the load-balance loss reads: 1 / (number of tokens), 0 at padding."""
        if not self.balance:
            return batch
        real = batch["subtree_end"] > 0
        return {**batch, "real": np.float32(real / max(real.sum(), 1))}

    def terms(self, stats: routing.RouterStats, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """(term to add to the loss, sums for metrics); a pair is (sum, the count to divide it by)."""
        total, sums = 0.0, {}
        if self.agreement:
            recorded = jnp.moveaxis(batch["experts"], 2, 0)
            sums["routing_agreement"] = routing.agreement(stats["choices"], recorded, batch["weight"] > 0)
        if self.balance:
            loss, mass = routing.balance_loss(stats, batch["real"])
            total = self.balance * mass * loss
            sums["balance_loss"] = mass * loss, mass
        return total, sums


def forest_log_probs(
    config: model_config.ModelConfig,
    compute: Compute,
    params: decoder.Params,
    batch: Batch,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """log-prob and entropy [R, T] of the slots with weight > 0, at the sampler's temperature."""
    return routed_log_probs(config, compute, params, batch, temperature, Routers())[0]


def routed_log_probs(
    config: model_config.ModelConfig,
    compute: Compute,
    params: decoder.Params,
    batch: Batch,
    temperature: float,
    routers: Routers,
) -> tuple[tuple[jax.Array, jax.Array], routing.RouterStats]:
    """`forest_log_probs`, and the routers' outputs."""
    hidden, stats = decoder.routed_states(
        config,
        params,
        decoder.Rows(batch["tokens"], batch["position"], batch["subtree_end"]),
        compute.attention_chunk,
        compute.remat,
        routers.outputs,
        jnp.moveaxis(batch["experts"], 2, 0) if routers.replay else None,
        batch["real"] if routers.balance else None,
    )
    trained = batch["weight"] > 0
    numbers = log_probs_lib.token_log_probs(
        config, params, hidden, batch["tokens"], batch["parent"], trained, temperature, compute.log_prob_chunk
    )
    return numbers, stats


class Learner:
    """The compiled programs of one model on one mesh. Its methods take and return a TrainState; it holds only
    what is not trained (`frozen`: the base under adapters, else nothing). Raises InputError when optimizer
    state is to be kept in host memory on a platform that has none."""

    def __init__(
        self,
        config: model_config.ModelConfig,
        compute: Compute,
        optimizer: optax.GradientTransformation,
        objective: Objective,
        temperature: float,
        frozen: decoder.Params | None = None,
        routers: Routers = Routers(),
    ):
        self.config, self.optimizer, self.routers = config, optimizer, routers
        self.mesh = mesh = compute.mesh
        self.rows, offload = compute.rows, compute.offload_optimizer
        self.frozen = {} if frozen is None else frozen
        self.param_sharding = sharding.param_shardings(
            lora.trained(config, decoder.abstract_params(config)), mesh
        )
        self.batch_sharding = sharding.batch_sharding(mesh, self.rows)
        self.replicated = NamedSharding(mesh, PartitionSpec())
        on_device = self._opt_sharding()
        at_rest = host_memory(on_device) if offload else on_device
        self.state_sharding = TrainState(self.replicated, self.param_sharding, at_rest)

        def total(params, frozen, batch):
            params = lora.join(frozen, params)
            numbers, stats = routed_log_probs(config, compute, params, batch, temperature, routers)
            log_prob, entropy = numbers
            value, sums = objective(log_prob, entropy, batch)
            router_loss, router_sums = routers.terms(stats, batch)
            loss = value + router_loss
            return loss, {"loss": loss, **sums, **router_sums}

        def accumulate(params, frozen, grads, batch):
            more, sums = jax.grad(total, has_aux=True)(params, frozen, batch)
            return jax.tree.map(jnp.add, grads, more), sums

        def apply(state, grads):
            opt_state = jax.device_put(state.opt_state, on_device) if offload else state.opt_state
            updates, opt_state = optimizer.update(grads, opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
            return TrainState(state.step + 1, params, opt_state), norms

        def log_probs(params, frozen, batch):
            return forest_log_probs(config, compute, lora.join(frozen, params), batch, temperature)[0]

        # with out_shardings, because otherwise the partitioner lays out gradients and moments anew every step
        self.accumulate = jax.jit(
            accumulate, donate_argnums=2, out_shardings=(self.param_sharding, self.replicated)
        )
        self.apply = jax.jit(apply, donate_argnums=0, out_shardings=(self.state_sharding, self.replicated))
        self.log_probs = jax.jit(log_probs, out_shardings=self.replicated)  # every process reads all
        self._zeros = jax.jit(
            lambda params: jax.tree.map(jnp.zeros_like, params), out_shardings=self.param_sharding
        )

    def _opt_sharding(self):
        """Shardings of the optimizer state: moments as their parameter has it, counters replicated."""
        shapes = lora.trained(self.config, decoder.param_shapes(self.config))
        places = {
            (path, leaf.shape): place
            for (path, leaf), place in zip(
                jax.tree.leaves_with_path(shapes), jax.tree.leaves(self.param_sharding)
            )
        }

        def place(path, leaf):  # .../mu/layers/q with q's shape is q's moment, whatever wraps it
            tails = ((path[i:], leaf.shape) for i in range(len(path)))
            return next((places[tail] for tail in tails if tail in places), self.replicated)

        return jax.tree.map_with_path(place, jax.eval_shape(self.optimizer.init, shapes))

    def init_state(self, params: decoder.Params) -> TrainState:
        """Step 0 with fresh optimizer state, laid out on the mesh. `params` is copied, because steps donate
        their state."""
        on_mesh = self.place(params)
        return TrainState(
            sharding.put(np.int32(0), self.replicated),
            on_mesh,
            jax.jit(self.optimizer.init, out_shardings=self.state_sharding.opt_state)(on_mesh),
        )

    def abstract_state(self, params: decoder.Params) -> TrainState:
        """What `init_state(params)` returns, as ShapeDtypeStructs with shardings: a template to restore."""
        shapes = jax.eval_shape(lambda p: p, params)
        state = TrainState(
            jax.ShapeDtypeStruct((), jnp.int32), shapes, jax.eval_shape(self.optimizer.init, shapes)
        )

        def with_sharding(leaf, place):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        return jax.tree.map(with_sharding, state, self.state_sharding)

    def place(self, params: decoder.Params) -> decoder.Params:
        """A copy of trained parameters, on the mesh."""
        return jax.jit(lambda p: jax.tree.map(jnp.copy, p), out_shardings=self.param_sharding)(params)

    def _microbatches(self, batch: Batch) -> Iterator[Batch]:
        """Cut [R, T] arrays into pieces of `rows` rows, the last one padded with empty rows."""
        R = batch["tokens"].shape[0]
        for start in range(0, R, self.rows):
            piece = {name: np.asarray(x[start : start + self.rows]) for name, x in batch.items()}
            short = self.rows - piece["tokens"].shape[0]
            if short:
                piece = {name: np.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1)) for name, x in piece.items()}
            yield {name: sharding.put(x, self.batch_sharding) for name, x in piece.items()}

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, float]]:
        """One optimizer step over all rows of `batch`; `state` is donated. Returns the new state and metrics:
        the loss that is minimised (with the terms of the KL and the routers), the number of trained tokens,
        means per trained token, and norms."""
        batch = self.routers.prepare(batch)
        with jax.set_mesh(self.mesh):
            grads, sums = self._zeros(state.params), []
            for piece in self._microbatches(batch):
                grads, piece_sums = self.accumulate(state.params, self.frozen, grads, piece)
                sums.append(piece_sums)
            state, norms = self.apply(state, grads)
        totals = jax.tree.map(lambda *xs: float(np.sum([np.float64(x) for x in xs])), *jax.device_get(sums))
        tokens = totals.pop("tokens")
        loss = totals.pop("loss")  # already a mean: its weights carry the denominator
        pairs = {name: value for name, value in totals.items() if isinstance(value, tuple)}
        means = {name: value / max(tokens, 1.0) for name, value in totals.items() if name not in pairs}
        means |= {name: total / max(count, 1e-30) for name, (total, count) in pairs.items()}
        return state, {"loss": loss, "tokens": tokens, **means, **jax.tree.map(float, jax.device_get(norms))}

    def score(self, params: decoder.Params, batch: Batch) -> np.ndarray:
        """log-probs float32 [R, T] of the slots with weight > 0, e.g. under the frozen reference policy.
        Tokens take the experts of its own router, not the sampler's."""
        batch = {name: x for name, x in batch.items() if name != "experts"}
        with jax.set_mesh(self.mesh):
            pieces = [
                np.asarray(self.log_probs(params, self.frozen, piece)) for piece in self._microbatches(batch)
            ]
        return np.concatenate(pieces)[: batch["tokens"].shape[0]]
