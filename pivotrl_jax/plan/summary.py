"""What a run would need on a machine that you do not have, before anyone rents it.

    python -m pivotrl_jax.plan --config=configs/bfcl.py:qwen3_30b_a3b --mesh=fsdp:8,expert:4 --device=v5p

Compiles the run's own update and rollout programs ahead of time for the device, without allocating
weights, and prints a table and, as its last line, JSON. Programs for TPUs (v4, v5e, v5p, v6e) are
compiled by the TPU's own compiler (pip install 'pivotrl-jax[plan]'). For GPUs (t4, l4, rtx4090, a100 and
others: chips.py) the same number of TPUs stands in or, without that compiler, virtual CPU devices, so the
result is an estimate. The model comes from config.model.checkpoint: a directory, the name of a released
Qwen3, Qwen2.5, Llama or SmolLM2 of which this package knows the numbers (assets/models), or a name in the
Hugging Face cache.

Times are lower bounds: the slowest of arithmetic, device memory and interconnect, each at its published peak
and all perfectly overlapped, with every prompt and completion as long as the config allows.
"""

import dataclasses
import json
import resource
from pathlib import Path

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from pivotrl_jax.checkpoints import hf_config, locate
from pivotrl_jax.models import lora
from pivotrl_jax.plan import chips
from pivotrl_jax.plan import programs as programs_lib
from pivotrl_jax.records import InputError
from pivotrl_jax.run import check_config, cli, hosts
from pivotrl_jax.run import run as run_lib

MESH = flags.DEFINE_string("mesh", None, "Mesh axes, e.g. fsdp:8,expert:4; the config's own if not given.")
DEVICE = flags.DEFINE_string("device", None, "v5p, v5p:4x4x4, h200:8, ...")

COMPILER = flags.DEFINE_enum(
    "compiler", "best", ["best", "cpu"], "For GPUs: the TPU's compiler, if installed, or the CPU's."
)

KNOWN = Path(__file__).parents[1] / "assets" / "models"  # config.json of released checkpoints
OWNERS = ("Qwen/", "meta-llama/", "HuggingFaceTB/")


def parse_mesh(text: str) -> dict[str, int]:
    """ "fsdp:8,expert:4" -> sizes. Raises InputError."""
    sizes = {}
    for part in text.split(","):
        axis, _, size = part.strip().partition(":")
        if not axis or not size.lstrip("-").isdecimal() or axis in sizes:
            raise InputError(f"--mesh={text}: {part!r} is not axis:size; write e.g. fsdp:8,expert:4")
        sizes[axis] = int(size)
    return sizes


def checkpoint_directory(name: str) -> Path:
    """The directory with a checkpoint's config.json; the released models of KNOWN need no download."""
    known = KNOWN / Path(name).name
    here = not Path(name).exists() and name.startswith(OWNERS) and known.is_dir()
    return known if here else locate.locate(name, files=["config.json"])


def make_plan(config, mesh: dict[str, int], device: str, compiler: str) -> programs_lib.Plan:
    """Raises InputError for a device, mesh, checkpoint or config that does not fit together."""
    check_config.check(config)
    chip, shape = chips.parse_device(device, mesh)
    chip = chips.for_dtype(chip, config.model.dtype)
    model_config = hf_config.load_config(checkpoint_directory(config.model.checkpoint), config.model.dtype)
    model_config = lora.with_adapters(model_config, config.model.lora)
    stand_in, shape = chips.compiled_for(chip, shape, compiler)
    return programs_lib.Plan(config, model_config, chips.target_mesh(stand_in, shape, mesh), chip, stand_in)


def summarise(plan: programs_lib.Plan, programs: list[programs_lib.Program]) -> dict:
    """The JSON. Bytes and FLOPs are per device unless a key says otherwise; seconds are lower bounds."""
    resident, (prefix, own) = plan.resident_bytes(), plan.kv_cache_bytes()
    gradient, optimizer, rollouts, *_ = programs
    trained = programs_lib.bytes_per_device(plan.params)
    sampled = programs_lib.bytes_per_device(plan.decode_params)
    peaks = {
        "rollouts": sum(resident.values()) + rollouts.peak_bytes - plan.shared_bytes(),
        "gradient": resident["optimizer"] + resident["reference"] + gradient.peak_bytes,
        "optimizer": resident["parameters"] - trained + resident["reference"] + optimizer.peak_bytes,
    }
    floors = {p.name: p.floor_seconds(plan.chip) for p in programs}
    collectives: dict[str, float] = {}
    for p in programs:
        for kind, c in p.collectives.items():
            collectives[kind] = collectives.get(kind, 0) + p.calls * c.wire_bytes
    return {
        "device": plan.chip.name,
        "estimate": plan.chip.kind == "gpu",
        "compiled": {p.name: p.compiled for p in programs},
        "compiled_for": plan.compiler.name if plan.compiler.kind == "tpu" else "cpu",
        "devices": plan.mesh.size,
        "mesh": {axis: size for axis, size in plan.mesh.shape.items() if size > 1},
        "model": run_lib.describe(plan.model_config, Path(plan.config.model.checkpoint)),
        "shapes": dataclasses.asdict(plan.shapes),
        "bytes": {
            **resident,
            "gradients": trained,
            "activations": gradient.peak_bytes - resident["parameters"] - trained,
            "sampler_parameters": sampled - plan.shared_bytes(),
            "kv_cache": prefix + own,
            "sampler_rest": max(rollouts.peak_bytes - sampled - prefix - own, 0),
        },
        "peak_bytes": peaks,
        "usable_bytes": plan.chip.usable_bytes,
        "fits": max(peaks.values()) <= plan.chip.usable_bytes,
        "flops_per_step": sum(p.calls * p.flops for p in programs) * plan.mesh.size,
        "collective_bytes": collectives,
        "arithmetic_intensity": {p.name: p.flops / p.traffic_bytes for p in programs},
        "calls_per_step": {p.name: p.calls for p in programs},
        "floor_seconds": floors,
        "floor_seconds_per_step": sum(p.calls * max(floors[p.name].values()) for p in programs),
        "compile_seconds": sum(p.compile_seconds for p in programs),
        "compiler_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def readable(n: float) -> str:
    """Bytes with a unit, e.g. "1.50 GiB"."""
    return f"{n / 2**30:.2f} GiB" if n >= 2**27 or not n else f"{n / 2**20:.2f} MiB"


def tables(page: dict) -> list[Table]:
    """Two tables: what a device holds, and what a step costs."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in page["mesh"].items()) or "one device"
    note = f" (estimates: compiled for {page['compiled_for']})" if page["estimate"] else ""
    memory = Table(
        title=f"{page['model']}\n{page['devices']} x {page['device']}, {mesh}{note}", title_justify="left"
    )
    memory.add_column("per device")
    memory.add_column("bytes", justify="right")
    for name, n in page["bytes"].items():
        memory.add_row(name.replace("_", " "), readable(n))
    memory.add_section()
    for name, n in page["peak_bytes"].items():
        memory.add_row(f"peak during {name}", readable(n))
    verdict = "fits" if page["fits"] else "[bold]does not fit[/bold]"
    memory.add_row("usable", f"{readable(page['usable_bytes'])}: {verdict}")
    cost = Table(title="one optimizer step at full length", title_justify="left", caption_justify="left")
    for column in ("program", "calls", "compute s", "memory s", "interconnect s", "FLOP/byte"):
        cost.add_column(column, justify="left" if column == "program" else "right")
    for name, floor in page["floor_seconds"].items():
        seconds = (f"{floor[part]:.3g}" for part in ("compute", "memory", "interconnect"))
        intensity = page["arithmetic_intensity"][name]
        cost.add_row(name, str(page["calls_per_step"][name]), *seconds, f"{intensity:.0f}")
    sent = ", ".join(f"{kind} {readable(n)}" for kind, n in page["collective_bytes"].items()) or "nothing"
    refused = [name for name, done in page["compiled"].items() if not done]
    refusal = (
        f"\nnot compiled for lack of memory, interconnect unknown: {', '.join(refused)}" if refused else ""
    )
    cost.caption = (
        f"{page['flops_per_step']:.3g} FLOPs, at least {page['floor_seconds_per_step']:.3g} s a step; "
        f"sent per device: {sent}{refusal}"
    )
    return [memory, cost]


def main() -> None:
    hosts.refuse()
    if DEVICE.value is None:
        raise InputError("no device; name one, e.g. --device=v5p")
    config = cli.CONFIG.value
    mesh = parse_mesh(MESH.value) if MESH.value else {axis: n for axis, n in config.mesh.items()}
    jax.config.update("jax_enable_compilation_cache", False)  # a cached program has no text to count
    plan = make_plan(config, mesh, DEVICE.value, COMPILER.value)
    page = summarise(plan, plan.compile())
    for table in tables(page):
        Console(soft_wrap=False).print(table)
    print(json.dumps(page))
