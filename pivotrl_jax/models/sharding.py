"""The mesh, and one table from axis letters to mesh axes.

The mesh always has the axes `data`, `fsdp`, `expert` and `tensor`; on a laptop it is 1 x 1 x 1 x 1.
Parameters are placed with NamedShardings; programs are traced under `jax.set_mesh`. XLA's partitioner handles
the projections, and `use` and `constrain` tell it how arrays are sharded. Lookups, attention, experts and
log-probs run per shard with explicit collectives (`per_shard`), because there the partitioner would copy too
much.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.records import InputError

MESH_AXES = ("data", "fsdp", "expert", "tensor")
BATCH_AXES = ("data", "fsdp", "expert")  # they split the rows of a packed forest
BATCH = PartitionSpec(BATCH_AXES)


# Axis letter -> mesh axes. Axes with other letters are never split.
#          learner's parameters   sampler's parameters      arrays in use
TABLE = {
    "D": ("fsdp",                 None,                     None),
    "E": ("expert",               ("expert", "fsdp"),       None),
    "H": ("tensor",               "tensor",                 "tensor"),
    "N": ("tensor",               "tensor",                 "tensor"),
    "F": ("tensor",               "tensor",                 "tensor"),
    "I": ("tensor",               "tensor",                 "tensor"),
    "V": ("tensor",               "tensor",                 "tensor"),
    "R": (None,                   None,                     BATCH_AXES),
}  # fmt: skip


# The learner gathers a layer's matrices over `fsdp` when it uses them, once per microbatch. The sampler would
# have to gather them for every token, so there experts are also split over `fsdp`, and all else is whole.
LEARNER, SAMPLER, IN_USE = range(3)


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """A mesh with the given axis sizes. One of them may be -1: that axis takes the remaining devices.

    Raises InputError when an axis is unknown or the sizes do not multiply to the number of devices.
    """
    shape = mesh_shape(sizes, jax.device_count())
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def mesh_shape(sizes: Mapping[str, int], devices: int) -> tuple[int, ...]:
    """Sizes of MESH_AXES on this many devices. Arguments and errors are those of `make_mesh`."""
    unknown = sorted(set(sizes) - set(MESH_AXES))
    if unknown:
        raise InputError(f"mesh axes {unknown} are unknown; the axes are {', '.join(MESH_AXES)}")
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    known = int(np.prod([size for size in shape if size != -1]))
    positive = all(size == -1 or size > 0 for size in shape)
    if positive and shape.count(-1) == 1 and devices % known == 0:
        shape[shape.index(-1)] = devices // known
    elif not positive or shape.count(-1) or known != devices:
        text = ", ".join(f"{axis}: {size}" for axis, size in zip(MESH_AXES, shape))
        raise InputError(
            f"the mesh ({text}) does not fit {devices} devices; sizes must multiply to that number"
        )
    return tuple(shape)


def batch_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """The sharding of a batch's rows over BATCH_AXES. Raises InputError when these do not divide `rows`."""
    parts = row_shards(mesh)
    if rows % parts:
        text = ", ".join(f"{axis}: {mesh.shape[axis]}" for axis in BATCH_AXES)
        raise InputError(
            f"{rows} rows of a microbatch (config.grpo.microbatch_rows) do not divide over the mesh "
            f"({text}); make them a multiple of {parts}"
        )
    return NamedSharding(mesh, BATCH)


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def whole_rows(mesh: Mesh, rows: int) -> int:
    """`rows`, rounded up to divide over the mesh, so that a config written for one device runs on eight."""
    parts = row_shards(mesh)
    return -(-rows // parts) * parts


def axes_of(mesh, letter: str, size: int, column: int):
    """The mesh axes that split an array axis of this letter and size. The sampler's experts are split over
    `expert` alone if they do not also divide over `fsdp`."""
    axes = TABLE[letter][column] if letter in TABLE else None
    if isinstance(axes, tuple) and letter == "E" and size % np.prod([mesh.shape[a] for a in axes]):
        return "expert"
    return axes


def spec(mesh, letters, shape, column: int) -> PartitionSpec:
    """The PartitionSpec of an array with these axis letters. Vectors of D (norms, a bias) stay whole: they
    are too small to be worth a collective each."""
    if "".join(letters).lstrip("L") == "D":
        return PartitionSpec()
    return PartitionSpec(*(axes_of(mesh, letter, n, column) for letter, n in zip(letters, shape)))


def param_shardings(abstract_params, mesh: Mesh, column: int = LEARNER):
    """NamedShardings for the boxed parameters of `decoder.abstract_params`, for the learner or the sampler.

    Raises InputError that names the parameter and the axis when a mesh axis does not divide a dimension.
    """

    def place(path, leaf):
        shape, letters = leaf.value.shape, leaf.names
        places = spec(mesh, letters, shape, column)
        for size, axes in zip(shape, places):
            parts = int(np.prod([mesh.shape[a] for a in (axes if isinstance(axes, tuple) else (axes,)) if a]))
            if size % parts:
                name = ".".join(str(key.key) for key in path)
                raise InputError(
                    f"mesh axis {axes}: {parts} does not divide {name} of shape {list(shape)} "
                    f"({''.join(letters)}); choose another mesh"
                )
        return NamedSharding(mesh, places)

    boxed = lambda x: isinstance(x, nn.meta.AxisMetadata)  # noqa: E731
    return jax.tree_util.tree_map_with_path(place, abstract_params, is_leaf=boxed)


def current_mesh():
    """The mesh that the caller is traced under; None on one device, where nothing is sharded."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def constrain(x: jax.Array, letters: str, column: int = IN_USE) -> jax.Array:
    """Tell the partitioner how an array with these axis letters is sharded."""
    mesh = current_mesh()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, spec(mesh, letters, x.shape, column))


def use(w: jax.Array, letters: str) -> jax.Array:
    """A parameter gathered over `fsdp`, as a product needs it. Its gradient is sharded as the parameter is
    stored.

    A sharding constraint alone would force the gathered layout on the gradient, too, which takes an
    all-reduce where a reduce-scatter is enough.
    """
    mesh = current_mesh()
    if mesh is None:
        return w
    at_rest, in_use = spec(mesh, letters, w.shape, LEARNER), spec(mesh, letters, w.shape, IN_USE)

    @jax.custom_vjp
    def gathered(w):
        return jax.lax.with_sharding_constraint(w, in_use)

    gathered.defvjp(
        lambda w: (gathered(w), None), lambda _, g: (jax.lax.with_sharding_constraint(g, at_rest),)
    )
    return gathered(w)


def per_shard(f: Callable, in_specs, out_specs) -> Callable:
    """A function that runs `f` on each device's shards (`jax.shard_map`); without a mesh, `f` itself."""
    mesh = current_mesh()
    return f if mesh is None else jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def varying(tree):
    """Inside `per_shard`: mark every leaf as different on every device, so that gradients are summed here,
    once, over the axes along which the leaf was equal."""
    mesh = current_mesh()

    def vary(x):
        kind = jax.typeof(x)
        already = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying  # JAX 0.10.2 and later
        axes = tuple(axis for axis in mesh.axis_names if axis not in already)
        return jax.lax.pcast(x, axes, to="varying") if axes else x

    return tree if mesh is None else jax.tree.map(vary, tree)


def gather(x: jax.Array, axes, dimension: int) -> jax.Array:
    """Inside `per_shard`: join the shards along a mesh axis (or several, or None) into one array. The
    gradient is summed and scattered back."""
    if count(axes) == 1:
        return x
    return jax.lax.all_gather(x, axes, axis=dimension, tiled=True)


def scatter_sum(x: jax.Array, axes, dimension: int) -> jax.Array:
    """Inside `per_shard`: the sum over a mesh axis; every device keeps its part of the sum."""
    if count(axes) == 1:
        return x
    return jax.lax.psum_scatter(x, axes, scatter_dimension=dimension, tiled=True)


def total(x: jax.Array, axes) -> jax.Array:
    """Inside `per_shard`: the sum over mesh axes."""
    return x if axes is None or current_mesh() is None else jax.lax.psum(x, axes)


def largest(x: jax.Array, axes) -> jax.Array:
    """Inside `per_shard`: the maximum over mesh axes. It has no gradient."""
    return x if current_mesh() is None else jax.lax.pmax(x, axes)


def count(axes) -> int:
    """The number of devices along mesh axes."""
    mesh = current_mesh()
    names = axes if isinstance(axes, tuple) else (axes,)
    return 1 if axes is None or mesh is None else int(np.prod([mesh.shape[a] for a in names]))


def index(axes) -> jax.Array | int:
    """Inside `per_shard`: this device's index along mesh axes."""
    return 0 if axes is None or current_mesh() is None else jax.lax.axis_index(axes)


def fetch(x) -> np.ndarray:
    """A whole array on this host, however it is sharded. With several processes, all must call it."""
    local = not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return np.asarray(x if local else multihost_utils.process_allgather(x, tiled=True))


def put(x, place: NamedSharding) -> jax.Array:
    """Place a host array, which is the same in every process, on the devices of all processes."""
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])
