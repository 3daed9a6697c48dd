"""The mesh, and one table from axis letters to mesh axes.

One mesh always: `data`, `fsdp`, `expert`, `tensor`, 1 x 1 x 1 x 1 on a laptop. Arrays are placed with
NamedShardings and XLA's partitioner does the rest.
"""

from collections.abc import Mapping

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.records import InputError

MESH_AXES = ("data", "fsdp", "expert", "tensor")

# axis letter -> mesh axis; letters that are not here are never split
RULES = (("D", "fsdp"), ("H", "tensor"), ("N", "tensor"), ("F", "tensor"), ("V", "tensor"), ("E", "expert"))

BATCH = PartitionSpec(("data", "fsdp"))  # rows of a packed forest


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """A mesh of the given axis sizes; one axis may be -1, which takes the devices that are left.

    Raises InputError when an axis is unknown or the sizes do not multiply to the number of devices.
    """
    unknown = sorted(set(sizes) - set(MESH_AXES))
    if unknown:
        raise InputError(f"mesh axes {unknown} are unknown; the axes are {', '.join(MESH_AXES)}")
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    devices, known = jax.device_count(), 1
    for size in shape:
        known *= size if size != -1 else 1
    positive = all(size == -1 or size > 0 for size in shape)
    if positive and shape.count(-1) == 1 and devices % known == 0:
        shape[shape.index(-1)] = devices // known
    elif not positive or shape.count(-1) or known != devices:
        text = ", ".join(f"{axis}: {size}" for axis, size in zip(MESH_AXES, shape))
        raise InputError(
            f"the mesh ({text}) does not fit {devices} devices; sizes must multiply to that number"
        )
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def batch_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """Rows of a batch over the `data` and `fsdp` axes. Raises InputError when they do not divide `rows`."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % parts:
        raise InputError(
            f"{rows} rows of a microbatch do not divide over the mesh (data: {mesh.shape['data']}, "
            f"fsdp: {mesh.shape['fsdp']}); make them a multiple of {parts}"
        )
    return NamedSharding(mesh, BATCH)


def whole_rows(mesh: Mesh, rows: int) -> int:
    """`rows`, rounded up to divide over the mesh: a config written for one device runs on eight."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-rows // parts) * parts


def param_shardings(abstract_params, mesh: Mesh):
    """NamedShardings for the boxed parameters of `model.abstract_params`.

    Raises InputError naming the parameter and the axis when a dimension does not divide by its mesh axis.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract_params), RULES)

    def check(path, spec, leaf):
        for size, axis in zip(leaf.shape, spec):
            if axis is not None and size % mesh.shape[axis]:
                name = jax.tree_util.keystr(path)
                raise InputError(
                    f"mesh axis {axis}: {mesh.shape[axis]} does not divide {name} of shape {leaf.shape}"
                )
        return NamedSharding(mesh, spec)

    leaves = nn.unbox(abstract_params)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, spec: check(path, spec, leaf), leaves, specs, is_leaf=lambda x: hasattr(x, "shape")
    )
