"""Theorem 3.3 at tabular states, in float64: the KL-least policy found by Newton's method compared with the
closed form, and three ways of training to the same mass on M(s)."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see theory.py
import theory

SIZES = (3, 5, 8, 16, 32)  # actions of a tabular state
NEWTON_STEPS = 60
STRIDE = 0.02  # length of a step of logits along a training path
MOST_STEPS = 20_000


def random_states(rng: np.random.Generator, count: int, size: int):
    """(log pi_0, M(s) as 0 and 1, target mass, demonstration in M(s)). M(s) is neither empty nor everything;
    the target mass is above that of pi_0."""
    logit_SA = rng.normal(size=(count, size)) * 2
    log_prob_SA = logit_SA - np.log(np.exp(logit_SA).sum(1, keepdims=True))
    inside_SA = (rng.random((count, size)) < 0.4).astype(np.float64)
    inside_SA[:, 0], inside_SA[:, 1] = 0.0, 1.0
    inside_SA = rng.permuted(inside_SA, axis=1)
    before_S = (np.exp(log_prob_SA) * inside_SA).sum(1)
    mass_S = before_S + (1 - before_S) * rng.uniform(0.1, 0.95, count)
    demonstration_S = (inside_SA * rng.random((count, size))).argmax(1)
    return log_prob_SA, inside_SA, mass_S, demonstration_S


def spread(log_ratio_A, member_A):
    """Largest minus smallest log(pi / pi_0) among members: 0 when their ratios are those of pi_0."""
    return jnp.where(member_A, log_ratio_A, -jnp.inf).max() - jnp.where(member_A, log_ratio_A, jnp.inf).min()


def ratios(log_prob_A, policy_A, inside_A) -> dict:
    log_ratio_A = policy_A - log_prob_A
    return {
        "inside": spread(log_ratio_A, inside_A > 0),
        "outside": spread(log_ratio_A, inside_A == 0),
        "kl": jnp.exp(policy_A) @ log_ratio_A,
        "mass": jnp.exp(policy_A) @ inside_A,
    }


# ascent directions in logits that raise the mass on M(s)
def sft(policy_A, inside_A, demonstration):
    return jax.grad(lambda z: jax.nn.log_softmax(z)[demonstration])(policy_A)


def plain(policy_A, inside_A, demonstration):
    return jax.grad(lambda z: jax.nn.softmax(z) @ inside_A)(policy_A)


def natural(policy_A, inside_A, demonstration):
    score_AA = jax.jacobian(jax.nn.log_softmax)(policy_A)
    fisher_AA = jnp.einsum("a,ai,aj->ij", jnp.exp(policy_A), score_AA, score_AA)
    return jnp.linalg.pinv(fisher_AA, hermitian=True) @ plain(policy_A, inside_A, demonstration)


DIRECTIONS = {"SFT on one demonstration": sft, "gradient of J": plain, "natural gradient of J": natural}


def train(direction, log_prob_A, inside_A, mass, demonstration):
    """log pi at the end of the path along `direction` from pi_0, where M(s) has the target mass."""

    def short(state):
        logit_A, steps = state
        return (jax.nn.softmax(logit_A) @ inside_A < mass) & (steps < MOST_STEPS)

    def step(state):
        logit_A, steps = state
        ascent_A = direction(jax.nn.log_softmax(logit_A), inside_A, demonstration)
        return logit_A + STRIDE * ascent_A / jnp.linalg.norm(ascent_A), steps + 1

    return jax.nn.log_softmax(jax.lax.while_loop(short, step, (log_prob_A, 0))[0])


def least_kl(states: int, seed: int, sizes=SIZES) -> dict:
    """How far Newton's policy is from the closed form, and its ratios inside and outside M(s)."""

    def compute(log_prob_A, inside_A, mass, demonstration):
        found_A, residual = theory.least_kl_numeric(log_prob_A, inside_A, mass, NEWTON_STEPS)
        closed_A = theory.least_kl_closed_form(log_prob_A, inside_A, mass)
        gaps = {
            "probability_error": jnp.abs(jnp.exp(found_A) - jnp.exp(closed_A)).max(),
            "log_prob_error": jnp.abs(found_A - closed_A).max(),
            "residual": residual,
        }
        return {**gaps, **ratios(log_prob_A, found_A, inside_A)}

    rng, worst = np.random.default_rng([seed, 1]), {}
    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(compute))
        for size in sizes:
            found = run(*random_states(rng, states // len(sizes), size))
            for name in ("probability_error", "log_prob_error", "residual", "inside", "outside"):
                worst[name] = max(worst.get(name, 0.0), float(found[name].max()))
    worst["inside_ratio_change"], worst["outside_ratio_change"] = worst.pop("inside"), worst.pop("outside")
    return {"states": states // len(sizes) * len(sizes), **{f"max_{k}": v for k, v in worst.items()}}


def paths(states: int, seed: int, size: int = 16) -> tuple[dict, dict]:
    """(medians per way of training, one state for the figure): how reaching the mass changed ratios."""
    rng = np.random.default_rng([seed, 2])
    drawn = random_states(rng, states, size)
    log_prob_SA, inside_SA, mass_S, _ = drawn
    found, shown = {}, {"log_prob": log_prob_SA[0], "inside": inside_SA[0]}
    with jax.enable_x64(True):
        ways = {name: jax.jit(jax.vmap(partial(train, d)))(*drawn) for name, d in DIRECTIONS.items()}
        ways["least KL"] = jax.vmap(theory.least_kl_closed_form)(log_prob_SA, inside_SA, mass_S)
        for name, policy_SA in ways.items():
            sides = jax.vmap(ratios)(log_prob_SA, policy_SA, inside_SA)
            arrays = {key: np.asarray(value) for key, value in sides.items()}
            tau = [
                theory.kendall_tau(a[i == 0], b[i == 0])
                for a, b, i in zip(log_prob_SA, np.asarray(policy_SA), inside_SA)
                if (i == 0).sum() > 1
            ]
            found[name] = {
                "inside_ratio_change": float(np.median(arrays["inside"][inside_SA.sum(1) > 1])),
                "outside_ratio_change": float(np.median(arrays["outside"])),
                "kl": float(np.median(arrays["kl"])),
                "outside_tau_min": float(np.min(tau)),
                "mass_error_max": float(np.abs(arrays["mass"] - mass_S).max()),
            }
            shown[name] = np.asarray(policy_SA)[0]
    return found, shown


def draw(shown: dict, path: Path) -> None:
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    names = [*DIRECTIONS, "least KL"]
    inside = shown["inside"] > 0
    for axes, name in zip(figure.subplots(1, len(names), sharex=True, sharey=True), names):
        change = shown[name] - shown["log_prob"]
        axes.scatter(shown["log_prob"][inside], change[inside], s=14, label="in M(s)")
        axes.scatter(shown["log_prob"][~inside], change[~inside], s=14, marker="x", label="outside")
        axes.set_title(name, fontsize=8)
        axes.set_xlabel("log pi_0(a)", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("log pi(a) / pi_0(a)", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)
