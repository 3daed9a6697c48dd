"""Chips: what `--device` may say, the slice it takes, and the mesh over it."""

import itertools
import math
import os
import subprocess
import sys

import pytest
from jax.sharding import AxisType
from support.paths import ROOT

from pivotrl_jax.models import sharding
from pivotrl_jax.plan import chips
from pivotrl_jax.plan.chips import CHIPS
from pivotrl_jax.records import InputError

SLICES = {  # devices -> v4 and v5p, v5e and v6e
    1: ((1, 1, 1), (1, 1)),
    4: ((2, 2, 1), (2, 2)),
    8: ((2, 2, 2), (2, 4)),
    16: ((2, 2, 4), (4, 4)),
    32: ((2, 4, 4), (4, 8)),
    64: ((4, 4, 4), (8, 8)),
    256: ((4, 8, 8), (16, 16)),
}


def tpu_mesh(text: str, sizes: dict):
    pytest.importorskip("libtpu")
    return chips.target_mesh(*chips.parse_device(text, sizes), sizes)


@pytest.mark.parametrize("devices", SLICES)
def test_a_slice_is_as_cubic_as_can_be(devices):
    cubic, square = SLICES[devices]
    for name, shape in ("v4", cubic), ("v5p", cubic), ("v5e", square), ("v6e", square):
        assert chips.parse_device(name, {"fsdp": devices}) == (CHIPS[name], shape)


def test_a_device_may_say_its_shape():
    assert chips.parse_device("v5p:8x8x4", {"fsdp": -1, "expert": 4}) == (CHIPS["v5p"], (8, 8, 4))
    assert chips.parse_device("V5E:1x2", {"fsdp": 2}) == (CHIPS["v5e"], (1, 2))
    assert chips.parse_device("h200", {"fsdp": 8, "tensor": 2}) == (CHIPS["h200"], (16,))
    assert chips.parse_device("h200:16", {"fsdp": -1}) == (CHIPS["h200"], (16,))
    assert chips.parse_device("a100-40:2", {"fsdp": -1}) == (CHIPS["a100-40"], (2,))


@pytest.mark.parametrize(
    "text, sizes, sentence",
    [
        ("b200", {"fsdp": 8}, "choose one of v4, v5e, v5p, v6e, t4, l4, rtx3090"),
        ("v5p:", {"fsdp": 8}, "--device=v5p: names no chip"),
        ("v5p:0x2x2", {"fsdp": -1}, "--device=v5p:0x2x2 names no chip"),
        ("v5p:4x4", {"fsdp": 16}, "v5p has 3 axes; write v5p:2x2x4"),
        ("v5e:2x2x4", {"fsdp": 16}, "v5e has 2 axes; write v5e:2x2"),
        ("v5p", {"fsdp": -1}, "give that axis a size, or the device a shape"),
        ("v5p", {"fsdp": 6}, "no slice of 6 chips"),
        ("v6e", {"fsdp": 512}, "multiples of 4 up to 256 chips; choose another mesh"),
        ("v5p:2x2x4", {"fsdp": 8}, "does not fit 16 devices"),
        ("v5p:2x2x4", {"model": 16}, "mesh axes ['model'] are unknown"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(text, sizes, sentence):
    with pytest.raises(InputError) as e:
        chips.parse_device(text, sizes)
    assert sentence in str(e.value)


@pytest.mark.parametrize("name", ["v4", "v5e", "v5p", "v6e"])
@pytest.mark.parametrize("devices", [1, 2, *SLICES])
def test_libtpu_knows_every_slice_and_a_chip_is_one_device(name, devices):
    mesh = tpu_mesh(name, {"fsdp": devices})
    assert mesh.axis_names == sharding.MESH_AXES and mesh.shape["fsdp"] == mesh.size == devices
    assert mesh.axis_types == (AxisType.Auto,) * 4
    assert len({tuple(device.coords) for device in mesh.devices.flat}) == devices


@pytest.mark.parametrize("text", ["v5e:1x1", "v5e:2x4", "v5p:2x2x4", "v5p:4x4x4", "v5p:8x8x4", "v6e:8x8"])
def test_libtpu_knows_the_slices_that_are_named(text):
    assert tpu_mesh(text, {"fsdp": -1}).size == math.prod(map(int, text[4:].split("x")))


def test_neighbours_on_a_mesh_axis_are_neighbours_in_the_torus():
    mesh = tpu_mesh("v5p:4x4x4", {"fsdp": 16, "expert": 4})
    for row in mesh.devices.reshape(16, 4):
        coords = [tuple(device.coords) for device in row]
        assert sorted(math.dist(a, b) for a, b in itertools.pairwise(coords)) == [1, 1, 1]


def test_a_slice_that_libtpu_refuses():
    pytest.importorskip("libtpu")
    with pytest.raises(
        InputError, match=r"v5p:3x3x3 is refused by libtpu.*an even number along each of its first two axes"
    ):
        chips.target_mesh(CHIPS["v5p"], (3, 3, 3), {"fsdp": 27})


def test_without_libtpu_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'pivotrl-jax\[plan\]'"):
        chips.target_mesh(CHIPS["v5e"], (2, 4), {"fsdp": 8})


def test_gpus_are_virtual_cpu_devices():
    code = """
from pivotrl_jax.plan import chips
sizes = {"fsdp": 8, "expert": 4}
mesh = chips.target_mesh(*chips.parse_device("h200", sizes), sizes)
print(mesh.devices.shape, mesh.devices.flat[0].platform)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_PLATFORMS", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 8, 4, 1) cpu", done.stderr


def test_numbers_are_in_the_units_they_say():
    """None is off by a power of ten."""
    for chip in CHIPS.values():
        assert 5e13 < chip.flops < 1e15 and 1.5e10 < chip.usable_bytes <= chip.hbm_bytes < 1.5e11
        assert 2.5e11 < chip.bandwidth < 5e12 and 1e10 < chip.interconnect < 1e12
        assert 70 < chip.flops / chip.bandwidth < 600  # FLOPs per byte at the ridge of the roofline
        assert chip.flops / 9 < chip.float32_flops <= chip.flops


def test_arithmetic_in_float32_has_its_own_rate():
    assert chips.for_dtype(CHIPS["l4"], "float32").flops == 60e12
    assert chips.for_dtype(CHIPS["l4"], "bfloat16") == CHIPS["l4"]
    assert chips.for_dtype(CHIPS["t4"], "float32").flops == 8.1e12
    with pytest.raises(InputError, match=r"t4 has no bfloat16; set config.model.dtype=float32"):
        chips.for_dtype(CHIPS["t4"], "bfloat16")
