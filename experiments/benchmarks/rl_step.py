"""One GRPO step, rollouts and update, compared with TRL and plain transformers on the same machine:
`python experiments/benchmarks/rl_step.py --prompt=1024 --group=8 --completion=32`

Steps: (1) `--prompts` prompts of exactly `--prompt` tokens; (2) each side samples `--group` completions of
exactly `--completion` tokens for each; (3) a reward that takes no time, group advantages; (4) one optimizer
step over all of them. Sides take turns, `--runs` times after a first round that is not counted (compilation,
memory, threads); numbers are medians. Same weights, float32, temperature 1, no KL, AdamW.

ours   Actor, batches.grpo_batch and Learner.step: packing and transfers included
trl    GRPOTrainer's own loop: `transformers.generate` (there is no vLLM here), no gradient checkpointing
torch  by hand: one `generate`, forward and backward over the padded batch with logits of completions only

Both peers use SDPA attention, grouped products of experts, and whichever number of sequences per backward
pass in `--peer_rows` is fastest. Different prompts share no prefix; only the completions of a group do.

Left out: verifiers, tokenization and chat templates, logging, checkpoints, compilation; stop tokens, which
end completions early. `--peers=` (empty) times our side alone.
"""

import argparse
import dataclasses
from collections.abc import Callable

import peers

from pivotrl_jax.checkpoints import locate

OPTIONS = ("checkpoint", "prompt", "group", "completion", "prompts", "runs")


def sides_of(options, prompts, settings: peers.Settings) -> tuple[dict[str, peers.Side], dict[str, int]]:
    """(every side by name, how many sequences each peer processes at a time)."""
    sizes = (prompts, options.group, options.completion)
    checkpoint = locate.locate(options.checkpoint)
    sides, rows = {"ours": peers.Side(peers.our_step, *sizes, settings, checkpoint)}, {}
    total = len(prompts) * options.group
    wanted = {min(int(n), total) for n in options.peer_rows.split(",")}
    choices = sorted(n for n in wanted if total % n == 0) or [total]
    serve = {"trl": peers.trl_step, "torch": peers.torch_step}
    for name in filter(None, options.peers.split(",")):

        def side_of(n: int, serve_: Callable = serve[name]) -> peers.Side:
            return peers.Side(serve_, *sizes, n, checkpoint)

        rows[name] = peers.fastest(name, choices, side_of)
        sides[name] = side_of(rows[name])
    return sides, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="embedded", help="a directory, or smollm2")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", default="trl,torch")
    parser.add_argument("--peer_rows", default="8,16,32", help="sequences per backward pass, to choose from")
    parser.add_argument("--learner_rows", type=int, default=0, help="ours: rows per backward pass; 0: as set")
    options = parser.parse_args()
    settings = peers.Settings.of(options.prompts, options.prompt, options.group, options.completion)
    if options.learner_rows:
        settings = dataclasses.replace(settings, learner_rows=options.learner_rows)
    sides, rows = sides_of(options, peers.prompts_of(options.prompts, options.prompt), settings)
    times = peers.take_turns(sides, options.runs)
    page = peers.facts("rl_step")
    page |= {name: getattr(options, name) for name in OPTIONS}
    page |= {"settings": dataclasses.asdict(settings), "peer_rows": rows}
    found = {name: peers.medians(steps) for name, steps in times.items()}
    page |= {f"{name}_{part}": value for name, parts in found.items() for part, value in parts.items()}
    for name in found.keys() - {"ours"}:
        for key, part in (("speedup", "seconds"), ("cpu_ratio", "cpu")):
            page[f"{key}_{name}"] = found[name][part] / found["ours"][part]
    peers.report(page)


if __name__ == "__main__":
    main()
