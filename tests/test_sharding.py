"""Meshes: simulated devices equal one device; what does not fit is refused in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import AbstractMesh

from pivotrl_jax import model, sharding
from pivotrl_jax.records import InputError

HERE = Path(__file__).parent


def on_devices(count: int, meshes: list[dict]) -> dict:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
    }
    command = [sys.executable, str(HERE / "sharded_step.py"), json.dumps(meshes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(result: dict, sizes: dict):
    """Same log-probs, metrics, parameters and momentum (gradients), relative to each array's largest value.
    1e-4: float32 sums in another order; and every array still lies where the table puts it."""
    got = result[json.dumps(sizes)]
    assert got["placed"], got
    assert got["log_prob"] < 1e-5 and got["means"] < 1e-4 and got["state"] < 1e-4, got
    # the largest parameter is an expert matrix [L, E, D, F]: split by every axis but data
    assert got["share"] == 1 / (sizes.get("fsdp", 1) * sizes.get("expert", 1) * sizes.get("tensor", 1))


def test_two_devices_equal_one():
    check(on_devices(2, [{"fsdp": 2}]), {"fsdp": 2})


MESHES = [
    {"data": 8},
    {"fsdp": 8},
    {"data": 2, "fsdp": 4},
    {"tensor": 2, "fsdp": 4},
    {"expert": 4, "data": 2},
    {"fsdp": 2, "expert": 2, "tensor": 2},
]


@pytest.fixture(scope="module")
def eight():
    return on_devices(8, MESHES)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_eight_devices_equal_one(eight, sizes):
    check(eight, sizes)


def test_make_mesh_fills_the_axes_it_is_not_given():
    mesh = sharding.make_mesh({})  # tests run on one device
    assert mesh.axis_names == sharding.MESH_AXES and mesh.size == 1
    assert sharding.make_mesh({"fsdp": -1}).shape["fsdp"] == 1


@pytest.mark.parametrize(
    "sizes, sentence",
    [
        ({"model": 2}, r"mesh axes \['model'\] are unknown; the axes are data, fsdp, expert, tensor"),
        ({"data": 3}, r"the mesh \(data: 3, fsdp: 1, .*\) does not fit 1 devices"),
        ({"data": -1, "fsdp": -1}, "does not fit 1 devices"),
        ({"data": -1, "fsdp": 2}, "does not fit 1 devices"),
        ({"data": -1, "fsdp": 0}, "does not fit 1 devices"),
        ({"data": -2}, "does not fit 1 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_in_a_sentence(sizes, sentence):
    with pytest.raises(InputError, match=sentence):
        sharding.make_mesh(sizes)


def mesh_of(**sizes):
    """A mesh without devices, which is all a refusal looks at."""
    return AbstractMesh(tuple(sizes.get(axis, 1) for axis in sharding.MESH_AXES), sharding.MESH_AXES)


@pytest.mark.parametrize(
    "mesh, sentence",
    [
        (
            mesh_of(expert=2),
            r"mesh axis expert: 2 does not divide \['layers'\]\['(gate|up|down)'\] of shape \(2, 5, ",
        ),
        (mesh_of(tensor=4), r"mesh axis tensor: 4 does not divide \['embed'\] of shape \(61, 16\)"),
    ],
)
def test_a_parameter_that_does_not_divide_is_named(moe, mesh, sentence):
    with pytest.raises(InputError, match=sentence):
        sharding.param_shardings(model.abstract_params(moe), mesh)
