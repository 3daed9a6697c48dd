"""Plans of real models on real machines, without these machines: `python experiments/plans/run.py [NAME ...]`

For every case it compiles a few meshes (`python -m pivotrl_jax.plan`, a process of minutes for each), marks
the mesh with the lowest floor among those that fit, and rewrites results.json and the table of README.md. If
names are given, only those cases run; the others keep their results. Nothing is downloaded. It needs
`pip install -e '.[plan]'`.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
B30 = "Qwen/Qwen3-30B-A3B-Thinking-2507"
LORA = ["model.lora.rank=16", "model.param_dtype=bfloat16"]
ONE_ROW = ["grpo.batch.rows=1", "grpo.microbatch_rows=1"]

# name: device, checkpoint, meshes, overrides of configs/bfcl.py:qwen3_30b_a3b (rows of 32,768 slots, 64 x 16
# rollouts of up to 4,096 tokens, the number of rows rounded up to a multiple of the devices)
CASES = {
    "30B-A3B on 8 x H200": ("h200", B30, ["fsdp:8", "fsdp:2,expert:4"], []),
    "30B-A3B with LoRA on one H200": ("h200", B30, ["data:1"], [*LORA, *ONE_ROW]),
    "0.6B on v5e-1": (
        "v5e",
        "Qwen/Qwen3-0.6B",
        ["data:1"],
        [*ONE_ROW, "grpo.batch.samples_per_row=4", "grpo.optimizer_dtype=bfloat16"],
    ),
    "0.6B on v5e-8": ("v5e", "Qwen/Qwen3-0.6B", ["fsdp:8", "data:8"], ["grpo.batch.samples_per_row=8"]),
    "30B-A3B on v5p 2x2x4": ("v5p:2x2x4", B30, ["fsdp:16", "fsdp:4,expert:4"], []),
    "30B-A3B on v5p 4x4x4": ("v5p:4x4x4", B30, ["fsdp:64", "fsdp:16,expert:4"], []),
    "30B-A3B on v6e 8x8": ("v6e:8x8", B30, ["fsdp:64", "fsdp:16,expert:4"], []),
    "235B-A22B on v5p 8x8x4": (
        "v5p:8x8x4",
        "Qwen/Qwen3-235B-A22B-Thinking-2507",
        # fewer experts than devices (256), so a decode copy split over all devices would not divide
        ["fsdp:64,expert:4", "data:2,fsdp:32,expert:4", "fsdp:32,expert:4,tensor:2"],
        [],
    ),
    "tau2:nemotron on 8 x H200": ("h200", B30, ["fsdp:8"], []),
    "tau2:nemotron on v5p 2x2x4": ("v5p:2x2x4", B30, ["fsdp:4,expert:4"], []),
}


BASE = "configs/bfcl.py:qwen3_30b_a3b"
# cases of another config; NeMo-RL's public recipe has rows of 32,768 slots too, and twice as long completions
CONFIGS = dict.fromkeys(
    ("tau2:nemotron on 8 x H200", "tau2:nemotron on v5p 2x2x4"), "configs/tau2.py:nemotron"
)


def plan(config: str, device: str, checkpoint: str, mesh: str, overrides: list[str]) -> dict:
    """The JSON of one plan, or {"error": message}."""
    flags = [f"--config.{o}" for o in (f"model.checkpoint={checkpoint}", *overrides)]
    command = [
        sys.executable,
        "-m",
        "pivotrl_jax.plan",
        f"--config={config}",
        f"--device={device}",
        f"--mesh={mesh}",
        *flags,
    ]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = (
        json.loads(done.stdout.splitlines()[-1])
        if done.returncode == 0
        else {"error": done.stderr.strip().splitlines()[-1]}
    )
    shown = " ".join(["python -m pivotrl_jax.plan", *command[3:]])
    return {"command": shown, "seconds": time.perf_counter() - began, **found}


def gib(n: float) -> str:
    return f"{n / 2**30:.1f}"


def slowest(floors: dict[str, float]) -> str:
    part = max(floors, key=floors.get)
    return f"{floors[part]:.3g} ({part})"


def cost(page: dict) -> tuple[float, int]:
    """Sort key: floors less than half a per cent apart count as equal; then the smaller peak wins."""
    return round(200 * math.log(page["floor_seconds_per_step"])), max(page["peak_bytes"].values())


def best(pages: dict[str, dict]) -> str | None:
    fitting = [mesh for mesh, page in pages.items() if page.get("fits")]
    return min(fitting, key=lambda mesh: cost(pages[mesh])) if fitting else None


def row(name: str, mesh: str, page: dict, chosen: bool) -> str:
    if "error" in page:
        return f"| {name} | {mesh} | {page['error']} |" + " |" * 9
    there, peaks, floors, calls = (
        page["bytes"],
        page["peak_bytes"],
        page["floor_seconds"],
        page["calls_per_step"],
    )
    gradient, rollouts = floors["gradient of a microbatch"], floors["rollouts"]
    cells = [
        name,
        f"**{mesh}**" if chosen else mesh,
        gib(there["parameters"]),
        gib(there["optimizer"]),
        gib(there["gradients"]),
        gib(there["activations"]),
        gib(there["sampler_parameters"]),
        gib(there["kv_cache"]),
        f"{gib(max(peaks.values()))} of {gib(page['usable_bytes'])}{'' if page['fits'] else ', too much'}",
        f"{calls['gradient of a microbatch']} x {slowest(gradient)}",
        f"{calls['rollouts']} x {slowest(rollouts)}",
        f"{page['floor_seconds_per_step']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def table(results: dict) -> str:
    head = (
        "| case | mesh | parameters | optimizer | gradients | activations | sampler's copy | KV cache "
        "| peak, GiB | gradient, s | rollouts, s | step, s |\n" + "|---" * 12 + "|"
    )
    rows = [
        row(name, mesh, page, mesh == best(pages))
        for name, pages in results.items()
        for mesh, page in pages.items()
    ]
    return "\n".join([head, *rows])


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--missing", action="store_true", help="keep the meshes that have a result")
    parsed = parser.parse_args()
    wanted = parsed.names or list(CASES)
    file = HERE / "results.json"
    results = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for name in wanted:
        device, checkpoint, meshes, overrides = CASES[name]
        results[name] = {mesh: page for mesh, page in results.get(name, {}).items() if mesh in meshes}
        for mesh in meshes if not parsed.missing else [m for m in meshes if m not in results[name]]:
            config = CONFIGS.get(name, BASE)
            page = results[name][mesh] = plan(config, device, checkpoint, mesh, overrides)
            said = page.get("error") or f"{page['floor_seconds_per_step']:.0f} s a step, fits: {page['fits']}"
            print(f"{name}, {mesh}: {said} ({page['seconds']:.0f} s)", flush=True)
            ordered = {n: results[n] for n in CASES if n in results}
            file.write_text(json.dumps(ordered, indent=1) + "\n", "utf-8")
    readme = HERE / "README.md"
    text = readme.read_text("utf-8")
    before, _, rest = text.partition("<!-- table -->\n")
    readme.write_text(
        f"{before}<!-- table -->\n{table(ordered)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    )


if __name__ == "__main__":
    main()
