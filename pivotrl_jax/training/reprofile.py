"""Profiling again while training: new pivots under the current policy, when the old ones teach nothing more.

    steps -> (monitor: groups no longer spread, or validation no longer rises) -> profile -> pivots -> steps

Every profile has a directory of its own, reprofiled/1 and so on, with rollouts/, profiles.jsonl and
pivots.jsonl as the work directory has them for pi_0. The metrics of earlier steps and these files decide what
a step trains on, so a run that is killed at any point, even while profiling, resumes as if it had not been.
Optimizer state and step count carry over, and the KL, if there is one, remains the KL to pi_0.
"""

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.checkpoints.fingerprint import params_fingerprint
from pivotrl_jax.pivots import profiling
from pivotrl_jax.records import Candidate, InputError, Pivot, Prompt, read_records
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run import metrics
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import monitor
from pivotrl_jax.trajectories import extract

DIRECTORY = "reprofiled"


@dataclasses.dataclass(frozen=True)
class Phase:
    """The pivots that are trained on from step `first` on, until another phase begins."""

    prompts: Sequence[Prompt]
    first: int = 0


class OnePhase:
    """The phases of a run that is profiled once; `Phases` has the same two methods."""

    def __init__(self, prompts: Sequence[Prompt]):
        self._phase = Phase(prompts)

    def due(self, step: int) -> bool:
        """Whether a new phase may begin with this step: before it the policy is profiled again."""
        return False

    def at(self, step: int, params) -> tuple[Phase, dict[str, float]]:
        """The phase of a step, and metrics to log with it. `params` are the current parameters."""
        return self._phase, {}


def rule_of(c) -> monitor.Rule:
    """The rule that `config.reprofile` describes."""
    return monitor.Rule(c.std_fraction, c.std_window, c.patience, c.min_gain, c.most)


def identity(config) -> dict:
    """The fields of a config that decide when to profile again, for a checkpoint's identity."""
    found = {}
    if rule_of(config.reprofile).on:
        found["reprofile"] = config.reprofile.to_dict()
        if config.reprofile.std_fraction:  # earlier versions watched the std of the whole batch
            found["reprofile"]["watches"] = monitor.STD
        if config.reprofile.patience:
            found["validation"] = {k: v for k, v in config.validation.to_dict().items() if k != "batch"}
    return found


def phases_of(run: run_lib.Run, candidates: Sequence[Candidate], pivots: Sequence[Prompt]) -> OnePhase:
    """The phases of a run: a single one unless `config.reprofile` is on. `candidates` are all candidates,
    `pivots` the pivots under pi_0."""
    if not rule_of(run.config.reprofile).on:
        return OnePhase(pivots)
    return Phases(run, candidates, pivots)


class Phases(OnePhase):
    """What every step trains on: the pivots of the latest profile that found any."""

    def __init__(self, run: run_lib.Run, candidates: Sequence[Candidate], pivots: Sequence[Prompt]):
        super().__init__(pivots)
        self._run, self._candidates, self._rule = run, candidates, rule_of(run.config.reprofile)
        self._decision = None  # (step, lines of the steps before it, why to profile there)

    def due(self, step: int) -> bool:
        """Whether the policy is profiled before this step. Raises InputError as `at` does."""
        return bool(self._decide(step)[1])

    def at(self, step: int, params) -> tuple[Phase, dict[str, float]]:
        """The phase of a step, and what to log with it; profiles `params` if that is due. Raises InputError
        when the metrics of earlier steps or the pivots of an earlier profile are not on disk."""
        lines, why = self._decide(step)
        if why:
            return self._profile(step, params, lines, why)
        found = [(n, lines[i]) for n, i in enumerate(monitor.events(lines), 1) if lines[i][monitor.PIVOTS]]
        if found and found[-1][1]["step"] != self._phase.first:  # after a resume
            self._phase = self._read(*found[-1])
        return self._phase, {}

    @functools.cached_property
    def _rollouts(self) -> Rollouts:
        return make_rollouts(self._run, self._run.config.profile.batch, trained=True)

    def _decide(self, step: int) -> tuple[list[monitor.Line], str]:
        """(lines of the steps before this one, why to profile before it). Raises InputError when lines are
        missing."""
        if self._decision is None or self._decision[0] != step:
            lines = [line for line in metrics.read_metrics(self._run.workdir) if line["step"] < step]
            if [line["step"] for line in lines] != list(range(step)):
                raise InputError(
                    f"{self._run.workdir / metrics.FILE}: holds {len(lines)} of the {step} steps before the "
                    "checkpoint, and all of them decide when to profile again; put the file back, or start "
                    "over with --config.resume=False"
                )
            self._decision = step, lines, monitor.why(lines, self._rule)
        return self._decision[1:]

    def _directory(self, number: int) -> Path:
        return self._run.workdir / DIRECTORY / str(number)

    def _profile(self, step: int, params, lines, why: str) -> tuple[Phase, dict[str, float]]:
        """Find pivots under the current policy. Shards that a killed run finished are reused."""
        run, start, number = self._run, time.perf_counter(), len(monitor.events(lines)) + 1
        print(f"profiling again after step {step}: {why}")
        directory = self._directory(number)
        policy = f"{run.policy}@{step}:{params_fingerprint(params, run.mesh)}"
        _forget_others(directory, policy)
        selection = profiling.profile_and_select(
            run,
            self._rollouts,
            params,
            extract.render(run.chat, self._candidates),
            profiling.settings_of(run, policy, trained=True, repetition=number),
            directory,
        )
        pivots = [pivot.candidate for pivot in selection.pivots(self._candidates)]
        if pivots:
            self._phase = Phase(extract.render(run.chat, pivots), step)
        else:
            print(f"no pivot any more: the {len(self._phase.prompts)} old ones are trained on to the end")
        phase_metrics = {
            monitor.REPROFILED: 1,
            monitor.PIVOTS: len(pivots),
            monitor.ROLLOUTS: selection.rollouts,
            "profiling_seconds": time.perf_counter() - start,
        }
        return self._phase, phase_metrics

    def _read(self, number: int, line: monitor.Line) -> Phase:
        file = self._directory(number) / "pivots.jsonl"
        if not file.is_file():
            raise InputError(
                f"{file}: no such file, though step {line['step']} of {metrics.FILE} began to train on its "
                "pivots; put it back, or start over with --config.resume=False"
            )
        found = [pivot.candidate for pivot in read_records(file, Pivot)]
        if len(found) != line[monitor.PIVOTS]:
            raise InputError(
                f"{file}: holds {len(found)} pivots, but step {line['step']} of {metrics.FILE} began to "
                f"train on {line[monitor.PIVOTS]:g}; put back what was there, or start over with "
                "--config.resume=False"
            )
        return Phase(extract.render(self._run.chat, found), line["step"])


def _forget_others(directory: Path, policy: str) -> None:
    """Delete a profile of another policy. There is one when the steps before it were repeated on another
    machine or mesh, where numbers round differently."""
    settings = directory / "rollouts" / "settings.json"
    if settings.is_file() and json.loads(settings.read_text("utf-8"))["policy"] != policy:
        shutil.rmtree(directory)
