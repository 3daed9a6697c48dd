"""The shards of a profile -> one work directory with the whole profile; no model needed.

    pivotrl find_pivots --config=bfcl --config.profile.shard=1/2 --config.workdir=runs/part1
    pivotrl find_pivots --config=bfcl --config.profile.shard=2/2 --config.workdir=runs/part2
    pivotrl merge_profiles runs/part1 runs/part2 --out=runs/bfcl
    pivotrl train --config=bfcl --config.workdir=runs/bfcl

The jobs need no coordinator, and may run at any time on any machine; bring their work directories together
for this command. It refuses shards that differ in policy, seed, sampling, group size, verifiers, candidates
or config, and names those that are missing, doubled or unfinished.
"""

import argparse

from pivotrl_jax import terminal
from pivotrl_jax.pivots import merging
from pivotrl_jax.run import disk, paths


def main() -> None:
    """Raises InputError when the shards do not make one profile."""
    parser = argparse.ArgumentParser(
        prog="pivotrl merge_profiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=paths.argument, nargs="+", help="the shards' work directories")
    parser.add_argument(
        "--out", type=paths.argument, required=True, help="a new work directory, for the whole profile"
    )
    options = parser.parse_args()
    with disk.explained(options.out):
        print("\n".join(merging.merge(options.runs, options.out)))


if __name__ == "__main__":
    with terminal.ending("merge_profiles"):
        main()
