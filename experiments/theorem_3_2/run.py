"""Theorem 3.2, both halves: `python experiments/theorem_3_2/run.py [--quick] [--out=DIR]`

    tabular   random softmax policies and rewards: natural-gradient norm compared with the reward's std,
              population GRPO score compared with sigma / beta^2, in float64 (tabular.py)
    groups    how a group of G samples estimates sigma / beta^2: bias and spread, Monte Carlo
    policy    the embedded checkpoint at the turns of the toolbox world (policy.py)

Prints one JSON line; writes results.json, groups.png and policy.png. `--quick` takes fewer states and samples
(two minutes) and writes under runs/ unless --out is given.

Left out: steps along the natural gradient (the claim is about its length at pi_0), other checkpoints.
"""

import json
import platform
import time
from pathlib import Path

import jax
import policy
import tabular
from absl import app, flags

HERE = Path(__file__).resolve().parent
QUICK = flags.DEFINE_bool("quick", False, "Fewer states, groups and candidates.")
OUT = flags.DEFINE_string("out", None, "Where results go; beside this file if not given.")
SEED = flags.DEFINE_integer("seed", 0, "Of everything random.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    quick, began = QUICK.value, time.perf_counter()
    out = Path(OUT.value) if OUT.value else Path("runs/theorem_3_2_quick") if quick else HERE
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "seed": SEED.value,
        "quick": quick,
        "machine": f"{platform.machine()}, {jax.default_backend()}",
        "jax": jax.__version__,
        "tabular": tabular.claims(200 if quick else 1000, SEED.value),
        "groups": tabular.groups(2_000 if quick else 40_000, SEED.value),
    }
    tabular.draw(result["groups"], out / "groups.png")
    states, result["policy"] = policy.measure(quick, SEED.value)
    policy.draw(states, out / "policy.png")
    result["seconds"] = round(time.perf_counter() - began)
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
