"""Checkpoints read straight onto a mesh: the same bits, no byte twice, little memory; several processes."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import xla
from support.forests import DENSE, MIXED, MOE, sharp_params
from support.paths import ROOT, SUPPORT

from pivotrl_jax.checkpoints import hf
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding

WIDE = {"vocab_size": 64, "hidden_size": 32, "num_heads": 16, "num_kv_heads": 8, "mlp_size": 24}
EXPERTS = {"num_experts": 8, "expert_size": 16}
CONFIGS = {  # every axis divides by 8
    "dense": dataclasses.replace(DENSE, **WIDE),
    "experts": dataclasses.replace(MOE, **WIDE | EXPERTS | {"mlp_size": 0}),
    "mixed": dataclasses.replace(MIXED, **WIDE | EXPERTS, tie_embeddings=False),
}
EIGHT = {"fsdp": 2, "expert": 2, "tensor": 2}
CASES = [  # meshes, where parameters lie on them, and the bytes of a piece
    ({"fsdp": 8}, sharding.LEARNER, 10**6),
    ({"data": 2, "tensor": 4}, sharding.LEARNER, 10**6),
    (EIGHT, sharding.LEARNER, 10**6),
    (EIGHT, sharding.LEARNER, 3000),  # smaller than some shards, which are put together on their device
    (EIGHT, sharding.SAMPLER, 10**6),
]


def start(devices: int, *arguments: str) -> subprocess.Popen:
    """tests/support/streamed_load.py on so many simulated devices."""
    environment = {
        **os.environ,
        "XLA_FLAGS": xla.flags(devices),
        "PYTHONPATH": f"{SUPPORT.parent}{os.pathsep}{ROOT}",
    }
    command = [sys.executable, str(SUPPORT / "streamed_load.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def result(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def fuse(directory: Path):
    """Rewrite a checkpoint's experts as transformers 5 keeps them."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for layer in {name.split(".experts.")[0] for name in tensors if ".experts." in name}:
        parts = {
            kind: np.stack([tensors.pop(f"{layer}.experts.{e}.{kind}_proj.weight") for e in range(8)])
            for kind in ("gate", "up", "down")
        }
        tensors[f"{layer}.experts.gate_up_proj"] = np.concatenate([parts["gate"], parts["up"]], axis=1)
        tensors[f"{layer}.experts.down_proj"] = parts["down"]
    save_file(tensors, file)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Name -> directory: bfloat16, and once float32."""
    top = tmp_path_factory.mktemp("checkpoints")
    for name, config in CONFIGS.items():
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), sharp_params(config))
        hf.save(top / name, config, params, None, max_shard_bytes=30_000 if name == "experts" else 10**9)
    hf.save(top / "fused", CONFIGS["mixed"], sharp_params(CONFIGS["mixed"]), None)
    fuse(top / "fused")
    return {path.name: path for path in top.iterdir()}


def test_shards_on_eight_devices_equal_numpy_arrays_and_no_byte_is_read_twice(checkpoints):
    got = result(start(8, "equal", json.dumps(CASES), *checkpoints.values()))
    assert len(got) == 4
    for rows in got.values():
        assert len(rows) == len(CASES)
        for row in rows:
            assert row["different"] == [] and row["lies"], row
            assert row["read"] == row["held"] == row["all"], row


def test_two_processes_read_and_write_one_checkpoint(checkpoints, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    source, copy = checkpoints["mixed"], tmp_path / "copy"
    for got in [result(p) for p in [start(4, "host", source, copy, port, i) for i in range(2)]]:
        assert got["different"] == []
        assert got["read"] == got["held"] < 0.6 * got["all"], got
        assert got["fingerprint"] == hf.checkpoint_fingerprint(copy)
    ours, theirs = (load_file(d / "model.safetensors") for d in (copy, source))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dtype_is_cast_to_on_the_way_and_adapters_are_not_asked_for(checkpoints, dtype, monkeypatch):
    monkeypatch.setattr(hf, "PIECE", 3000)
    config = dataclasses.replace(CONFIGS["mixed"], lora=model_config.Lora(2, 4.0))
    places = sharding.param_shardings(decoder.abstract_params(config), sharding.make_mesh({}))
    got = hf.load_params(checkpoints["mixed"], config, dtype, places)
    want = hf.load_params(checkpoints["mixed"], CONFIGS["mixed"], dtype)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.slow
def test_two_gigabytes_load_in_the_memory_of_the_shards_and_little_more(tmp_path):
    """Peak growth: what the devices hold, here in the process itself, and 1.3 times the largest tensor."""
    directory = tmp_path / "big"
    largest = result(start(1, "write", directory))["largest"]
    plain = result(start(1, "load", directory, "null"))
    streamed = result(start(8, "load", directory, json.dumps(EIGHT)))
    for path in directory.iterdir():
        path.unlink()
    print(f"numpy: {plain}\nstreamed: {streamed}")
    assert plain["share"] == 0 and streamed["share"] >= plain["bytes"] > 2e9
    assert streamed["grown"] < streamed["share"] + 1.3 * largest
    assert streamed["sums"] == plain["sums"]
