"""Worker of test_hf_streaming.py: loads onto simulated devices, in a process of its own. Prints JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/support/streamed_load.py WHAT ARGUMENTS

    write DIRECTORY             a random checkpoint of 2 GB, bfloat16; its largest tensor
    load DIRECTORY SIZES        seconds, growth of memory and checksums; SIZES "null" for numpy arrays
    equal CASES DIRECTORY ...   each directory against numpy arrays, bit for bit; bytes read. Cases are
                                (sizes of the mesh, column of sharding.TABLE, bytes of a piece)
    host DIRECTORY COPY PORT ID one of two processes: the same, for its own devices, and a copy by both
"""

import dataclasses
import json
import sys
import time
import zlib
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from pivotrl_jax.checkpoints import hf, hf_config, hf_files, hf_layout
from pivotrl_jax.models import decoder, sharding
from support.forests import MOE

BIG = dataclasses.replace(
    MOE,
    **{"vocab_size": 98304, "hidden_size": 2048, "num_heads": 16, "num_kv_heads": 4, "head_dim": 128},
    **{"num_experts": 64, "expert_size": 1024, "dtype": "bfloat16"},
)


class Counted(hf_files.Files):
    """Files that say what was read of the last directory."""

    last = 0

    def __exit__(self, *error):
        Counted.last = self.bytes_read
        super().__exit__(*error)


def mesh_of(sizes: dict) -> Mesh:
    return sharding.make_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 1} | sizes)


def placed(directory, sizes: dict, column: int = sharding.LEARNER, dtype=None):
    """(The params on a mesh, their shardings.)"""
    config = hf_config.load_config(directory)
    places = sharding.param_shardings(hf_layout.abstract_params(config), mesh_of(sizes), column)
    return hf.load_params(directory, config, dtype, places), places


def memory(line: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS, held now, or VmHWM, the most that was ever held."""
    with open("/proc/self/status") as f:
        return next(int(text.split()[1]) * 1024 for text in f if text.startswith(line))


def write(directory: str) -> dict:
    rng = np.random.default_rng(0)

    def draw(leaf):
        bits = rng.integers(0, 2**14, leaf.shape, np.uint16)
        return bits.view(jax.numpy.bfloat16)

    hf.save(directory, BIG, jax.tree.map(draw, decoder.param_shapes(BIG)), None, max_shard_bytes=500 << 20)
    with hf_files.Files(Path(directory)) as files:
        return {"largest": max(stored.size for stored in files.stored.values())}


def load(directory: str, sizes: str) -> dict:
    sizes, config = json.loads(sizes), hf_config.load_config(directory)
    jax.block_until_ready([jax.device_put(np.zeros(8), device) for device in jax.devices()])
    hf_layout.abstract_params(config)  # traced once before the clock and the memory are read
    before, began = memory("VmRSS"), time.perf_counter()
    params = placed(directory, sizes)[0] if sizes else hf.load_params(directory, config)
    jax.block_until_ready(params)
    seconds, grown = time.perf_counter() - began, memory("VmHWM") - before
    leaves = jax.tree.leaves(params)
    share = sum(s.data.nbytes for x in leaves for s in x.addressable_shards) if sizes else 0
    sums = [zlib.crc32(np.ascontiguousarray(x).view(np.uint8)) for x in leaves]
    size = sum(x.nbytes for x in leaves)
    return {"seconds": seconds, "grown": grown, "share": share, "bytes": size, "sums": sums}


def differences(params, plain) -> list[str]:
    """Parameters of which a shard on this process' devices differs from the numpy array."""
    found = []
    for (path, x), y in zip(jax.tree.leaves_with_path(params), jax.tree.leaves(plain), strict=True):
        same = x.dtype == y.dtype and x.shape == y.shape
        shards = ((np.asarray(s.data), y[s.index]) for s in x.addressable_shards)
        if not same or any(a.tobytes() != b.tobytes() for a, b in shards):
            found.append(jax.tree_util.keystr(path))
    return found


def held(params) -> int:
    """Bytes of distinct parts on this process' devices."""
    parts = {}
    for number, x in enumerate(jax.tree.leaves(params)):
        parts |= {(number, str(s.index)): s.data.nbytes for s in x.addressable_shards}
    return sum(parts.values())


def equal(cases: str, *directories: str) -> dict:
    out = {}
    for directory in directories:
        plain = hf.load_params(directory, hf_config.load_config(directory))
        rows = out[directory] = []
        for sizes, column, hf.PIECE in json.loads(cases):
            params, places = placed(directory, sizes, column)
            lies = jax.tree.map(lambda x, s: x.sharding == s, params, places)
            row = {"different": differences(params, plain), "lies": all(jax.tree.leaves(lies))}
            size = sum(x.nbytes for x in jax.tree.leaves(plain))
            rows.append(row | {"read": Counted.last, "held": held(params), "all": size})
    return out


def host(directory: str, copy: str, port: str, number: str) -> dict:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number))
    config = hf_config.load_config(directory)
    plain = hf.load_params(directory, config)
    params, _ = placed(directory, {"fsdp": 2, "expert": 2, "tensor": 2})
    read = Counted.last
    hf.save(copy, config, params, directory)
    return {
        "different": differences(params, plain),
        "read": read,
        "held": held(params),
        "all": sum(x.nbytes for x in jax.tree.leaves(plain)),
        "fingerprint": hf.checkpoint_fingerprint(copy),
    }


if __name__ == "__main__":
    hf.Files = Counted
    print(json.dumps({f.__name__: f for f in (write, load, equal, host)}[sys.argv[1]](*sys.argv[2:])))
