"""Profiling every turn of trajectories, compared with one `generate` per turn:
`python experiments/benchmarks/profiling.py --turns=8`

There are `--trajectories` trajectories of exactly `--length` tokens, with `--turns` evenly spaced turns: turn
k's prompt is the first k / K of the trajectory. `--group` completions of `--completion` tokens are sampled at
every turn.

ours           rollouts.actor.Actor: the turns of a trajectory are one tree, prefilled once
transformers   `generate` with `num_return_sequences`, turns sorted by length and left-padded, in batches of
               whichever number of turns in `--batches` is fastest

Sides take turns, `--runs` times after a first round that is not counted; numbers are medians. The curve is
the time of our side before the second token (packing, prefill, first token) by number of turns, at the same
length and without the peer; `--curve` lists the numbers of turns. Left out: verifiers, the chat template,
compilation, stop tokens. `--peers=` (empty) times our side alone.
"""

import argparse
import dataclasses
import functools
import time

import jax
import peers

from pivotrl_jax.rollouts.actor import Actor, BatchShape, Request

CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Work:
    """What to sample: the (trajectory, prompt) of every turn, and sizes."""

    turns: list[tuple[int, list[int]]]
    group: int
    completion: int
    per_trajectory: int
    rows: int  # of our side: trajectories at a time
    decode_slots: int  # of our side: completions of a row that decode at a time

    @property
    def slots(self) -> int:
        return -(-max(len(prompt) for _, prompt in self.turns) // CHUNK) * CHUNK


def work_of(trajectories: list[list[int]], turns: int, options) -> Work:
    cut = [
        (i, ids[: len(ids) * (k + 1) // turns]) for i, ids in enumerate(trajectories) for k in range(turns)
    ]
    decode_slots = min(options.decode_slots, turns * options.group)
    return Work(cut, options.group, options.completion, turns, options.rows, decode_slots)


def our_profiling(receive, send, work: Work) -> None:
    """Our side: answers every number with the seconds that a round took."""
    mesh = peers.our_mesh(peers.devices_for(work.rows))
    config, params = peers.load_policy(mesh)
    actor = Actor(
        config,
        peers.sampling_of(work.completion),
        mesh,
        shape=BatchShape(work.rows, work.per_trajectory * work.group, work.decode_slots),
        row_lengths=(work.slots,),
        attention_chunk=CHUNK,
    )
    requests = [Request(str(n), prompt, str(i), work.group) for n, (i, prompt) in enumerate(work.turns)]
    params = actor.place(params)
    while True:
        key = jax.random.key(receive())
        began = time.perf_counter()
        drawn = actor.act(params, requests, key)
        seconds = time.perf_counter() - began
        if any(len(c.token_ids) != work.completion for completions in drawn for c in completions):
            raise ValueError("a completion of another length")
        send({"seconds": seconds})


def transformers_profiling(receive, send, work: Work, batch: int) -> None:
    """The peer, which samples `batch` turns at a time."""
    import torch

    policy, pad = peers.load_torch().eval(), peers.embedded_chat().tokenizer.pad_token_id
    ordered = sorted((prompt for _, prompt in work.turns), key=len)

    def sample(prompts: list[list[int]]) -> None:
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        lengths = peers.fixed_length(work.completion)
        drawn = policy.generate(
            input_ids=ids, attention_mask=mask, num_return_sequences=work.group, **lengths
        )
        if drawn.shape != (len(prompts) * work.group, longest + work.completion):
            raise ValueError(f"transformers sampled {tuple(drawn.shape)}")

    while True:
        torch.manual_seed(receive())
        began = time.perf_counter()
        with torch.no_grad():
            for start in range(0, len(ordered), batch):
                sample(ordered[start : start + batch])
        send({"seconds": time.perf_counter() - began})


def curve(trajectories: list[list[int]], options) -> dict[int, float]:
    """Turns -> our seconds for completions of one token, at the same trajectory length."""
    counts = [int(n) for n in options.curve.split(",") if n]
    sides = {}
    for turns in counts:
        work = dataclasses.replace(work_of(trajectories, turns, options), group=1, completion=1)
        sides[turns] = peers.Side(our_profiling, work)
    times = peers.take_turns(sides, options.runs) if sides else {}
    for side in sides.values():
        side.close()
    return {turns: peers.medians(seconds)["seconds"] for turns, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--trajectories", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4, help="ours: trajectories at a time")
    parser.add_argument("--decode_slots", type=int, default=64, help="ours: completions of a row at a time")
    parser.add_argument("--peers", default="transformers")
    parser.add_argument("--batches", default="1,8", help="the peer's turns at a time, to choose from")
    parser.add_argument("--curve", default="1,2,4,8,16")
    options = parser.parse_args()
    trajectories = peers.prompts_of(options.trajectories, options.length)
    work = work_of(trajectories, options.turns, options)
    page = peers.facts("profiling")
    names = ("turns", "trajectories", "length", "group", "completion", "runs", "rows")
    page |= {name: getattr(options, name) for name in names} | {
        "decode_slots": work.decode_slots,
        "slots": work.slots,
    }
    sides = {"ours": peers.Side(our_profiling, work)}
    if options.peers:
        choices = sorted({min(int(n), len(work.turns)) for n in options.batches.split(",")})
        side_of = functools.partial(peers.Side, transformers_profiling, work)
        page["transformers_batch"] = peers.fastest("transformers", choices, side_of)
        sides["transformers"] = side_of(page["transformers_batch"])
    found = {name: peers.medians(times) for name, times in peers.take_turns(sides, options.runs).items()}
    for name, side in sides.items():
        page[f"{name}_seconds"] = found[name]["seconds"]
        side.close()
    if options.peers:
        page["speedup_transformers"] = page["transformers_seconds"] / page["ours_seconds"]
    prefill = curve(trajectories, options)
    page["prefill_seconds_by_turns"] = {str(turns): seconds for turns, seconds in prefill.items()}
    if prefill:
        page["prefill_largest_to_smallest"] = max(prefill.values()) / min(prefill.values())
    peers.report(page)


if __name__ == "__main__":
    main()
