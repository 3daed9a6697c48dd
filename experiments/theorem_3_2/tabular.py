"""Theorem 3.2 at tabular states, in float64: both claims exactly, and claim (ii) for finite groups.

The Fisher matrix, gradients and -d/dbeta log pi_beta come from automatic differentiation (theory.py), never
from the closed forms that the theorem states.
"""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from pivotrl_jax.training import advantages

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see theory.py
import theory

SIZES = (2, 3, 5, 8, 16)  # actions of a tabular state
GROUPS = (2, 4, 8, 16, 32, 64)
ADVANTAGE_EPS = 1e-6  # as in configs/bfcl.py


def random_states(rng: np.random.Generator, count: int, size: int, binary: bool):
    """(logits, rewards, beta) of `count` states; every state's rewards vary."""
    logit_SA = rng.normal(size=(count, size)) * 2
    if binary:
        reward_SA = (rng.random((count, size)) < 0.5).astype(np.float64)
        reward_SA[:, 0], reward_SA[:, 1] = 0.0, 1.0
        reward_SA = rng.permuted(reward_SA, axis=1)
    else:
        reward_SA = rng.normal(size=(count, size))
    return logit_SA, reward_SA, np.exp(rng.uniform(np.log(0.3), np.log(3.0), count))


def errors(found: np.ndarray, want: np.ndarray) -> dict:
    gap = np.abs(found - want)
    return {"max_abs_error": float(gap.max()), "max_rel_error": float((gap / want).max())}


def claims(states: int, seed: int) -> dict:
    """Errors of both claims at random states, half of them with binary rewards."""
    sides: dict[str, list[np.ndarray]] = {"norm": [], "std": [], "score": [], "std_over_beta2": []}

    def compute(logit_A, reward_A, beta):
        log_prob_A = jax.nn.log_softmax(logit_A)
        tilted_A = theory.tilt(log_prob_A, reward_A, beta)
        return {
            "norm": theory.natural_gradient_norm(logit_A, reward_A),
            "std": theory.reward_std(log_prob_A, reward_A),
            "score": theory.population_grpo_score(log_prob_A, reward_A, beta),
            "std_over_beta2": theory.reward_std(tilted_A, reward_A) / beta**2,
        }

    rng = np.random.default_rng([seed, 1])
    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(compute))
        for size in SIZES:
            for binary in (True, False):
                count = states // (2 * len(SIZES))
                for name, value in run(*random_states(rng, count, size, binary)).items():
                    sides[name].append(np.asarray(value))
    flat = {name: np.concatenate(values) for name, values in sides.items()}
    return {
        "states": len(flat["std"]),
        "natural_gradient": errors(flat["norm"], flat["std"]),
        "grpo_score": errors(flat["score"], flat["std_over_beta2"]),
        "std_range": [float(flat["std"].min()), float(flat["std"].max())],
    }


# name of a state -> (probabilities under the tilted policy, rewards)
EXAMPLES = {
    "pass rate 0.5": ([0.5, 0.5], [0.0, 1.0]),
    "pass rate 0.1": ([0.9, 0.1], [0.0, 1.0]),
    "pass rate 0.02": ([0.98, 0.02], [0.0, 1.0]),
    "continuous": (np.full(64, 1 / 64), np.linspace(-1, 1, 64)),
}


def exact_mean(pass_rate: float, size: int) -> float:
    """E[std of `size` Bernoulli samples] over the population's std: what the Monte Carlo must agree with."""
    k = np.arange(size + 1)
    chance = np.array([math.comb(size, i) * pass_rate**i * (1 - pass_rate) ** (size - i) for i in k])
    return float(chance @ np.sqrt(k * (size - k)) / size / math.sqrt(pass_rate * (1 - pass_rate)))


def groups(draws: int, seed: int, beta: float = 1.0) -> dict:
    """The estimate (1/G) sum_i A_i (-d/dbeta log pi(a_i)) over sigma / beta^2: mean, standard error, spread.

    Actions come from pi_beta, A_i from advantages.group_advantages, the score from automatic differentiation.
    """
    found = {}
    for number, (name, (p, reward_A)) in enumerate(EXAMPLES.items()):
        rng = np.random.default_rng([seed, 2, number])
        p_A, reward_A = np.asarray(p, np.float64), np.asarray(reward_A, np.float64)
        with jax.enable_x64(True):
            log_prob_A = jnp.log(p_A) - reward_A / beta  # log pi_0, chosen so that pi_beta is p
            score_A = np.asarray(theory.path_score(log_prob_A, jnp.asarray(reward_A), jnp.float64(beta)))
            want = float(theory.population_grpo_score(log_prob_A, jnp.asarray(reward_A), jnp.float64(beta)))
        found[name] = {}
        for size in GROUPS:
            action_DG = rng.choice(len(p_A), size=(draws, size), p=p_A)
            advantage_DG = advantages.group_advantages(reward_A[action_DG], ADVANTAGE_EPS)
            ratio_D = (advantage_DG * score_A[action_DG]).mean(1) / want
            entry = {
                "mean": float(ratio_D.mean()),
                "standard_error": float(ratio_D.std(ddof=1) / math.sqrt(draws)),
                "std": float(ratio_D.std(ddof=1)),
                "all_equal": float((np.ptp(reward_A[action_DG], axis=1) == 0).mean()),
            }
            if name.startswith("pass"):
                entry["exact_mean"] = exact_mean(p_A[1], size)
            found[name][str(size)] = entry
    return found


def draw(found: dict, path: Path) -> None:
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, by_size in found.items():
        entries = list(by_size.values())
        mean, error = ([e[key] for e in entries] for key in ("mean", "standard_error"))
        (line,) = left.plot(GROUPS, mean, marker="o", markersize=3, label=name)
        left.errorbar(GROUPS, mean, yerr=2 * np.array(error), fmt="none", color=line.get_color())
        right.plot(GROUPS, [e["std"] for e in entries], marker="o", markersize=3, color=line.get_color())
    left.axhline(1, color="0.6", linewidth=0.8)
    left.set_ylabel("mean estimate / (sigma / beta²)")
    right.set_ylabel("its standard deviation")
    left.legend(frameon=False, fontsize=7)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(GROUPS, [str(size) for size in GROUPS])
        axes.set_xlabel("group size G")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
