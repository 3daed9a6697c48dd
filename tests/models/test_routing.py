"""Routers: what the sampler chose is what a plain forward chooses; replaying it changes nothing, replaying
something else does what it says; agreement and the load-balance loss are what a loop computes."""

import dataclasses
import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import learning, tiny_run
from support.configs import CONFIGS
from support.forests import MOE, sharp_params
from support.objectives import policy_gradient
from support.paths import SUPPORT

from pivotrl_jax import verifiers
from pivotrl_jax.models import decoder, experts, forest, routing
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.actor import Actor, BatchShape, Request
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import recipe

L, A, E = MOE.num_layers, MOE.experts_per_token, MOE.num_experts
COMPUTE = learner_lib.Compute(tiny_run.CHUNK, 16, "nothing")
STREAM = jax.random.key(5)
PROMPTS = {"a": [4, 9, 16, 25, 36], "b": [4, 9, 16, 40, 41, 12, 7], "c": [50, 2, 17]}


@pytest.fixture(scope="module")
def actor():
    return Actor(
        MOE,
        tiny_run.SAMPLING,
        tiny_run.mesh(),
        shape=BatchShape(tiny_run.ROWS, tiny_run.BRANCHES, tiny_run.DECODE_SLOTS),
        row_lengths=[tiny_run.SLOTS],
        attention_chunk=tiny_run.CHUNK,
        record_experts=True,
    )


@pytest.fixture(scope="module")
def drawn(actor):
    """(prompt, completion) of every sample; two prompts of one tree, one of another."""
    requests = [Request(k, p, "t" if k != "c" else "u", 3) for k, p in PROMPTS.items()]
    groups = actor.act(actor.place(tiny_run.policy()), requests, STREAM)
    return [(r.prompt, one) for r, group in zip(requests, groups) for one in group]


def plain(params, tokens):
    """(hidden [T, D], every router's own choice [L, T, A]) of one sequence."""
    row = np.array([tokens])
    position, end = np.arange(len(tokens))[None], np.full(row.shape, len(tokens))
    rows, outputs = decoder.Rows(row, position, end), routing.RouterOutputs(choices=True)
    hidden, stats = decoder.routed_states(MOE, params, rows, len(tokens), "nothing", outputs)
    return hidden[0], np.asarray(stats["choices"][:, 0])


def test_the_sampler_records_what_a_plain_forward_chooses(drawn):
    for prompt, one in drawn:
        _, want = plain(tiny_run.policy(), [*prompt, *one.token_ids])
        want = want.swapaxes(0, 1)
        np.testing.assert_array_equal(one.prompt_experts, want[: len(prompt)])
        np.testing.assert_array_equal(one.experts[:-1], want[len(prompt) : -1])
        assert (one.experts[-1] == -1).all()  # nothing read it
    assert len({tuple(one.token_ids) for _, one in drawn}) > 3


def test_samples_of_a_prompt_share_its_record_and_keep_no_padding(drawn):
    for (prompt, one), (other_prompt, other) in itertools.pairwise(drawn):
        assert (one.prompt_experts is other.prompt_experts) == (prompt is other_prompt)
        assert one.experts.base is None and one.experts.dtype == np.int8
    assert routing.record_dtype(128) == np.int8 and routing.record_dtype(129) == np.int16


def batch_of(drawn):
    """Two prompts with three completions each and one with three, packed, with the sampler's experts."""
    pieces = [[forest.Piece(i, p, [one.token_ids]) for i, (p, one) in enumerate(drawn)]]
    packed = forest.pack_shortest(pieces, (96,), 1)
    fields = {
        n: np.zeros(packed.tokens.shape, np.float32) for n in ("weight", "behaviour_log_prob", "advantage")
    }
    chosen = np.full((*packed.tokens.shape, L, A), -1, np.int16)
    for placed in packed.placed:
        prompt, one = drawn[placed.key]
        path = forest.path_to(packed.subtree_end[placed.row], placed.prompt_slot)
        assert packed.tokens[placed.row, path].tolist() == list(prompt)
        chosen[placed.row, path] = one.prompt_experts
        packed.write(chosen, placed, 0, one.experts)
        packed.write(fields["weight"], placed, 0, np.full(len(one.token_ids), 0.1))
        packed.write(fields["behaviour_log_prob"], placed, 0, one.log_probs)
        packed.write(fields["advantage"], placed, 0, np.linspace(-1, 2, len(one.token_ids)))
    return {**packed.arrays(), **fields, "experts": chosen}


def gradient(routers, batch, params):
    """(loss with the routers' terms, sums, gradient)."""

    def total(params):
        numbers, seen = learner_lib.routed_log_probs(MOE, COMPUTE, params, batch, 1.0, routers)
        value, sums = policy_gradient(0.2, 0.28, 0.0)(*numbers, batch)
        more, told = routers.terms(seen, batch)
        return value + more, {**sums, **told}

    (value, sums), grads = jax.value_and_grad(total, has_aux=True)(params)
    return value, sums, grads


def test_replaying_ones_own_choices_changes_nothing(drawn):
    batch, params = batch_of(drawn), sharp_params(MOE)
    value, _, grads = gradient(learner_lib.Routers(), batch, params)
    again, sums, more = gradient(learner_lib.Routers(replay=True, agreement=True), batch, params)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), more, grads)
    same, compared = sums["routing_agreement"]
    assert same == compared == sum(len(one.token_ids) - 1 for _, one in drawn) * L * A


def naive_mixture(x, router, gate, up, down, chosen):
    """Token by token in float64: weights are the softmax at the chosen experts, normalised as config says."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        logits = x[t] @ router
        p = np.exp(logits - logits.max())
        weight = (p / p.sum())[chosen[t]]
        weight = weight / weight.sum() if MOE.norm_topk_prob else weight
        for w, e in zip(weight, chosen[t]):
            g = x[t] @ gate[e]
            out[t] += w * ((g / (1 + np.exp(-g)) * (x[t] @ up[e])) @ down[e])
    return out


def test_other_choices_are_replayed_as_a_loop_computes_them():
    rng = np.random.default_rng(0)
    M, D, F = 12, 6, 5
    x, router = rng.normal(size=(M, D)), rng.normal(size=(D, E))
    gate, up, down = (rng.normal(size=s) for s in ((E, D, F), (E, D, F), (E, F, D)))
    chosen = np.array([rng.permutation(E)[:A] for _ in range(M)])
    recorded = chosen.copy()
    recorded[3] = -1  # nobody recorded it
    probs = experts.probabilities(*map(jnp.float32, (x, router)))
    weight, expert, own = experts.choose(probs, A, MOE.norm_topk_prob, jnp.int16(recorded))
    chosen[3] = np.asarray(own)[3]
    np.testing.assert_array_equal(np.sort(own), np.sort(np.argsort(-(x @ router))[:, :A]))
    got = experts.expert_mlp(jnp.float32(x), weight, expert, *map(jnp.float32, (gate, up, down)))
    np.testing.assert_allclose(got, naive_mixture(x, router, gate, up, down, chosen), rtol=1e-4, atol=1e-4)


def test_replayed_choices_reach_their_layer_and_their_slot(drawn):
    """Changing one layer's choice at one completion token changes that token's children alone."""
    batch, params = batch_of(drawn), sharp_params(MOE)
    routers = learner_lib.Routers(replay=True)

    def log_probs(batch):
        return np.asarray(learner_lib.routed_log_probs(MOE, COMPUTE, params, batch, 1.0, routers)[0][0])

    before = log_probs(batch)
    row, slot = np.argwhere((batch["weight"] > 0) & (batch["experts"][..., 0, 0] >= 0))[0]
    changed = {**batch, "experts": batch["experts"].copy()}
    others = [e for e in range(E) if e not in changed["experts"][row, slot, L - 1]]
    changed["experts"][row, slot, L - 1] = others[:A]
    different = np.argwhere(np.abs(log_probs(changed) - before) > 1e-6)
    children = np.argwhere((batch["parent"] == slot) & (batch["weight"] > 0))
    children = children[children[:, 0] == row]
    assert len(children) and different.tolist() == children.tolist()


def test_agreement_counts_what_a_loop_counts(drawn):
    batch, params = batch_of(drawn), sharp_params(MOE)
    key = jax.random.key(3)
    shaken = jax.tree.map_with_path(
        lambda path, x: x + jax.random.normal(key, x.shape) * 0.3 if path[-1].key == "router" else x, params
    )
    _, sums, _ = gradient(learner_lib.Routers(agreement=True), batch, shaken)
    same = compared = 0
    for prompt, one in drawn:
        _, own = plain(shaken, [*prompt, *one.token_ids])
        for t in range(len(one.token_ids) - 1):
            for layer in range(L):
                mine = set(own[layer, len(prompt) + t].tolist())
                same += sum(int(e) in mine for e in one.experts[t, layer])
                compared += A
    assert [int(x) for x in sums["routing_agreement"]] == [same, compared]
    assert 0.2 < same / compared < 0.98


def naive_balance(probs_LME, chosen_LMA):
    """transformers' load_balancing_loss_func, all layers' tokens in one list."""
    probs, chosen = probs_LME.reshape(-1, E), chosen_LMA.reshape(-1, A)
    fraction = np.stack([np.eye(E)[chosen[:, k]].mean(0) for k in range(A)])
    return E * (fraction * probs.mean(0)).sum()


def test_the_balance_loss_is_transformers_formula_and_pulls_towards_even_loads():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(E), size=(L, 10)).astype(np.float32)
    chosen = np.argsort(-probs)[..., :A]
    real = np.array([[1.0] * 7 + [0.0] * 3], np.float32)  # the last three are padding

    def loss(probs):
        outputs = routing.RouterOutputs(loads=True)
        layers = [routing.router_stats(outputs, p, None, c, real) for p, c in zip(probs, chosen)]
        stats = {name: jnp.stack([layer[name] for layer in layers]) for name in ("load", "prob")}
        return routing.balance_loss(stats, real)[0]

    want = naive_balance(probs[:, :7].astype(np.float64), chosen[:, :7])
    np.testing.assert_allclose(loss(jnp.asarray(probs)), want, rtol=1e-5)
    grad = np.asarray(jax.grad(loss)(jnp.asarray(probs)))
    load = np.eye(E)[chosen[:, :7]].sum(2).reshape(-1, E).mean(0)
    np.testing.assert_allclose(grad[:, :7], np.broadcast_to(E * load / (7 * L), (L, 7, E)), rtol=1e-5)
    assert (grad[:, 7:] == 0).all()


def test_the_balance_loss_equals_transformers_own():
    torch = pytest.importorskip("torch")
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    rng = np.random.default_rng(2)
    logits = rng.normal(size=(L, 9, E)).astype(np.float32)
    want = load_balancing_loss_func(tuple(torch.tensor(x) for x in logits), E, A)
    probs = np.asarray(jax.nn.softmax(logits, -1))
    assert naive_balance(probs, np.argsort(-probs)[..., :A]) == pytest.approx(float(want), rel=1e-5)


def test_a_step_reports_its_balance_loss_and_lowers_it(drawn):
    batch = {name: x for name, x in batch_of(drawn).items() if name != "experts"}
    batch["advantage"] = np.zeros_like(batch["advantage"])
    routers = learner_lib.Routers(balance=1.0)
    learner = learner_lib.Learner(
        MOE,
        dataclasses.replace(COMPUTE, rows=1, mesh=tiny_run.mesh()),
        optax.sgd(0.05),
        policy_gradient(0.2, 0.28, 0.0),
        1.0,
        routers=routers,
    )
    state, losses = learner.init_state(tiny_run.policy()), []
    for _ in range(6):
        state, values = learner.step(state, batch)
        losses.append(values["balance_loss"])
        assert values["loss"] == pytest.approx(values["balance_loss"], abs=1e-6)  # advantages are 0
    assert losses[-1] < losses[0]
    assert losses[0] > A * 0.99  # top_k is what even loads give


def test_learning_with_replay_trains_and_says_how_far_choices_agree(tmp_path, actor, monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    optimizer, loss = optax.sgd(1e-2), policy_gradient(0.2, 0.28, 0.0)
    routers = learner_lib.Routers(replay=True, agreement=True)
    learner = learner_lib.Learner(
        MOE,
        dataclasses.replace(COMPUTE, rows=tiny_run.ROWS, mesh=tiny_run.mesh()),
        optimizer,
        loss,
        1.0,
        routers=routers,
    )
    rollouts = Rollouts(actor, tiny_run.Numbers())
    learning.learn(tmp_path, learner=learner, rollouts=rollouts)
    lines = learning.metrics(tmp_path)
    assert [line["routing_agreement"] for line in lines] == [1.0] * 4  # one update a batch, float32
    assert max(line["log_prob_drift"] for line in lines) < 1e-5
    assert max(line["grad_norm"] for line in lines) > 0


def test_a_microbatch_is_a_choice_of_speed_only_without_the_balance_loss():
    grpo = CONFIGS.get_config().grpo
    assert "microbatch_rows" not in recipe.fixed(grpo)
    grpo.balance_coefficient = 0.01
    assert recipe.fixed(grpo)["microbatch_rows"] == grpo.microbatch_rows


def test_a_dense_model_has_no_router():
    dense = dataclasses.replace(MOE, num_experts=0)
    assert not any(moe for *_, moe in dense.segments())

    config = CONFIGS.get_config()
    config.grpo.router = "replay"
    with pytest.raises(InputError, match="the model is dense"):
        recipe.grpo_learner(config, dense, tiny_run.mesh())


def test_four_devices_replay_compare_and_balance_as_one():
    """Experts and heads over two devices each, and rows over four; one of the model's layers is dense."""
    script = SUPPORT.joinpath("routed_step.py")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) == 2
    for one in found:
        assert one["same_record"] and max(one["means"], one["params"]) < 1e-4
        assert 0 < one["routing_agreement"] < 1 < one["balance_loss"]
