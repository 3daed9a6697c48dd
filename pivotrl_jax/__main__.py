"""`pivotrl PROGRAM ...`, the same as `python -m pivotrl_jax.PROGRAM ...`"""

import difflib
import runpy
import sys

import pivotrl_jax

PROGRAMS = {
    "train": "trajectories -> pivots -> GRPO -> evaluation, export and report: everything",
    "find_pivots": "trajectories -> pivots.jsonl: the offline half alone",
    "merge_profiles": "the shards of a profile -> one work directory; no model needed",
    "rescore": "new verdicts on the rollouts that a run has stored; no model needed",
    "export": "any checkpoint of a training, in Hugging Face layout",
    "push": "the export of a run to the Hugging Face hub, with a model card",
    "evaluate": "score a checkpoint in and out of domain",
    "candidates": "trajectories of any known format -> candidates.jsonl; no model needed",
    "verify": "score actions with a verifier; no model needed",
    "exchange": "pivots to and from NVIDIA NeMo Gym's rows; no model needed",
    "score": "log-probs of given token sequences under a checkpoint",
    "serve": "any checkpoint behind an OpenAI-compatible server",
    "plan": "memory and time of a run on a machine that you do not have",
    "report": "write report.html about a run, or one page that compares several",
    "completion": "what a shell evaluates so that Tab completes this command",
}


def usage() -> str:
    width = max(map(len, PROGRAMS))
    lines = ["usage: pivotrl PROGRAM [--help] ...", "       pivotrl --version", ""]
    lines += ["e.g. pivotrl train --config=bfcl", ""]
    return "\n".join([*lines, *(f"  {name:{width}}  {what}" for name, what in PROGRAMS.items())])


def main() -> None:
    """Run the program that the first argument names."""
    from pivotrl_jax import terminal

    with terminal.ending("pivotrl"):
        _run(*sys.argv[1:])


def _run(name: str = "--help", *rest: str) -> None:
    if name in ("--help", "-h", "help"):
        print(usage())
        return
    if name in ("--version", "version"):
        print(f"pivotrl_jax {pivotrl_jax.__version__}")
        return
    if name not in PROGRAMS:
        close = difflib.get_close_matches(name, PROGRAMS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PROGRAMS)}"
        sys.exit(f"error: pivotrl has no program {name!r}; {hint}")
    sys.argv = [f"pivotrl {name}", *rest]
    runpy.run_module(f"pivotrl_jax.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
