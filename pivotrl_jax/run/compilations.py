"""Counts the programs that a process has compiled, as JAX reports them: a run compiles a bounded number.

Per row length of `config.compute.row_lengths` there is at most one `sample` for each of profiling, GRPO and
evaluation, one `accumulate`, and one `log_probs` when there is a KL term; a run has one `apply`. The others
place or convert arrays and are small. A program read from the compilation cache counts too.
"""

import collections

import jax

MAIN = ("sample", "accumulate", "apply", "log_probs")
_compiled: list[tuple[str, float]] = []  # name, seconds; in order


@jax.monitoring.register_event_duration_secs_listener
def _listen(event: str, seconds: float, fun_name: str = "", **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append((fun_name.removeprefix("jit(").removesuffix(")"), seconds))


def mark() -> int:
    """The number of compilations so far, for `since` to count from."""
    return len(_compiled)


def since(start: int) -> dict:
    """What was compiled since a `mark`: {"programs": {name: count}, "seconds": total}; small ones are
    "other"."""
    counts = collections.Counter(name if name in MAIN else "other" for name, _ in _compiled[start:])
    named = {name: counts[name] for name in (*MAIN, "other") if counts[name]}
    return {"programs": named, "seconds": round(sum(seconds for _, seconds in _compiled[start:]), 3)}
