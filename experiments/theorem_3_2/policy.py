"""Theorem 3.2 (i) on a real policy: gradient norms at the turns of the toolbox world, compared with profiles.

At every candidate two independent samples of G completions are drawn from pi_0, with separate PRNG streams:
the profile, by the project's own profiling, and the gradient's sample. From the gradient's sample it computes

    g      (1/G) sum_i (r_i - mean) s_i, with s_i the gradient of log pi(completion_i) in all parameters
    F      (1/G) sum_i s_i s_i^T
    norms  sqrt(g^T (F + damping)^+ g), |g|, and |g| / (std + eps): the length of plain GRPO's gradient

and how these norms correlate with the profile's reward std over candidates. A group of equal rewards has
g = 0 exactly, so only mixed groups are differentiated.

Without damping, the Fisher norm equals the std of the gradient's sample by algebra, whenever the scores of
its distinct completions are linearly independent (N is far above G). The experiment shows whether they are
(rank), what damping does, and whether the direction is meaningful beyond its sample. For the last question,
`crossfit` measures, on part of the profile's sample, the slope of the reward per unit of Fisher length along
the natural gradient. If the direction carried over perfectly, the slope would be the profile's std; in
general it is the std times a correlation.
"""

import contextlib
import runpy
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from pivotrl_jax.models import forest
from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.pivots import profiling, rollout_files
from pivotrl_jax.records import Rollout
from pivotrl_jax.rollouts.rollout import make_rollouts
from pivotrl_jax.run import resume
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import learner, losses
from pivotrl_jax.trajectories import extract, sources

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see theory.py
import theory

ROOT = Path(__file__).resolve().parents[2]
G, QUICK_G = 32, 8  # completions in each of the two samples
SEEN = 16  # completions of the profile's sample that the cross-fit uses
SLOTS = (512, 1024, 2048, 4096)  # row lengths; each is a program of its own
COMPUTE = learner.Compute(attention_chunk=128, log_prob_chunk=128, remat="nothing")
DAMPING = {"1e-4": 1e-4, "1e-2": 1e-2, "1": 1.0}  # in units of the mean trace of F over the mixed states
CROSSFIT = "1e-2"
ADVANTAGE_EPS = 1e-6
CHECKED = 12  # states where conjugate gradients check the result from the Gram matrix
MEASURES = ("std_of_sample", "fisher", *(f"fisher_{d}" for d in DAMPING), "gradient", "grpo_gradient")


def settings(quick: bool, seed: int):
    config = runpy.run_path(str(ROOT / "configs" / "bfcl.py"))["get_config"]("tiny")
    with config.unlocked():
        config.seed = seed
        config.resume = False
        config.workdir = f"runs/theorem_3_2/{'quick' if quick else 'full'}"
        config.data.demonstrations = 7 if quick else 34
        config.data.held_out_tasks = 1
        config.profile.group_size = QUICK_G if quick else G
    return config


def state_batch(prompt, distinct: list[list[int]], most: int) -> losses.Batch:
    """The forest of one prompt and its distinct completions, in one row."""
    size = len(prompt) + sum(map(len, distinct))
    packed = forest.pack([[forest.Piece(0, prompt, distinct)]], forest.round_up(size, SLOTS), 0)
    weight = np.zeros(packed.tokens.shape, np.float32)
    branch = np.full(packed.tokens.shape, most, np.int32)
    (placed,) = packed.placed
    for u, ids in enumerate(distinct):
        packed.write(weight, placed, u, np.ones(len(ids)))
        packed.write(branch, placed, u, np.full(len(ids), u))
    return {**packed.arrays(), "weight": weight, "branch": branch}


def tally(*samples: list[Rollout]) -> tuple[list[list[int]], np.ndarray, np.ndarray, np.ndarray]:
    """(distinct completions, reward [U], recorded log-prob [U], share of each sample [samples, U])."""
    first: dict[tuple[int, ...], Rollout] = {}
    for rollout in (r for sample in samples for r in sample):
        first.setdefault(tuple(rollout.token_ids), rollout)
    number = {ids: u for u, ids in enumerate(first)}
    share = np.zeros((len(samples), len(first)))
    for i, sample in enumerate(samples):
        for rollout in sample:
            share[i, number[tuple(rollout.token_ids)]] += 1 / len(sample)
    reward = np.array([r.reward for r in first.values()])
    log_prob = np.array([sum(r.log_probs) for r in first.values()])
    return [list(ids) for ids in first], reward, log_prob, share


def std_of(sample: list[Rollout]) -> float:
    return float(np.std([r.reward for r in sample]))


def differentiate(run, prompts, drawn, profiled, most: int) -> list[dict]:
    """For each candidate, the stds of its samples and, if the gradient's sample is mixed, the Gram matrix."""

    @partial(jax.jit, static_argnames="most")
    def scores(params, batch, count, most):
        log_prob_U, score_UN = theory.completion_scores(run.model_config, COMPUTE, params, batch, count, most)
        return log_prob_U, score_UN, score_UN @ score_UN.T

    cg = jax.jit(theory.cg_fisher_norm, static_argnames="iterations")
    states, checked = [], 0
    for prompt, sample, profile in zip(prompts, drawn, profiled):
        state = {"std_of_sample": std_of(sample), "std_of_profile": std_of(profile)}
        states.append(state)
        if not state["std_of_sample"]:
            continue
        distinct, reward, recorded, share = tally(sample, profile[:SEEN])
        U = len(distinct)
        log_prob, score, gram = scores(run.params, state_batch(prompt, distinct, most), U, most)
        state |= {"reward": reward, "share": share, "gram": np.asarray(gram, np.float64)[:U, :U]}
        state["log_prob_drift"] = float(np.abs(np.asarray(log_prob)[:U] - recorded).max())
        if checked < CHECKED:
            checked += 1
            pad = partial(np.pad, pad_width=(0, most - U))
            weight, padded = pad(share[0]).astype(np.float32), pad(reward).astype(np.float32)
            damping = 1e-2 * float(share[0] @ np.diag(state["gram"]))
            state["cg"] = float(cg(score, weight, padded, damping, iterations=50))
            state["cg_gram"] = theory.gram_fisher_norm(state["gram"], share[0], reward, damping)[0]
    return states


def add_norms(states: list[dict]) -> float:
    """Fill in every norm; returns the mean trace of F over mixed states, the unit of damping."""
    mixed = [s for s in states if "gram" in s]
    trace = float(np.mean([s["share"][0] @ np.diag(s["gram"]) for s in mixed]))
    for state in states:
        state |= dict.fromkeys(MEASURES[1:], 0.0)
    for s in mixed:
        sample = s["gram"], s["share"][0], s["reward"]
        s["fisher"], s["rank"] = theory.gram_fisher_norm(*sample, 0.0)
        for name, damping in DAMPING.items():
            s[f"fisher_{name}"] = theory.gram_fisher_norm(*sample, damping * trace)[0]
        s["gradient"] = theory.gradient_norm(*sample)
        s["grpo_gradient"] = s["gradient"] / (s["std_of_sample"] + ADVANTAGE_EPS)
        advantage = theory.natural_direction(*sample, DAMPING[CROSSFIT] * trace)
        seen = s["share"][0] > 0
        s["crossfit"] = weighted_pearson(s["reward"], advantage, s["share"][1])
        s["crossfit_new"] = weighted_pearson(s["reward"], advantage, np.where(seen, 0, s["share"][1]))
    return trace


def weighted_pearson(x, y, weight) -> float:
    """Weighted Pearson correlation; NaN if x or y does not vary among the items with weight."""
    if not weight.sum() or np.ptp(x[weight > 0]) == 0 or np.ptp(y[weight > 0]) == 0:
        return float("nan")
    weight = weight / weight.sum()
    x, y = x - weight @ x, y - weight @ y
    return float(weight @ (x * y) / np.sqrt((weight @ x**2) * (weight @ y**2)))


def bootstrapped(measure, x, y, clusters, seed: int, draws: int = 2000) -> list[float]:
    """[value, low, high]: a 95 % percentile interval from resampling whole trajectories."""
    x, y = np.asarray(x), np.asarray(y)
    index = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
    members = [np.flatnonzero([index[c] == i for c in clusters]) for i in range(len(index))]
    rng, values = np.random.default_rng([seed, 3]), []
    for _ in range(draws):
        at = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        values.append(measure(x[at], y[at]))
    return [round(float(v), 4) for v in (measure(x, y), *np.nanquantile(values, [0.025, 0.975]))]


def correlations(states: list[dict], names: list[str], seed: int) -> dict:
    """Measure -> its Pearson and Spearman correlation with the profile's std, each with an interval."""
    profile = [s["std_of_profile"] for s in states]
    return {
        measure: {
            # rounded: ranks must not depend on the last bit of equal numbers
            f.__name__: bootstrapped(f, [round(s[measure], 9) for s in states], profile, names, seed)
            for f in (theory.pearson, theory.spearman)
        }
        for measure in MEASURES
    }


def mean_crossfit(states: list[dict], names: list[str], key: str, seed: int) -> dict:
    kept = [(s[key], name) for s, name in zip(states, names) if np.isfinite(s.get(key, np.nan))]
    if not kept:
        return {"states": 0}
    values, clusters = zip(*kept)
    interval = bootstrapped(lambda x, _: float(np.mean(x)), values, values, clusters, seed)
    return {"states": len(kept), "mean_correlation": interval}


def measure(quick: bool, seed: int) -> tuple[list[dict], dict]:
    """(states, summary)."""
    config, began = settings(quick, seed), time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the JSON line
        run = run_lib.open_run(config)
        resume.prepare_workdir(run)
        data = sources.load(config.data, seed)
        candidates = candidates_lib.make_candidates(run, data)[: 40 if quick else None]
        profiling.find_pivots(run, candidates)
    files = sorted((run.workdir / "rollouts").glob("*.jsonl"))
    groups = [group for file in files for group in rollout_files.groups_of(rollout_files.read(file))]
    group_of = {group[0].candidate_id: group for group in groups}
    profiled = [group_of[candidate.id] for candidate in candidates]
    prompts, size = extract.render(run.chat, candidates), config.profile.group_size
    rollouts, key = make_rollouts(run, config.profile.batch), jax.random.fold_in(jax.random.key(seed), 32)
    drawn = rollouts.sample(rollouts.actor.place(run.params), prompts, size, key)
    sampled = time.perf_counter()
    states = differentiate(run, [prompt.ids for prompt in prompts], drawn, profiled, size + min(size, SEEN))
    trace = add_norms(states)
    names = [c.trajectory_id for c in candidates]
    mixed = [i for i, s in enumerate(states) if "gram" in s]
    some = [states[i] for i in mixed]
    some_names = [names[i] for i in mixed]
    gap = [abs(s["fisher"] / s["std_of_sample"] - 1) for s in some]
    return states, {
        "policy": run.policy,
        "candidates": len(states),
        "trajectories": len(set(names)),
        "group_size": size,
        "mixed_samples": len(mixed),
        "mixed_profiles": sum(s["std_of_profile"] > 0 for s in states),
        "distinct_completions": sum(len(s["reward"]) for s in some),
        "full_rank": int(sum(s["rank"] == np.count_nonzero(s["share"][0]) for s in some)),
        "fisher_against_own_std_max_rel": max(gap),
        "fisher_against_own_std_median_rel": float(np.median(gap)),
        "cg_against_gram_max_rel": max(abs(s["cg"] / s["cg_gram"] - 1) for s in some if "cg" in s),
        "log_prob_drift_max": max(s["log_prob_drift"] for s in some),
        "mean_trace_of_fisher": trace,
        "all_states": correlations(states, names, seed),
        "mixed_states": correlations(some, some_names, seed),
        "crossfit": mean_crossfit(some, some_names, "crossfit", seed),
        "crossfit_new_completions": mean_crossfit(some, some_names, "crossfit_new", seed),
        "seconds_sampling": round(sampled - began),
        "seconds_gradients": round(time.perf_counter() - sampled),
    }


def draw(states: list[dict], path: Path) -> None:
    shown = {
        "std_of_sample": "std of the other sample",
        "fisher": "Fisher norm",
        "fisher_1": "Fisher norm, damping 1",
        "gradient": "norm of the gradient",
        "grpo_gradient": "norm of GRPO's gradient",
    }
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(shown)), shown.items()):
        points = ([s["std_of_profile"] for s in states], [s[name] for s in states])
        axes.scatter(*points, s=7, alpha=0.4, linewidths=0)
        axes.set_title(label, fontsize=8)
        axes.set_xlabel("std of the profile", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
