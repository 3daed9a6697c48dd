"""New verdicts on the stored rollouts of a run; nothing is sampled, and no model is needed.

    pivotrl rescore --workdir=runs/bfcl                          by the verifiers as they are now
    pivotrl rescore --workdir=runs/bfcl --verifier=my_pkg.checks:any_case --out=runs/any_case
    pivotrl rescore --workdir=runs/bfcl --judge_url=http://localhost:8000/v1 --judge_model=NAME

Writes rollouts with the new verdicts, profiles.jsonl and pivots.jsonl into a new work directory, from which
`train` goes on without sampling, and rescored.txt: what changed by verifier, tool and reason, which pivots
were gained and lost, and examples.
"""

import argparse

from pivotrl_jax import terminal
from pivotrl_jax.pivots import rescoring
from pivotrl_jax.run import disk, lock, paths


def main() -> None:
    """Raises InputError when the rollouts cannot be scored again."""
    parser = argparse.ArgumentParser(
        prog="pivotrl rescore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=paths.argument, required=True, help="the work directory of a run")
    parser.add_argument(
        "--verifier",
        default="",
        help="a verifier for all candidates, by name or as package.module:name; 'functional' is each "
        "candidate's own; default: as in the run",
    )
    parser.add_argument("--judge_url", default="", help="the endpoint of a judge; default: the run's")
    parser.add_argument("--judge_model", default="", help="the judge's model; default: the run's")
    parser.add_argument("--checkpoint", default="", help="the run's model, if it has moved")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=paths.argument, help="a new work directory; default: WORKDIR-rescored")
    where.add_argument(
        "--in_place", action="store_true", help="move the old files to WORKDIR/before_rescoring_1, or _2, ..."
    )
    options = parser.parse_args()
    workdir, out = options.workdir, options.out
    if not out and not options.in_place:
        out = workdir.resolve().with_name(f"{workdir.resolve().name}-rescored")
    flags = rescoring.Flags(options.verifier, options.judge_url, options.judge_model, options.checkpoint)
    if options.in_place:
        lock.acquire(workdir)
    with disk.explained(out or workdir):
        print("\n".join(rescoring.rescore(workdir, out, flags)))


if __name__ == "__main__":
    with terminal.ending("rescore"):
        main()
