"""The two sides of PivotRL's Theorems 3.2 and 3.3, each computed without using the theorem.

Tabular policies are the logits or log-probs of one state; map over states with `jax.vmap`, in float64. The
policy of a language model at a state is represented by the completions sampled there.

The scripts of theorem_3_2/ and theorem_3_3/ share this module; each puts its parent folder on the path:

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see theory.py
    import theory

Axis letters: A actions of a state, U distinct completions sampled at a state, N parameters, R rows, T slots.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder
from pivotrl_jax.training import learner, losses

# ---- Theorem 3.2, tabular


def reward_std(log_prob_A: jax.Array, reward_A: jax.Array) -> jax.Array:
    """Standard deviation of the reward under the policy."""
    p_A = jnp.exp(log_prob_A)
    return jnp.sqrt(p_A @ (reward_A - p_A @ reward_A) ** 2)


def natural_gradient_norm(logit_A: jax.Array, reward_A: jax.Array) -> jax.Array:
    """Fisher norm of the natural gradient of J_s = E_{a~pi}[r] in the logits of a softmax policy.

    The Fisher matrix is E[score score^T], with scores by automatic differentiation. The pseudo-inverse leaves
    out its null space, in which all logits move together.
    """
    p_A = jax.nn.softmax(logit_A)
    score_AA = jax.jacobian(jax.nn.log_softmax)(logit_A)  # row: d log pi(a) / d logits
    fisher_AA = jnp.einsum("a,ai,aj->ij", p_A, score_AA, score_AA)
    grad_A = jax.grad(lambda logit_A: jax.nn.softmax(logit_A) @ reward_A)(logit_A)
    natural_A = jnp.linalg.pinv(fisher_AA, hermitian=True) @ grad_A
    return jnp.sqrt(natural_A @ fisher_AA @ natural_A)


def tilt(log_prob_A: jax.Array, reward_A: jax.Array, beta: jax.Array) -> jax.Array:
    """log pi_beta, where pi_beta(a) is proportional to pi_0(a) exp(r(a) / beta)."""
    return jax.nn.log_softmax(log_prob_A + reward_A / beta)


def path_score(log_prob_A: jax.Array, reward_A: jax.Array, beta: jax.Array) -> jax.Array:
    """-d/dbeta log pi_beta(a) of every action [A], by automatic differentiation."""
    return -jax.jacfwd(tilt, argnums=2)(log_prob_A, reward_A, beta)


def population_grpo_score(log_prob_A: jax.Array, reward_A: jax.Array, beta: jax.Array) -> jax.Array:
    """gamma_{s,beta} = E_{a~pi_beta}[(r - mu) / sigma * (-d/dbeta log pi_beta(a))]. The reward must vary."""
    p_A = jnp.exp(tilt(log_prob_A, reward_A, beta))
    centred_A = reward_A - p_A @ reward_A
    advantage_A = centred_A / jnp.sqrt(p_A @ centred_A**2)
    return p_A @ (advantage_A * path_score(log_prob_A, reward_A, beta))


# ---- Theorem 3.3, tabular


def least_kl_closed_form(log_prob_A: jax.Array, inside_A: jax.Array, mass: jax.Array) -> jax.Array:
    """log pi* as the theorem states it: pi*(a) is pi_0(a) times one constant inside M(s), another outside."""
    before = jnp.exp(log_prob_A) @ inside_A
    return log_prob_A + jnp.where(inside_A > 0, jnp.log(mass / before), jnp.log((1 - mass) / (1 - before)))


def least_kl_numeric(
    log_prob_A: jax.Array, inside_A: jax.Array, mass: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """(log pi, residual): the policy with `mass` on M(s) and the least KL(pi || pi_0).

    It is found by Newton's method on the Lagrangian, started at pi_0, with automatic derivatives (Boyd and
    Vandenberghe, Convex Optimization, section 10.3, infeasible start). `residual` is the norm of what should
    be zero at the end.
    """
    constraint_2A = jnp.stack([jnp.ones_like(log_prob_A), inside_A])
    target_2 = jnp.stack([jnp.ones_like(mass), mass])
    count = len(log_prob_A)

    def lagrangian(x):
        p_A, multiplier_2 = x[:count], x[count:]
        kl = p_A @ (jnp.log(p_A) - log_prob_A)
        return kl + multiplier_2 @ (constraint_2A @ p_A - target_2)

    slope = jax.grad(lagrangian)
    lengths = 0.5 ** jnp.arange(40)

    def step(_, x):
        here = slope(x)
        trials = x + lengths[:, None] * jnp.linalg.solve(jax.hessian(lagrangian)(x), -here)
        norms = jnp.linalg.norm(jax.vmap(slope)(trials), axis=1)  # NaN where a probability is negative
        better = norms <= (1 - 0.01 * lengths) * jnp.linalg.norm(here)
        return jnp.where(better.any(), trials[better.argmax()], x)

    start = jnp.concatenate([jnp.exp(log_prob_A), jnp.zeros(2, log_prob_A.dtype)])
    x = jax.lax.fori_loop(0, steps, step, start)
    return jnp.log(x[:count]), jnp.linalg.norm(slope(x))


# ---- Theorem 3.2, the policy of a language model at one state


def completion_scores(
    config: model_config.ModelConfig,
    compute: learner.Compute,
    params: decoder.Params,
    batch: losses.Batch,
    count: jax.Array,
    most: int,
) -> tuple[jax.Array, jax.Array]:
    """log pi(completion) [U] and its gradient in all parameters [U, N], float32, U = `most`.

    `batch` is the packed forest of one prompt. In addition to the usual fields it has `branch`, int32 [R, T]:
    the number of the completion that a slot belongs to, or `most`. Results from index `count` on are zero.
    One program serves any number of completions and runs one backward pass for each.
    """

    def log_probs(params):
        log_prob_RT, _ = learner.forest_log_probs(config, compute, params, batch, 1.0)
        return jax.ops.segment_sum(log_prob_RT.ravel(), batch["branch"].ravel(), most + 1)[:most]

    log_prob_U, pull = jax.vjp(log_probs, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))

    def one(u, score_UN):
        (grad,) = pull(jax.nn.one_hot(u, most))
        return score_UN.at[u].set(ravel_pytree(grad)[0])

    return log_prob_U, jax.lax.fori_loop(0, count, one, jnp.zeros((most, size)))


RANK_CUT = 1e-6  # relative to the largest eigenvalue: the precision of a Gram matrix of float32 gradients


def _weighted(gram_UU, weight_U, reward_U) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(W^1/2, W^1/2 S S^T W^1/2, W^1/2 (r - mean)): the Fisher matrix S^T W S in the space of samples."""
    root_U = np.sqrt(np.asarray(weight_U, np.float64))
    reward_U = np.asarray(reward_U, np.float64)
    kernel_UU = root_U[:, None] * np.asarray(gram_UU, np.float64) * root_U
    return root_U, kernel_UU, root_U * (reward_U - root_U**2 @ reward_U)


def gram_fisher_norm(gram_UU, weight_U, reward_U, damping: float) -> tuple[float, int]:
    """(sqrt(g^T (F + damping)^+ g), rank of F) from the Gram matrix S S^T of the completions' scores.

    F = S^T W S is the Fisher matrix of the sampled completions, g = S^T W (r - mean) the gradient of their
    mean reward; W holds the completions' shares of the sample. The result is exact, from the eigenvectors of
    the U x U matrix.
    """
    _, kernel_UU, target_U = _weighted(gram_UU, weight_U, reward_U)
    value_U, vector_UU = np.linalg.eigh(kernel_UU)
    kept = value_U > RANK_CUT * value_U[-1]
    energy_U = (vector_UU.T @ target_U)[kept] ** 2
    return float(np.sqrt((energy_U * value_U[kept] / (value_U[kept] + damping)).sum())), int(kept.sum())


def gradient_norm(gram_UU, weight_U, reward_U) -> float:
    """Euclidean norm of g = S^T W (r - mean)."""
    _, kernel_UU, target_U = _weighted(gram_UU, weight_U, reward_U)
    return float(np.sqrt(max(target_U @ kernel_UU @ target_U, 0.0)))


def cg_fisher_norm(
    score_UN: jax.Array, weight_U: jax.Array, reward_U: jax.Array, damping: float, iterations: int
) -> jax.Array:
    """sqrt(g^T (F + damping)^-1 g) by conjugate gradients in parameter space, with products F v = S^T W S v.

    The products use the stored scores, because attention and experts define only reverse mode, so there is no
    JVP through the model.
    """
    centred_U = reward_U - weight_U @ reward_U
    grad_N = (weight_U * centred_U) @ score_UN

    def product(v_N):
        return (weight_U * (score_UN @ v_N)) @ score_UN + damping * v_N

    natural_N, _ = jax.scipy.sparse.linalg.cg(product, grad_N, tol=1e-6, maxiter=iterations)
    return jnp.sqrt(grad_N @ natural_N)


def natural_direction(gram_UU, weight_U, reward_U, damping: float) -> np.ndarray:
    """s_u . v of every completion, float64 [U], for the natural gradient v = (F + damping)^-1 g of the sample
    that `weight_U` describes. This is the advantage that v gives a completion, whether it is in the sample or
    not."""
    root_U, kernel_UU, target_U = _weighted(gram_UU, weight_U, reward_U)
    dual_U = np.linalg.solve(kernel_UU + damping * np.eye(len(kernel_UU)), target_U)
    return np.asarray(gram_UU, np.float64) @ (root_U * dual_U)


# ---- correlation and order


def pearson(x, y) -> float:
    """Pearson correlation; NaN if x or y does not vary."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale else float("nan")


def ranks(x) -> np.ndarray:
    """0-based ranks; ties get their mean rank."""
    _, inverse, count = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[inverse]


def spearman(x, y) -> float:
    """Pearson correlation of ranks."""
    return pearson(ranks(x), ranks(y))


def kendall_tau(x, y) -> float:
    """Kendall's tau-b: concordant minus discordant pairs, over the geometric mean of the number of pairs not
    tied in x and of those not tied in y (Kendall 1945). Memory grows with the square of the length. NaN if x
    or y is all ties."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x {x.shape} and y {y.shape}: want two vectors of one length")
    sign_x, sign_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    untied = np.sqrt(np.abs(sign_x).sum() * np.abs(sign_y).sum())
    return float((sign_x * sign_y).sum() / untied) if untied else float("nan")
