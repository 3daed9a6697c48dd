"""Meshes: simulated devices equal one device; what does not fit is refused in a sentence."""

import json
import math
import os
import subprocess
import sys

import pytest
from jax.sharding import AbstractMesh
from support import xla
from support.paths import ROOT, SUPPORT

from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import InputError


def on_devices(count: int, meshes: list[dict], *more: str) -> dict:
    """Results of sharded_step.py; XLA's warning that it copies a whole array to reshard it is a failure."""
    environment = {
        **os.environ,
        "XLA_FLAGS": xla.flags(count),
        "PYTHONPATH": f"{SUPPORT.parent}{os.pathsep}{ROOT}",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    command = [sys.executable, str(SUPPORT / "sharded_step.py"), json.dumps(meshes), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Involuntary full rematerialization" not in done.stderr, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(result: dict, sizes: dict, splits=("fsdp", "expert", "tensor")):
    """Same logits, log-probs, samples, metrics, parameters and momentum (gradients), relative to each array's
    largest value. 1e-4: float32 sums in another order; and every array still lies where the table puts it."""
    got = result[json.dumps(sizes)]
    assert got["placed"], got
    assert got["logits"] < 1e-5 and got["log_prob"] < 1e-5 and got["samples"] < 1e-5, got
    assert got["means"] < 1e-4 and got["state"] < 1e-4, got
    # an expert matrix [L, E, D, F] is split by every axis but data, a dense one [L, D, I] not by expert
    assert got["share"] == 1 / math.prod(sizes.get(axis, 1) for axis in splits)


def test_two_devices_equal_one():
    found = on_devices(2, [{"fsdp": 2}], "bfloat16")
    check(found, {"fsdp": 2})
    assert found[json.dumps({"fsdp": 2})]["bfloat16"] < 0.03  # of frequent tokens' gradients


MESHES = [
    dict(zip(sharding.MESH_AXES, (2**a, 2**b, 2**c, 2 ** (3 - a - b - c))))
    for a in range(4)
    for b in range(4 - a)
    for c in range(4 - a - b)
]


@pytest.fixture(scope="module")
def eight():
    return on_devices(8, MESHES, "collectives")


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_eight_devices_equal_one(eight, sizes):
    assert len(MESHES) == 20  # every way to write 8 as an ordered product of four factors
    check(eight, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_eight_devices_equal_one_in_other_families(family):
    meshes = [{"fsdp": 2, "tensor": 4}, {"data": 2, "fsdp": 4}, {"tensor": 8}, {"expert": 2, "tensor": 4}]
    found = on_devices(8, meshes, family)
    for sizes in meshes:
        check(found, sizes, splits=("fsdp", "tensor"))


# What stands in the compiled gradient of a dense layer and one with experts, both recomputed (remat "full").
# fsdp:   all-gather: 7 + 8 matrices of the two layers, those of them that the backward pass needs again,
#         embedding, unembedding; their gradients: reduce-scatter for the 6 that are gathered per shard
#         (embed, unembed, router, gate, up, down), all-reduce for those the partitioner handles, combined
# expert: all-gather of tokens, weights and ids to the experts, again in the backward pass, and of the
#         output's gradient; reduce-scatter of the output and of the gradients of tokens and weights
# tensor: all-reduce alone, after every second projection and for the vocabulary's sums; no gather
COUNTS = {
    "fsdp": {"all-reduce": 9, "all-gather": 28, "reduce-scatter": 6},
    "expert": {"all-reduce": 8, "all-gather": 9, "reduce-scatter": 3},
    "tensor": {"all-reduce": 10},
}


@pytest.mark.slow
@pytest.mark.parametrize("axis", COUNTS)
def test_only_the_listed_collectives_are_compiled(eight, axis):
    sizes = dict.fromkeys(sharding.MESH_AXES, 1) | {axis: 8}
    got = eight[json.dumps(sizes)]["collectives"]
    assert got.keys() == COUNTS[axis].keys(), got
    assert got.get("reduce-scatter") == COUNTS[axis].get("reduce-scatter"), got
    assert all(got[kind] <= most for kind, most in COUNTS[axis].items()), got


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
            r"mesh axis expert: 2 does not divide layers\.(gate|up|down) of shape \[2, 5, ",
        ),
        (mesh_of(tensor=4), r"mesh axis tensor: 4 does not divide embed of shape \[61, 16\] \(VD\)"),
    ],
)
def test_a_parameter_that_does_not_divide_is_named(moe, mesh, sentence):
    with pytest.raises(InputError, match=sentence):
        sharding.param_shardings(decoder.abstract_params(moe), mesh)
