"""SFT's learning rate and epochs, chosen on validation tasks: `python experiments/claims/sft_choice.py`

This gives the rival its best recipe: every pair is trained on seed 0's demonstrations and scored on 100 tasks
drawn with a different seed than the held-out ones. Prints a line per pair, best first, and writes
sft_choice.json.
"""

import argparse
import json
from pathlib import Path

import runs

RATES, EPOCHS = ("1e-4", "3e-4", "1e-3"), (2, 4, 8)
VALIDATION = [
    "data.held_out_seed=1",
    "data.held_out_tasks=100",
    "evaluate.tasks=100",
    "evaluate.turn_trajectories=40",
    "evaluate.skill_items=10",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=runs.ROOT / "runs" / "sft_choice")
    options = parser.parse_args()
    table = []
    for rate in RATES:
        for epochs in EPOCHS:
            base = options.base.resolve() / f"lr{rate}_epochs{epochs}"
            if not base.exists() and table:
                first = options.base.resolve() / f"lr{RATES[0]}_epochs{EPOCHS[0]}"
                runs.share_before(first, runs.workdir_of(base, "sft", 0), 0)
            more = [*VALIDATION, f"sft.learning_rate={rate}", f"sft.epochs={epochs}"]
            workdir = runs.run(base, "sft", 0, False, more)
            after = json.loads((workdir / "evaluation.json").read_text("utf-8"))["after"]
            line = {"learning_rate": float(rate), "epochs": epochs}
            names = ("episode_success", "call_turn_pass", "out_of_domain")
            table.append(line | {name: round(after[name]["value"], 4) for name in names})
    table.sort(key=lambda line: -line["episode_success"])
    print("\n".join(map(json.dumps, table)))
    (Path(__file__).parent / "sft_choice.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
