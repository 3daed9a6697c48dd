"""Collectives read from compiled programs equal what the programs were written to move."""

import json
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

from pivotrl_jax.plan import hlo
from pivotrl_jax.plan.hlo import Collective

# What the TPU compiler writes for v5e and v5p (libtpu 0.0.42), cut down: loops whose trips stand in their
# condition alone, groups named by mesh axes, an asynchronous all-gather that goes on in an inner loop, a
# reduce-scatter as a fusion of an all-reduce and a slice, and a collective-permute in two parts.
TPU = """HloModule jit_step, is_scheduled=true, entry_computation_layout={()->f32[]}, num_partitions=16

%add.1 (x: bf16[], y: bf16[]) -> bf16[] {
  %x = bf16[]{:T(256)} parameter(0)
  %y = bf16[]{:T(256)} parameter(1)
  ROOT %add = bf16[]{:T(256)} add(%x, %y)
}

%fused_computation.7 (param_0: bf16[1,32,16]) -> (bf16[1,32,16], bf16[1,32,64], s32[2], u32[]) {
  %param_0 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)} all-gather(%param_0), channel_id=5, replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}, dimensions={2}, use_global_device_ids=true, frontend_attributes={chain_id="4"}, metadata={op_name="f/all-reduce(x), calls=%add.1"}
  ROOT %custom-call.1 = (bf16[1,32,16]{2,1,0:T(8,128)(2,1)S(1)}, bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)}, s32[2]{0:S(4)}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.8 (param_0: bf16[1,32,16], param_1: bf16[1,32,64]) -> bf16[8,8] {
  %param_0.1 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.2 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.1), channel_id=5, replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}, dimensions={2}, use_global_device_ids=true, frontend_attributes={chain_id="4"}
  ROOT %custom-call.2 = bf16[8,8]{1,0:T(8,128)(2,1)} custom-call(%all-gather.2), custom_call_target="Anything"
}

%fused_computation.9 (param_0: bf16[1,32,16]) -> bf16[1,32,64] {
  %param_0.2 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.3 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)} all-gather(%param_0.2), channel_id=5, replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}, dimensions={2}, use_global_device_ids=true, frontend_attributes={chain_id="4"}
  ROOT %custom-call.3 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)} custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (input.2: bf16[64,8]) -> bf16[16,8] {
  %input.2 = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.4 = bf16[64,8]{1,0:T(8,128)(2,1)} all-reduce(%input.2), channel_id=4, replica_groups={{0,4,8,12},{1,5,9,13},{2,6,10,14},{3,7,11,15}}, use_global_device_ids=true, to_apply=%add.1, frontend_attributes={from-cross-replica-sharding="true"}
  %constant.5 = u32[] constant(0)
  ROOT %dynamic-slice.2 = bf16[16,8]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.4, %constant.5, %constant.5), dynamic_slice_sizes={16,8}
}

%inner_body (p.1: (s32[], bf16[1,32,16])) -> (s32[], bf16[1,32,16]) {
  %p.1 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %get-tuple-element.1 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=1
  %fusion.8 = bf16[8,8]{1,0:T(8,128)(2,1)} fusion(%get-tuple-element.1), kind=kOutput, calls=%async_collective_fusion.8
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) tuple(%p.1)
}

%inner_condition (p.2: (s32[], bf16[1,32,16])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %constant.6 = s32[]{:T(128)} constant(8)
  %get-tuple-element.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.2, %constant.6), direction=LT
}

%body (p.3: (s32[], bf16[1,32,16])) -> (s32[], bf16[1,32,16]) {
  %p.3 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %async-collective-start.4 = (bf16[1,32,16]{2,1,0:T(8,128)(2,1)S(1)}, bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)}, s32[2]{0:S(4)}, u32[]{:S(2)}) fusion(%p.3), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%fused_computation.7
  %while.1 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) while(%p.3), condition=%inner_condition, body=%inner_body
  %async-collective-done.4 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)} fusion(%p.3), kind=kCustom, calls=%fused_computation.9
  %fusion.9 = bf16[16,8]{1,0:T(8,128)(2,1)} fusion(%p.3), kind=kCustom, calls=%all-reduce-scatter.1
  %collective-permute-start = (bf16[256,8]{1,0:T(8,128)(2,1)S(1)}, bf16[256,8]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%fusion.9), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %collective-permute-done = bf16[256,8]{1,0:T(8,128)(2,1)S(1)} collective-permute-done(%collective-permute-start)
  ROOT %tuple.2 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) tuple(%p.3)
}

%condition (p.4: (s32[], bf16[1,32,16])) -> pred[] {
  %constant.7.clone = s32[]{:T(128)} constant(3)
  %p.4 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %get-tuple-element.3 = s32[]{:T(128)} get-tuple-element(%p.4), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%get-tuple-element.3, %constant.7.clone), direction=LT, metadata={op_name="jit(step)/while/cond/lt"}
}

%decode_body (p.5: (s32[], s32[])) -> (s32[], s32[]) {
  %p.5 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %all-reduce.9 = (f32[4]{0:T(128)}, s32[2]{0:T(128)}) all-reduce(%p.5, %p.5), channel_id=1, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0','axis_1'}, use_global_device_ids=true, to_apply=%add.1
  ROOT %tuple.3 = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%p.5)
}

%decode_condition (p.6: (s32[], s32[])) -> pred[] {
  %p.6 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.4 = s32[]{:T(128)} get-tuple-element(%p.6), index=0
  %get-tuple-element.5 = s32[]{:T(128)} get-tuple-element(%p.6), index=1
  ROOT %lt.3 = pred[]{:T(512)} compare(%get-tuple-element.4, %get-tuple-element.5), direction=LT
}

ENTRY %main.5_spmd (param.5: bf16[1,32,16]) -> bf16[1,32,16] {
  %param.5 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)} parameter(0), sharding={devices=[1,8,1]<=[8]}, metadata={op_name="w1"}
  %while.2 = (s32[]{:T(128)}, bf16[1,32,16]{2,1,0:T(8,128)(2,1)}, /*index=2*/s32[]{:T(128)}) while(%param.5), condition=%condition, body=%body
  %while.3 = (s32[]{:T(128)}, s32[]{:T(128)}) while(%param.5), condition=%decode_condition, body=%decode_body
  ROOT %copy = bf16[1,32,16]{2,1,0:T(8,128)(2,1)} copy(%param.5)
}
"""  # noqa: E501


def test_what_the_tpu_compiler_writes():
    gather, scatter, permute = 32 * 64 * 2, 64 * 8 * 2, 256 * 8 * 2
    assert hlo.collectives(TPU, 10) == {
        "all-gather": Collective(3, 1, 3 * gather, 3 * gather * 3 / 4),
        "reduce-scatter": Collective(3, 1, 3 * scatter, 3 * scatter * 3 / 4),
        "collective-permute": Collective(3, 1, 3 * permute, 3 * permute),
        "all-reduce": Collective(10, 1, 10 * 24, 10 * 24 * 2 * 15 / 16),
    }


def test_an_asynchronous_collective_that_begins_nowhere_is_refused():
    with pytest.raises(ValueError, match="chains"):
        hlo.collectives(TPU.replace("AsyncCollectiveStart", "Renamed"), 10)


# What is written for GPUs: groups as [groups,size]<=[devices], -start and -done, `call`, `conditional`, and
# the compiler's own note of a loop's trips.
GPU = """HloModule jit_step, is_scheduled=true, num_partitions=32

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(f32[] %x, f32[] %y)
}

%wrapped (p.0: f32[64]) -> f32[16] {
  %p.0 = f32[64]{0} parameter(0)
  ROOT %rs = f32[16]{0} reduce-scatter(f32[64]{0} %p.0), channel_id=3, replica_groups=[8,4]<=[32], dimensions={0}, to_apply=%add
}

%small (p.1: f32[64]) -> f32[64] {
  %p.1 = f32[64]{0} parameter(0)
  ROOT %all-to-all.0 = f32[64]{0} all-to-all(%p.1), replica_groups=[16,2]<=[32], dimensions={0}
}

%large (p.2: f32[64]) -> f32[64] {
  %p.2 = f32[64]{0} parameter(0)
  ROOT %all-to-all.1 = f32[64]{0} all-to-all(%p.2), replica_groups=[8,4]<=[4,8]T(1,0), dimensions={0}
}

%body (p.3: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p.3 = (s32[], f32[64]{0}) parameter(0)
  %start = (bf16[16]{0}, bf16[64]{0}) all-gather-start(bf16[16]{0} %p.3), channel_id=1, replica_groups=[8,4]<=[32], dimensions={0}
  %done = bf16[64]{0} all-gather-done((bf16[16]{0}, bf16[64]{0}) %start)
  %both = ((bf16[8]{0}, f8e4m3fn[4]{0}), (bf16[32]{0}, f8e4m3fn[16]{0})) all-gather-start(%p.3, %p.3), channel_id=2, replica_groups=[8,4]<=[32], dimensions={0}
  %sum = (f32[8]{0}, pred[8]{0}) all-reduce-start(%p.3, %p.3), channel_id=4, replica_groups={}, to_apply=%add
  %summed = (f32[8]{0}, pred[8]{0}) all-reduce-done(%sum)
  %scattering = ((f32[64]{0}), f32[16]{0}) async-start(%p.3), calls=%wrapped
  %scattered = f32[16]{0} async-done(%scattering), calls=%wrapped
  %scattering.2 = ((f32[64]{0}), f32[16]{0}, s32[]) reduce-scatter-start(%p.3), replica_groups=[8,4]<=[32], dimensions={0}, to_apply=%add
  %called = f32[64]{0} call(%p.3), to_apply=%small
  %chosen = f32[64]{0} conditional(s32[] %i, f32[64]{0} %p.3, f32[64]{0} %p.3), branch_computations={%small, %large}
  ROOT %tuple = (s32[], f32[64]{0}) tuple(%p.3)
}

%condition (p.4: (s32[], f32[64])) -> pred[] {
  %p.4 = (s32[], f32[64]{0}) parameter(0)
  ROOT %fused = pred[] fusion(%p.4), kind=kLoop, calls=%anything
}

ENTRY %main (p.5: f32[64]) -> f32[64] {
  %p.5 = f32[64]{0} parameter(0)
  ROOT %while = (s32[], f32[64]{0}) while((s32[], f32[64]{0}) %p.5), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"6"},"known_init_step":{"init":"0","step":"1"}}
}

%anything (p.6: f32[64]) -> pred[] {
  ROOT %p.6 = pred[] parameter(0)
}
"""  # noqa: E501


def test_what_is_written_for_gpus():
    gather, reduce, scatter, exchange = 64 * 2 + 32 * 2 + 16, 8 * 4 + 8, 2 * 64 * 4, 64 * 4
    assert hlo.collectives(GPU, 1) == {
        "all-gather": Collective(12, 2, 6 * gather, 6 * gather * 3 / 4),
        "all-reduce": Collective(6, 1, 6 * reduce, 6 * reduce * 2 * 31 / 32),
        "reduce-scatter": Collective(12, 2, 6 * scatter, 6 * scatter * 3 / 4),
        "all-to-all": Collective(12, 2, 6 * 2 * exchange, 6 * exchange * (1 / 2 + 3 / 4)),
    }


def test_text_of_another_form_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.collectives("module @jit_f {\n}", 1)


# A program of known collectives: 5 layers that gather a weight, exchange and pass on activations and scatter
# a gradient over 4 of 8 devices, then `n` sums over all of them.
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pivotrl_jax.plan import chips; from pivotrl_jax.plan import hlo; from pivotrl_jax.models import sharding

sizes, dtype = {"fsdp": 4, "expert": 2}, jnp.dtype(sys.argv[2])
chip, shape = chips.parse_device(sys.argv[1], sizes)
mesh = chips.target_mesh(chip, shape, sizes)

def layer(x, w):
    whole = jax.lax.all_gather(w, "fsdp", axis=0, tiled=True)
    y = jax.lax.all_to_all(jnp.tanh(x @ whole), "fsdp", 1, 1, tiled=True)
    y = jax.lax.ppermute(y, "fsdp", [(i, (i + 1) % 4) for i in range(4)])
    return y, jax.lax.psum_scatter(x.T @ y, "fsdp", scatter_dimension=0, tiled=True)

def run(x, w, n):
    x, g = jax.lax.scan(layer, x, w)
    total = jax.lax.fori_loop(0, n, lambda i, s: jax.lax.psum(jnp.sin(s), ("fsdp", "expert")), jnp.ones(256))
    return x, g, total

rows, split = P(("fsdp", "expert")), P(None, "fsdp")
f = jax.shard_map(run, mesh=mesh, in_specs=(rows, split, P()), out_specs=(rows, split, P()), check_vma=False)
place = lambda spec: NamedSharding(mesh, spec)
args = [
    jax.ShapeDtypeStruct((8 * 128, 256), dtype, sharding=place(rows)),
    jax.ShapeDtypeStruct((5, 256, 256), dtype, sharding=place(split)),
    jax.ShapeDtypeStruct((), jnp.int32, sharding=place(P())),
]
text = jax.jit(f).lower(*args).compile().as_text()
print(json.dumps({k: [c.count, c.payload_bytes, c.wire_bytes] for k, c in hlo.collectives(text, 3).items()}))
"""


def compiled(device: str, dtype: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, device, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected(size: int) -> dict:
    weight, rows, sums = 256 * 256 * size, 128 * 256 * size, 256 * 4
    return {
        "all-gather": [5, 5 * weight, 5 * weight * 3 / 4],
        "all-to-all": [5, 5 * rows, 5 * rows * 3 / 4],
        "collective-permute": [5, 5 * rows, 5 * rows],
        "reduce-scatter": [5, 5 * weight, 5 * weight * 3 / 4],
        "all-reduce": [3, 3 * sums, 3 * sums * 2 * 7 / 8],
    }


def test_a_program_compiled_for_cpu_devices():
    assert compiled("h100", "float32") == expected(4)


@pytest.mark.parametrize("device", ["v5e", "v5p"])
def test_a_program_compiled_for_tpus(device):
    pytest.importorskip("libtpu")
    assert compiled(device, "bfloat16") == expected(2)
