"""Accelerators to plan for: their published numbers, the flag `--device`, and a mesh to compile for.

libtpu compiles for TPUs on any Linux machine; it needs only the shape of the slice. There is no such compiler
for GPUs, so other devices stand in for them and the result is an estimate (`compiled_for`).
"""

import dataclasses
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from pivotrl_jax.models import sharding
from pivotrl_jax.records import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device: a TPU chip (both cores of a v4 or v5p, which libtpu presents as one) or one GPU."""

    name: str
    kind: str  # "tpu" or "gpu"
    flops: float  # FLOP/s, dense bfloat16 matrix products (a T4's: float16)
    hbm_bytes: float
    usable_bytes: float  # what one program may take; of a TPU, the most that libtpu 0.0.42 accepts (measured)
    bandwidth: float  # bytes/s, of HBM
    # bytes/s that one device sends, one way, over all its ICI links or NVLinks together. A collective along
    # one axis of a torus uses two of its four or six links, so this flatters it.
    interconnect: float
    dims: int  # axes of the torus; 1 for GPUs, which a switch joins
    largest: int  # devices in the largest slice, or in a node of GPUs; anything that joins more is slower
    # FLOP/s of float32 products as JAX runs them: TF32 where the chip has it; on a TPU, passes in bfloat16
    float32_flops: float
    has_bfloat16: bool = True


def _tpu(name, tflops, hbm, usable, bandwidth, ici, dims, largest):
    flops = tflops * 1e12
    return Chip(name, "tpu", flops, hbm * GIB, usable * GIB, bandwidth, ici, dims, largest, flops)


def _gpu(name, tflops, gigabytes, bandwidth, link, float32, has_bfloat16=True):
    flops, size = tflops * 1e12, gigabytes * 1e9
    return Chip(name, "gpu", flops, size, size, bandwidth, link, 1, 8, float32 * 1e12, has_bfloat16)


# TPUs: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e give peak compute, HBM capacity and bandwidth, the
# largest slice, and "bidirectional ICI bandwidth per chip"; one way is half of that. The page on v4 has no
# ICI number: 45 GB/s per link is from jax-ml.github.io/scaling-book/tpus.
# GPUs: NVIDIA's data sheets (of A100, H100 and H200 the SXM parts) as quoted by
# jax-ml.github.io/scaling-book/gpus and glennklockwood.com/garden/processors, and NVIDIA's papers on the
# architectures of the GeForce cards, with sums in float32. Where NVIDIA prints a number "with sparsity",
# dense is half; it prints NVLink both ways, and one way is half. Cards without NVLink talk over PCIe: 16, 32
# or 64 GB/s one way. A gigabyte is taken as 1e9 bytes, less than a driver reports, because CUDA keeps some
# memory for itself.
CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v4", 275, 32, 30.75, 1.2e12, 6 * 45e9, 3, 4096),
        _tpu("v5e", 197, 16, 15.75, 819e9, 4 * 50e9, 2, 256),
        _tpu("v5p", 459, 96, 95.74, 2.765e12, 6 * 100e9, 3, 6144),
        _tpu("v6e", 918, 32, 31.25, 1.638e12, 4 * 100e9, 2, 256),
        _gpu("t4", 65, 16, 320e9, 16e9, 8.1, has_bfloat16=False),
        _gpu("l4", 121, 24, 300e9, 32e9, 60),
        _gpu("rtx3090", 71, 24, 936e9, 32e9, 35.6),
        _gpu("rtx4090", 165.2, 24, 1.008e12, 32e9, 82.6),
        _gpu("rtx5090", 209.5, 32, 1.792e12, 64e9, 104.8),
        _gpu("a100-40", 312, 40, 1.555e12, 300e9, 156),
        _gpu("a100", 312, 80, 2.039e12, 300e9, 156),
        _gpu("h100", 989.4, 80, 3.35e12, 450e9, 494.7),
        _gpu("h200", 989.4, 141, 4.8e12, 450e9, 494.7),
    )
}

TOPOLOGY = {"v4": {"chip_config_name": "megacore"}}  # without it libtpu makes two devices of a v4 chip


def parse_device(text: str, sizes: Mapping[str, int]) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the shape of the slice that `--device` names, for a mesh of the given axis sizes.

    "v5p" takes the most cubic slice (the most square for v5e and v6e) of as many chips as the mesh has;
    "v5p:4x4x4" is that very slice; "h200" and "h200:16" are a row of GPUs. Raises InputError for an unknown
    chip, a shape of another number of axes, and a mesh that does not fit.
    """
    match = re.fullmatch(r"([\w-]+)(?::([1-9]\d*(?:x[1-9]\d*)*))?", text)
    chip = CHIPS.get(match[1].lower()) if match else None
    if chip is None:
        raise InputError(f"--device={text} names no chip; choose one of {', '.join(CHIPS)}, or v5p:2x2x4")
    if match[2]:
        shape = tuple(map(int, match[2].split("x")))
        if len(shape) != chip.dims:
            like = "x".join("224"[: chip.dims])
            raise InputError(f"--device={text}: {chip.name} has {chip.dims} axes; write {chip.name}:{like}")
    elif -1 in sizes.values():
        raise InputError(
            f"--device={text} takes its number of devices from the mesh, which leaves one axis open (-1); "
            f"give that axis a size, or the device a shape"
        )
    else:
        shape = slice_shape(chip, math.prod(sizes.values()))
    sharding.mesh_shape(sizes, math.prod(shape))
    return chip, shape


def for_dtype(chip: Chip, dtype: str) -> Chip:
    """The chip with its rate for arithmetic in `dtype`. Raises InputError where it has no bfloat16."""
    if dtype == "float32":
        return dataclasses.replace(chip, flops=chip.float32_flops)
    if not chip.has_bfloat16:
        raise InputError(
            f"{chip.name} has no bfloat16; set config.model.dtype=float32 (adapters and "
            "config.model.param_dtype=bfloat16 still halve the weights)"
        )
    return chip


def slice_shape(chip: Chip, devices: int) -> tuple[int, ...]:
    """The most cubic slice of that many chips, sides ascending: 16 v5p are 2x2x4. Raises InputError when
    there is none."""
    if chip.kind == "gpu":
        return (devices,)
    sides = [n for n in range(1, devices + 1) if devices % n == 0]
    shapes = [s for s in itertools.product(sides, repeat=chip.dims) if math.prod(s) == devices]
    shapes = [s for s in shapes if _hosts_fit(s)]
    if not shapes or devices > chip.largest:
        raise InputError(
            f"{chip.name} has no slice of {devices} chips: slices are of 1, of 2 and of multiples of 4 up to "
            f"{chip.largest} chips; choose another mesh"
        )
    return min(shapes, key=lambda s: (sum(s), s))


def _hosts_fit(shape: tuple[int, ...]) -> bool:
    """Whether whole hosts of 2x2 chips, or one smaller host, make up the slice: libtpu refuses others."""
    return shape[0] % 2 == shape[1] % 2 == 0 or math.prod(shape) <= 2


def compiled_for(chip: Chip, shape: tuple[int, ...], compiler: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and slice to compile for in place of `chip`.

    Compiling for a GPU needs a GPU, so the same number of v5p stands in for it, if libtpu is installed and
    has such a slice: like a GPU's compiler, libtpu lays the program out in bfloat16. The last resort, or the
    choice when `compiler` is "cpu", are virtual CPU devices; they take two to four times the memory, in
    float32 and with all results alive at once (measured: 30B-A3B on 8 devices, 82 GiB of activations against
    14).
    """
    if chip.kind == "tpu" or compiler == "cpu" or importlib.util.find_spec("libtpu") is None:
        return chip, shape
    try:
        return CHIPS["v5p"], slice_shape(CHIPS["v5p"], math.prod(shape))
    except InputError:
        return chip, shape


def target_mesh(chip: Chip, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Mesh:
    """A mesh of MESH_AXES over the devices of a slice, to lower and compile for; nothing can run on it.

    Neighbours on a mesh axis are neighbours in a TPU's torus wherever `mesh_utils` finds a way. Call this
    before any array is made: for GPUs it sets the number of CPU devices. Raises InputError for a slice that
    libtpu refuses.
    """
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")  # leave an accelerator of this machine alone
    devices = _slice(chip, shape) if chip.kind == "tpu" else _virtual(math.prod(shape))
    axes = sharding.mesh_shape(sizes, len(devices))
    if chip.kind == "tpu":
        grid = mesh_utils.create_device_mesh(axes, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(axes)
    return Mesh(grid, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * len(axes))


# For a machine without a TPU: no metadata server, one worker. The accelerator type only silences a warning
# and does not depend on the target. The last line lets two compilers run side by side.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def _slice(chip: Chip, shape: tuple[int, ...]) -> list:
    """Devices of a TPU slice, one per chip, as libtpu describes them."""
    name = f"{chip.name}:{'x'.join(map(str, shape))}"
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f"--device={name} is compiled by libtpu; pip install 'pivotrl-jax[plan]'")
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    options = dict(TOPOLOGY.get(chip.name, {}))
    if math.prod(shape) <= 2:  # one small host; by default libtpu assumes 2x2x1 chips
        options["chips_per_host_bounds"] = [*shape, 1, 1][:3]
    try:
        return topologies.get_topology_desc(topology_name=name, platform="tpu", **options).devices
    except jax.errors.JaxRuntimeError as e:
        raise InputError(
            f"--device={name} is refused by libtpu ({str(e).splitlines()[0]}); a slice has 1 or 2 "
            f"chips, or an even number along each of its first two axes"
        ) from None


def _virtual(count: int) -> list:
    """`count` virtual CPU devices. Raises RuntimeError when JAX has already started with fewer."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # started: it may have enough
        if len(jax.devices("cpu")) < count:
            raise
    return jax.devices("cpu")[:count]
