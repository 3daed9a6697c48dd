"""Which programs a process has compiled, as JAX reports them: a run may compile a bounded number.

Per row length of `config.compute.row_lengths` there is at most one `sample` for each of profiling, GRPO and
evaluation, one `accumulate`, and one `log_probs` when there is a KL term; `apply` is one. The others place or
convert arrays and are small. A program read from the compilation cache counts too.
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
    """A place to count from: now."""
    return len(_compiled)


def since(start: int) -> dict:
    """{"programs": {name: how many}, "seconds": in all} compiled since a `mark`; small ones as "other"."""
    counts = collections.Counter(name if name in MAIN else "other" for name, _ in _compiled[start:])
    named = {name: counts[name] for name in (*MAIN, "other") if counts[name]}
    return {"programs": named, "seconds": round(sum(seconds for _, seconds in _compiled[start:]), 3)}
