"""Theorem 3.3: `python experiments/theorem_3_3/run.py [--policies='pivotrl=DIRS,sft=DIRS'] [--quick]`

    tabular   the KL-least policy with a target mass on M(s), found by Newton's method, compared with the
              closed form; and how three ways of reaching the same mass change the ratios of pi_0
    order     at fixed states, how far checkpoints keep the order that pi_0 gives task-unrelated actions
              (order.py); for comparison, the same with copies of the reference with random noise

Prints one JSON line; writes results.json, tabular.png and order.png. `--quick` takes fewer states and writes
under runs/ unless --out is given.

Left out: training the policies. Give checkpoints in Hugging Face layout, stopped at matched in-domain
accuracy. DIRS is a pattern, e.g. runs/claims/pivotrl/seed*/hf, whose directories are the policy's seeds.
"""

import glob
import json
import platform
import time
from pathlib import Path

import jax
import order
import tabular
from absl import app, flags

from pivotrl_jax.checkpoints import locate

HERE = Path(__file__).resolve().parent
QUICK = flags.DEFINE_bool("quick", False, "Fewer states.")
OUT = flags.DEFINE_string("out", None, "Where results go; beside this file if not given.")
SEED = flags.DEFINE_integer("seed", 0, "Of everything random.")
REFERENCE = flags.DEFINE_string("reference", "embedded", "pi_0: a checkpoint in Hugging Face layout.")
POLICIES = flags.DEFINE_list(
    "policies", [], "name=directories (a pattern), one a seed; the first is set against the others."
)

NOISE = (0.02, 0.05)  # of the noisy copies, relative to the root mean square of each array


def policies_of(asked: list[str], reference: Path, seed: int) -> dict[str, list[Path]]:
    """Name -> directories: the requested policies, then noisy copies of the reference."""
    pairs = [entry.partition("=") for entry in asked]
    found = {name: sorted(map(Path, glob.glob(pattern))) for name, _, pattern in pairs}
    if wrong := [name for name, paths in found.items() if not paths or not all(p.is_dir() for p in paths)]:
        raise app.UsageError(f"--policies: no directories for {', '.join(wrong)}; want name=pattern")
    for scale in NOISE:
        copy = Path(f"runs/theorem_3_3/noise_{scale:g}")
        found[f"noise {scale:g}"] = [order.noisy_copy(reference, copy, scale, seed)]
    return found


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    quick, began = QUICK.value, time.perf_counter()
    out = Path(OUT.value) if OUT.value else Path("runs/theorem_3_3_quick") if quick else HERE
    out.mkdir(parents=True, exist_ok=True)
    reference = locate.locate(REFERENCE.value, "--reference")
    policies = policies_of(POLICIES.value, reference, SEED.value)
    trained, shown = tabular.paths(50 if quick else 300, SEED.value)
    tabular.draw(shown, out / "tabular.png")
    taus, agreement = order.measure(reference, policies, quick, SEED.value)
    order.draw(taus, out / "order.png")
    result = {
        "seed": SEED.value,
        "quick": quick,
        "machine": f"{platform.machine()}, {jax.default_backend()}",
        "jax": jax.__version__,
        "tabular": tabular.least_kl(100 if quick else 1000, SEED.value),
        "paths": trained,
        "order": agreement,
        "seconds": round(time.perf_counter() - began),
    }
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
