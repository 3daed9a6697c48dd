"""PivotRL from Python: what the programs do, as functions.

    import pivotrl_jax.api as pivotrl

    trajectories = pivotrl.load_trajectories("my_runs/")
    config = pivotrl.load_config("swe:tiny", workdir="runs/mine", data={"source": "my_runs/"})
    pivotrl.self_check(config)                    # does the verifier know the demonstrations? no model needed
    run = pivotrl.find_pivots(config)             # run.selection, run.turns("pivot"), run.turns("all_fail")
    run = pivotrl.train(config)                   # run.table, run.metrics, run.evaluation
    pivotrl.evaluate(config, "runs/mine/hf")
    run = pivotrl.open_run("runs/mine")           # a run of any time and machine; needs no jax

In a notebook the results show themselves. Every function raises `InputError`, whose sentence says what was
wrong, where, and what to do. Importing this module loads neither jax nor a model; what a function needs is
imported when it is called.

The names are those of `__all__`, and they are kept: a change of one is announced in CHANGELOG.md a version
ahead. They are not attributes of `pivotrl_jax` itself because `pivotrl_jax.train`, `pivotrl_jax.serve` and
others are modules, which `python -m` runs: a name would be a function or a module depending on what was
imported before.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pivotrl_jax.records import Candidate, InputError, Pivot, Rollout, Trajectory, Verdict

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from pivotrl_jax.pivots.candidates import SelfCheck
    from pivotrl_jax.serve.start import Served
    from pivotrl_jax.verifiers.lines import Scored
    from pivotrl_jax.views.opened import Evaluation, OpenedRun, Trajectories

__all__ = [
    "Candidate",
    "InputError",
    "Pivot",
    "Rollout",
    "Trajectory",
    "Verdict",
    "evaluate",
    "find_pivots",
    "load_config",
    "load_trajectories",
    "open_run",
    "self_check",
    "serve",
    "train",
    "verify",
]


def load_trajectories(
    paths: str | Path | list[str | Path], *, format: str = "auto", verifier: str = ""
) -> "Trajectories":
    """A list of the `Trajectory`s in files, folders or hub datasets ("hf:owner/name"), in any known format.

    `format` names a reader, if the format shall not be recognised by content; `verifier` replaces each
    reader's own choice. Bad rows are left out and named in `.left_out`. Raises InputError when nothing is
    usable, and for a verifier that does not exist. docs/formats.md has the formats.
    """
    from pivotrl_jax import verifiers
    from pivotrl_jax.run.paths import named
    from pivotrl_jax.trajectories import reading
    from pivotrl_jax.views.opened import Trajectories

    several = [paths] if isinstance(paths, (str, Path)) else paths
    if not isinstance(several, Iterable) or isinstance(several, (dict, bytes)):
        raise InputError(f"paths is {paths!r}; want the path of a file or a folder, or a list of paths")
    if verifier:
        verifiers.register(verifier, "verifier")
    return Trajectories(*reading.read([named(str(path), "the path") for path in several], format, verifier))


def load_config(name: str, /, **overrides: Any) -> "ConfigDict":
    """The config called `name`, as `--config` has it ("bfcl", "bfcl:qwen3_0p6b", a path), with other values
    for some fields: `load_config("bfcl", seed=1, grpo={"steps": 7})`, or `**{"grpo.steps": 7}`.

    `pivotrl train --help` describes the fields. Raises InputError for what is not there or does not fit.
    """
    from pivotrl_jax.run import configs

    return configs.load(name, overrides)


def self_check(config: "ConfigDict") -> "SelfCheck":
    """Whether verifiers accept every demonstration of the config's data, and reject garbage.

    Needs the tokenizer and no weights. `.kept` are the candidates, `.left_out` says why others are none, and
    `.table()` has lines to print.
    """
    from pivotrl_jax import pipeline

    _require_config(config)
    pipeline.check_names(config)
    return pipeline.self_check(config)[0]


def find_pivots(config: "ConfigDict") -> "OpenedRun":
    """The offline half: cut the data into candidates, sample G actions at each under the starting policy,
    and keep those with mixed rewards. Writes into config.workdir and resumes there; prints what it does."""
    from pivotrl_jax import pipeline

    _prepare(config)
    run, selection = pipeline.find_pivots(config)
    return _opened(run.workdir, selection)


def train(config: "ConfigDict") -> "OpenedRun":
    """Everything: `find_pivots`, GRPO on the pivots (or `config.method`), evaluation before and after, the
    Hugging Face export in config.workdir/hf and the report. Resumes where it stopped."""
    from pivotrl_jax import pipeline

    _prepare(config)
    return _opened(pipeline.train(config).workdir)


def evaluate(config: "ConfigDict", checkpoint: str | Path | None = None) -> "Evaluation":
    """Held-out episodes and turns, and out-of-domain skills, of `checkpoint`, or of the config's own model.

    The checkpoint is a directory in Hugging Face layout, or whatever `config.model.checkpoint` may be. The
    results are written to config.workdir/evaluations, and read from there if they are asked for again.
    """
    from pivotrl_jax import pipeline
    from pivotrl_jax.evaluation import measures
    from pivotrl_jax.views.opened import Evaluation

    _require_config(config)
    if checkpoint is not None:
        config = config.copy_and_resolve_references()
        config.model.checkpoint = str(checkpoint)
    _prepare(config)
    run, results = pipeline.evaluate(config)
    return Evaluation(
        checkpoint=str(run.checkpoint),
        policy=run.policy,
        file=Path(config.workdir) / "evaluations" / f"{run.policy}.json",
        measures=measures.summarise(results),
        abstained=measures.abstentions(results),
    )


def verify(
    cases: Iterable[dict | str | bytes],
    verifier: str,
    *,
    mode: str = "strict",
    judge_url: str = "",
    judge_model: str = "",
    judge_cache: str = "",
) -> Iterator["Scored"]:
    """Score actions, one after the other; no model needed. `list(verify(...))` scores all.

    A case is `{"id", "expected_action", "candidate": [...]}` or such an object as JSON, with the actions as
    items of OpenAI's Responses format. `verifier` is a name, or "package.module:name" for your own; `mode` is
    "strict" or "nemo_gym". An OpenAI-compatible endpoint may judge what rules leave open. A case that cannot
    be read gets no verdict but an `error`. Raises InputError for an unknown verifier or a judge that cannot
    be asked.
    """
    from pivotrl_jax import verifiers
    from pivotrl_jax.verifiers import judge as judge_lib
    from pivotrl_jax.verifiers import judge_templates, lines

    if not isinstance(cases, Iterable) or isinstance(cases, (dict, str, bytes)):
        raise InputError(f"cases is of type {type(cases).__name__}; want a list of cases, or an iterator")
    found, judge = verifiers.register(verifiers.full_name(verifier, mode), "--verifier"), None
    if judge_url:
        cache = Path(judge_cache) if judge_cache else None
        judge = judge_lib.Judge(judge_url, judge_model, judge_templates.load(), cache=cache)
    elif judge_model or judge_cache:
        raise InputError("--judge_model and --judge_cache need --judge_url, the judge's endpoint")
    return lines.score(found, judge, cases)


def serve(checkpoint: str | Path = "embedded", **options: Any) -> "Served":
    """A checkpoint behind an OpenAI-compatible server, in a thread of this process.

        with serve("runs/bfcl/hf", port=0) as server:
            client = openai.OpenAI(base_url=server.url, api_key="none")

    The options are those of `pivotrl serve --help`, without dashes. `stop()` ends it, too. Needs the extra
    `serve`. Raises InputError for a checkpoint or an option that cannot be used.
    """
    from pivotrl_jax.serve import start

    return start.Served(start.with_options(str(checkpoint), options))


def open_run(path: str | Path) -> "OpenedRun":
    """What a run left in its directory: config, candidates, samples, pivots, metrics, evaluation. Needs
    neither jax nor a model. Raises InputError where there is no run."""
    from pivotrl_jax.run.paths import named
    from pivotrl_jax.views.opened import OpenedRun

    return OpenedRun(named(str(path), "the path"))


def _prepare(config: "ConfigDict") -> None:
    """What the command line does before a program: check names, and keep libraries from telling of every
    file they touch."""
    import os

    _require_config(config)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from absl import logging

    from pivotrl_jax import pipeline

    logging.set_verbosity(logging.WARNING)
    pipeline.check_names(config)


def _require_config(config: Any) -> None:
    from ml_collections import ConfigDict

    if not isinstance(config, ConfigDict):
        raise InputError(
            f"config is of type {type(config).__name__}; want what load_config gives, e.g. "
            'load_config("bfcl")'
        )


def _opened(path: Path, selection: Any = None) -> "OpenedRun":
    from pivotrl_jax.views.opened import OpenedRun

    return OpenedRun(path, selection)
