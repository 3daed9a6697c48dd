"""Profiling in independent jobs: which files of rollouts each job makes.

`config.profile.shard` is "3/16" in the third of sixteen jobs. Every job makes the same candidates and cuts
them into the same files (`profiling.files_of`); each file belongs to one job. What is in a file does not
depend on the job that makes it, so that all files together are those of a profile made by one job.
"""

from collections.abc import Sequence

from pivotrl_jax.records import InputError, Prompt


def parse(shard: str) -> tuple[int, int]:
    """(number, count) of "3/16"."""
    number, _, count = shard.partition("/")
    return int(number), int(count)


def files_of(shard: str, files: Sequence[Sequence[int]], prompts: Sequence[Prompt]) -> list[int]:
    """Numbers of the files that this shard makes; `files` are the indices of their prompts.

    The files with most prompt tokens are dealt first, each to the shard with fewest so far, so shards differ
    by less than the largest file. Raises InputError if there are fewer files than shards.
    """
    number, count = parse(shard)
    if count > len(files):
        raise InputError(
            f"config.profile.shard is {shard!r}, but the {len(prompts)} candidates make only {len(files)} "
            "files, and a file is not divided: take fewer shards, or a lower "
            "config.profile.trajectories_per_shard in all of them"
        )
    tokens = [sum(len(prompts[i].ids) for i in members) for members in files]
    dealt: list[list[int]] = [[] for _ in range(count)]
    load = [0] * count
    for file in sorted(range(len(files)), key=lambda file: -tokens[file]):
        # of equal loads the shard with fewer files, so that none stays empty
        least = min(range(count), key=lambda i: (load[i], len(dealt[i])))
        dealt[least].append(file)
        load[least] += tokens[file]
    return sorted(dealt[number - 1])
