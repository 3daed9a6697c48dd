"""What a run would cost on a machine that you do not have: its programs compiled ahead of time, and counted.

The programs are those of the run itself, `Learner`'s and `Sampler`'s, lowered with the shapes of the config
and shardings on the target's devices. Nothing is allocated. Memory is what the compiler reports. FLOPs are
counted in the jaxpr (`costs.py`) and collectives in the compiled program (`hlo.py`), because XLA's own cost
analysis counts the body of a loop once.
"""

import dataclasses
import math
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pivotrl_jax.models import config as model_config_lib
from pivotrl_jax.models import decoder, forest, lora, routing, sharding
from pivotrl_jax.models import experts as experts_lib
from pivotrl_jax.plan import costs, hlo
from pivotrl_jax.plan.chips import Chip
from pivotrl_jax.records import Prompt, Rollout
from pivotrl_jax.rollouts.rollout import RoutedRollout
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner, recipe
from pivotrl_jax.training.batches import grpo_batch


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program, per device."""

    name: str
    calls: int  # per optimizer step, at most
    peak_bytes: int  # most bytes alive at once (arguments, results and temporaries), by the compiler
    flops: float  # per device and call, with what remat computes again
    traffic_bytes: float  # least traffic with device memory, per call
    collectives: dict[str, hlo.Collective]  # per call
    compiled: bool  # False: the compiler refused for lack of memory; `peak_bytes` is what it asked for
    compile_seconds: float

    def floor_seconds(self, chip: Chip) -> dict[str, float]:
        """Least seconds per call of arithmetic, memory and interconnect, each alone at its peak rate."""
        wire = sum(c.wire_bytes for c in self.collectives.values())
        return {
            "compute": self.flops / chip.flops,
            "memory": self.traffic_bytes / chip.bandwidth,
            "interconnect": wire / chip.interconnect,
        }


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Rows, row lengths and samples of a run's largest programs."""

    learner_rows: int
    sampler_rows: int
    slots: int  # of a row of the learner
    prefix_slots: int  # of a row of the sampler
    branches: int
    decode_slots: int
    max_tokens: int
    samples: int  # of one step: pivots x group size
    microbatches: int  # of one step, at full length

    rollout_batches: int  # of one step, then, too

    @classmethod
    def of(cls, config, mesh: Mesh) -> "Shapes":
        """The shapes of a step whose prompts and completions are all as long as the config allows."""
        g, most = config.grpo, config.data.max_prompt_tokens
        learner_rows = sharding.whole_rows(mesh, g.microbatch_rows)
        sampler_rows = sharding.whole_rows(mesh, g.batch.rows)
        prompt, completion = np.zeros(most, np.int32), np.zeros(config.sampling.max_tokens, np.int32)
        full = [[forest.Piece(i, prompt, [completion] * g.group_size)] for i in range(g.pivots_per_step)]
        drawn = [[forest.Piece(i, prompt, samples=g.group_size)] for i in range(g.pivots_per_step)]
        rows, slots = forest.pack_shortest(full, config.compute.row_lengths, learner_rows).tokens.shape
        prefix = forest.round_up(most, config.compute.row_lengths)
        batches = (
            forest.pack(drawn, prefix, g.batch.samples_per_row, sampler_rows).tokens.shape[0] // sampler_rows
        )
        return cls(
            learner_rows=learner_rows,
            sampler_rows=sampler_rows,
            slots=slots,
            prefix_slots=prefix,
            branches=g.batch.samples_per_row,
            decode_slots=min(g.batch.decode_slots, g.batch.samples_per_row),
            max_tokens=config.sampling.max_tokens,
            samples=g.pivots_per_step * g.group_size,
            microbatches=rows // learner_rows,
            rollout_batches=batches,
        )


def struct(shape, dtype, place) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def structs(shapes, places, dtype=None):
    """ShapeDtypeStructs laid out; floating leaves in `dtype`."""

    def one(s, place):
        change = dtype is not None and jnp.issubdtype(s.dtype, jnp.floating)
        return struct(s.shape, dtype if change else s.dtype, place)

    return jax.tree.map(one, shapes, places)


def bytes_per_device(tree) -> int:
    """Bytes on one device of a tree of ShapeDtypeStructs with shardings."""
    return sum(math.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize for s in jax.tree.leaves(tree))


def _compile(lowered, kind: str) -> tuple[int, str]:
    """(peak bytes of a device, the text of the partitioned program). The TPU compiler refuses a program that
    does not fit and says how much it needs; then the text is empty.

    XLA turns bfloat16 collectives into float32 ones for CPU, so the text for GPUs is the partitioner's.
    """
    if kind == "tpu":
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as e:
            needed = re.search(r"\((\d+(?:\.\d+)?)([MGT])\) exceeds available HBM", str(e))
            if not needed:
                raise
            return int(float(needed[1]) * 2 ** {"M": 20, "G": 30, "T": 40}[needed[2]]), ""
        return compiled.memory_analysis().peak_memory_in_bytes, compiled.as_text()
    with tempfile.TemporaryDirectory() as directory:
        dump = {"xla_dump_to": directory, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        memory = lowered.compile(compiler_options=dump).memory_analysis()
        text = next(Path(directory).glob("*after_spmd-partitioning*.txt")).read_text()
    # the CPU compiler reports no peak, so everything counts as alive at once
    sizes = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return sizes - memory.alias_size_in_bytes, text


class Plan:
    """The programs of one run on one mesh, and what they need."""

    def __init__(
        self, config, model_config: model_config_lib.ModelConfig, mesh: Mesh, chip: Chip, compiler: Chip
    ):
        self.config, self.model_config, self.mesh = config, model_config, mesh
        self.chip, self.compiler = chip, compiler  # whose numbers count, and whose devices the mesh has
        self.shapes = Shapes.of(config, mesh)
        self.learner = recipe.grpo_learner(config, model_config, mesh)
        sampling = Sampling(**config.sampling.to_dict(), stop_ids=(0,))
        record = recipe.routers_of(config.grpo).agreement
        self.sampler = Sampler(
            model_config, sampling, self.shapes.decode_slots, config.compute.attention_chunk, mesh, record
        )
        whole = decoder.param_shapes(model_config)
        dtype = config.model.param_dtype
        trained = lora.trained(model_config, whole)
        self.params = structs(trained, self.learner.param_sharding, "float32" if model_config.lora else dtype)
        self.opt_state = structs(
            jax.eval_shape(self.learner.optimizer.init, self.params), self.learner.state_sharding.opt_state
        )
        base = lora.base(decoder.abstract_params(model_config))
        self.frozen = (
            structs(lora.base(whole), sharding.param_shardings(base, mesh), dtype)
            if model_config.lora
            else {}
        )
        self.decode_params = jax.tree.map_with_path(self._decode_leaf, whole, self.sampler.places)

    def _decode_leaf(self, path, s, place):
        name, dtype = path[-1].key, self.model_config.dtype
        dtype = self.config.model.param_dtype if name == "router" else dtype
        return struct(s.shape, "float32" if name.endswith("_lora_b") else dtype, place)

    def resident_bytes(self) -> dict[str, int]:
        """What a device holds throughout training: trained and frozen parameters, optimizer state, and the
        reference policy if there is a KL."""
        optimizer = 0 if self.config.grpo.offload_optimizer else bytes_per_device(self.opt_state)
        params = bytes_per_device(self.params)
        reference = params if self.config.grpo.kl_coefficient else 0
        return {
            "parameters": params + bytes_per_device(self.frozen),
            "optimizer": optimizer,
            "reference": reference,
        }

    def shared_bytes(self) -> int:
        """Bytes of the sampler's parameters that it shares with the learner instead of copying them."""
        own = lora.join(self.frozen, self.params)
        pairs = zip(jax.tree.leaves(self.decode_params), jax.tree.leaves(own))
        same = lambda a, b: a.dtype == b.dtype and a.sharding.is_equivalent_to(b.sharding, len(a.shape))  # noqa: E731
        return bytes_per_device([a for a, b in pairs if same(a, b)])

    def kv_cache_bytes(self) -> tuple[int, int]:
        """(of prefixes, of the samples' own tokens): keys and values of a batch of rollouts, per device."""
        c, s = self.model_config, self.shapes
        heads = c.num_kv_heads // self.mesh.shape["tensor"]
        rows = s.sampler_rows // sharding.row_shards(self.mesh)
        token = 2 * c.num_layers * heads * c.head_dim * jnp.dtype(c.dtype).itemsize
        return rows * s.prefix_slots * token, rows * s.decode_slots * s.max_tokens * token

    def compile(self) -> list[Program]:
        """Compile the learner's and the sampler's programs: gradient, optimizer, rollouts and, if there is a
        KL, the reference's log-probs. Takes minutes for a large model."""
        # not in parallel: libtpu 0.0.42 has crashed when compiling in two threads
        made = [self._accumulate(), self._apply(), self._sample()]
        return [*made, self._score()] if self.config.grpo.kl_coefficient else made

    def _batch(self):
        """A microbatch of rollouts: the arrays of a batch of one token, in rows of this run's length."""
        c, routers = self.model_config, self.learner.routers
        layers = sum(end - first for _, first, end, moe in c.segments() if moe)
        experts = np.zeros((1, layers, c.experts_per_token), routing.record_dtype(c.num_experts))
        record = {"experts": experts, "prompt_experts": experts} if routers.agreement else {}
        kind = RoutedRollout if record else Rollout
        rollout = kind("", 0, [0], [0.0], [0.0], True, "", 0.0, "", **record)
        prompt = Prompt(SimpleNamespace(trajectory_id=""), [0])
        one = np.ones((1, 1), np.float32)
        batch = routers.prepare(grpo_batch([prompt], [[rollout]], one, one, [self.shapes.slots], rows=1))
        if self.config.grpo.kl_coefficient:
            batch["reference_log_prob"] = batch["weight"]
        rows, place = self.shapes.learner_rows, self.learner.batch_sharding
        return {name: struct((rows, *x.shape[1:]), x.dtype, place) for name, x in batch.items()}

    def _accumulate(self) -> Program:
        args = self.params, self.frozen, self.params, self._batch()
        s = self.shapes
        tokens = s.learner_rows * s.slots // sharding.row_shards(self.mesh)
        # a forward pass, its recomputation under remat, and two products for the gradient of each; all but
        # the last read the weights, and the gradient is added to the accumulated one
        passes = 4 if self.config.compute.remat == "full" else 3
        traffic = (passes - 1) * self._gathered_bytes() + passes * tokens * self._bytes_per_token()
        traffic += 2 * bytes_per_device(self.params)
        return self._program(
            "gradient of a microbatch", self.learner.accumulate, args, s.microbatches, traffic
        )

    def _bytes_per_token(self) -> float:
        """Bytes that the products of all layers read and write for one token, without the weights."""
        c, tensor = self.model_config, self.mesh.shape["tensor"]
        D, heads, kv = c.hidden_size, c.num_heads * c.head_dim / tensor, c.num_kv_heads * c.head_dim / tensor
        attention = 2 * (D + heads) + 2 * (D + kv)
        dense, experts = 3 * (D + c.mlp_size / tensor), 3 * c.experts_per_token * (D + c.expert_size / tensor)
        layers = sum(
            (end - first) * (attention + (experts if moe else dense)) for _, first, end, moe in c.segments()
        )
        return layers * jnp.dtype(c.dtype).itemsize

    def _gathered_bytes(self) -> int:
        """Bytes of a device's weights in the compute dtype after they are gathered over `fsdp`."""
        total = 0
        boxed = jax.tree.leaves(
            decoder.abstract_params(self.model_config), is_leaf=lambda x: hasattr(x, "names")
        )
        for leaf in boxed:
            places = sharding.spec(self.mesh, leaf.names, leaf.value.shape, sharding.LEARNER)
            split = [self.mesh.shape[axis] for axis in places if axis not in (None, "fsdp")]
            total += math.prod(leaf.value.shape) // math.prod(split)
        return total * jnp.dtype(self.model_config.dtype).itemsize

    def _score(self) -> Program:
        tokens = self.shapes.learner_rows * self.shapes.slots // sharding.row_shards(self.mesh)
        traffic = self._gathered_bytes() + tokens * self._bytes_per_token()
        args = self.params, self.frozen, self._batch()
        return self._program("reference", self.learner.log_probs, args, self.shapes.microbatches, traffic)

    def _apply(self) -> Program:
        step = struct((), jnp.int32, self.learner.replicated)
        state = learner.TrainState(step, self.params, self.opt_state)
        params = bytes_per_device(self.params)
        traffic = 3 * params + 2 * bytes_per_device(self.opt_state)
        return self._program("optimizer", self.learner.apply, (state, self.params), 1, traffic)

    def _sample(self) -> Program:
        s, rows = self.shapes, self.sampler.row_sharding
        wide, branch = (s.sampler_rows, s.prefix_slots), (s.sampler_rows, s.branches)
        key = jax.eval_shape(lambda: jax.random.key(0))
        args = (
            self.decode_params,
            *(struct(wide, jnp.int32, rows) for _ in range(3)),
            struct(branch, jnp.int32, rows),
            struct(key.shape, key.dtype, self.learner.replicated),
            struct((*branch, 2), jnp.int32, rows),
        )
        prefix, own = self.kv_cache_bytes()
        weights = {
            name: x
            for name, x in self.decode_params.items()
            if name != "embed" or self.model_config.tie_embeddings
        }
        # every decode step reads the device's weights, the prefixes and, on average, half of the samples'
        # tokens
        steps = -(-s.branches // s.decode_slots) * (s.max_tokens - 1)
        traffic = (steps + 1) * (bytes_per_device(weights) + prefix + own / 2)
        return self._program("rollouts", self.sampler.run, args, s.rollout_batches, traffic, steps)

    def _program(self, name, jitted, args, calls, traffic, steps: int = 1) -> Program:
        began = time.perf_counter()
        with jax.set_mesh(self.mesh):
            traced = jitted.trace(*args)
            lowered = traced.lower()
        peak, text = _compile(lowered, self.compiler.kind)
        return Program(
            name=name,
            calls=calls,
            peak_bytes=peak,
            flops=self._flops(traced.jaxpr, steps) / self.mesh.size,
            traffic_bytes=traffic,
            collectives=hlo.collectives(text, steps) if text else {},
            compiled=bool(text),
            compile_seconds=time.perf_counter() - began,
        )

    def _flops(self, jaxpr, steps: int) -> float:
        """FLOPs of all devices together. Where experts are spread, every device receives all rows and
        multiplies those of its own experts. They are spread over `expert` and, in the sampler, also over
        `fsdp`, unless it moves weights instead."""
        platform = "tpu" if self.chip.kind == "tpu" else "cuda"
        expert, s = self.mesh.shape["expert"], self.shapes

        def share(column: int, tokens: int) -> float:
            axes = sharding.axes_of(self.mesh, "E", self.model_config.num_experts, column)
            with jax.set_mesh(self.mesh):
                weights = experts_lib.cheaper_to_move_weights(self.model_config, tokens)
            return 1 / expert if axes == "expert" or weights else 1 / (expert * self.mesh.shape["fsdp"])

        if steps == 1:
            return costs.flops(jaxpr, costs.causal(0), platform, 1 / expert).flops
        rows = s.sampler_rows // sharding.row_shards(self.mesh)
        prefill = share(sharding.SAMPLER, rows * s.prefix_slots)
        decode = share(sharding.SAMPLER, rows * s.decode_slots)
        once = costs.flops(jaxpr, costs.causal(0), platform, prefill).flops
        a_step = [costs.flops(jaxpr, costs.causal(n), platform, decode).flops for n in (1, 0)]
        return once + steps * (a_step[0] - a_step[1])
