"""SFT on whole trajectories: loss and gradient of a row per turn, at the price of one path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import templates
from support.forests import path_tokens
from support.qwen3_chat import QWEN3, save_tokenizer

from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.checkpoints.locate import EMBEDDED
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import Action, Call, InputError, Trajectory
from pivotrl_jax.run.options import defaults
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives, recipe, sft_turns
from pivotrl_jax.training.batches import Turn, sft_batch
from pivotrl_jax.trajectories import extract

ROWS, SLOTS = 2, (24, 32)
TURNS = 8  # at most, of a case
COMPUTE = learner_lib.Compute(attention_chunk=16, log_prob_chunk=8, remat="nothing")


def trajectory(name: str, seed: int, turns: int = 3, rewrite: bool = False) -> list[Turn]:
    """Prompts that repeat all before them; with `rewrite` without the first token of every earlier turn, as
    a template that strips old reasoning."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(1, 61, n).tolist()  # noqa: E731
    out, prompt = [], draw(4)
    for n in range(turns):
        completion = draw(n + 2)
        out.append(Turn(name, prompt, completion))
        prompt = [*prompt, *completion[int(rewrite) :], *draw(2)]
    return out


CASES = {
    "stable": trajectory("a", 0) + trajectory("b", 1, 2),
    "rewritten": trajectory("a", 0, rewrite=True) + trajectory("b", 1, 2),
    "cut": trajectory("a", 0, 4, rewrite=True) + trajectory("b", 0, 4),
    "twice": trajectory("a", 0) + trajectory("a", 0),
}


def padded(turns):
    """tokens and weights [TURNS, L] of a padded batch with a turn per row."""
    tokens, weight = np.zeros((TURNS, SLOTS[0]), np.int32), np.zeros((TURNS, SLOTS[0]), np.float32)
    for row, turn in enumerate(turns):
        stop = len(turn.prompt) + len(turn.completion)
        tokens[row, :stop] = [*turn.prompt, *turn.completion]
        weight[row, len(turn.prompt) : stop] = 1 / sum(len(turn.completion) for turn in turns)
    return tokens, weight


@pytest.fixture(scope="module", params=["moe", "dense"])
def policy(request):
    """(params, loss and gradient of a padded batch, learner whose step shows the gradient)."""
    config, params = (request.getfixturevalue(name) for name in (request.param, request.param + "_params"))

    def loss(params, tokens, weight):
        log_probs = jax.nn.log_softmax(decoder.logits(config, params, tokens)[:, :-1])
        log_prob = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        return -(log_prob * weight[:, 1:]).sum()

    mesh = sharding.make_mesh({})
    learner = learner_lib.Learner(
        config,
        dataclasses.replace(COMPUTE, rows=ROWS, mesh=mesh),
        optax.sgd(1.0),
        objectives.negative_log_likelihood,
        1.0,
    )
    return params, jax.jit(jax.value_and_grad(loss)), learner


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_a_row_per_turn(policy, name):
    params, naive, learner = policy
    want, grads = naive(params, *padded(CASES[name]))
    state, means = learner.step(learner.init_state(params), sft_batch(CASES[name], SLOTS[:1], ROWS))
    np.testing.assert_allclose(means["loss"], want, rtol=1e-5)
    for (path, after), before, grad in zip(
        jax.tree.leaves_with_path(state.params), jax.tree.leaves(params), jax.tree.leaves(grads)
    ):
        np.testing.assert_allclose(before - after, grad, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    assert learner.accumulate._cache_size() == 1


@pytest.mark.parametrize("name, trees", [("stable", 2), ("rewritten", 2), ("cut", 3), ("twice", 1)])
def test_trees_of_the_cases(name, trees):
    batch = sft_batch(CASES[name], SLOTS[:1], ROWS)
    assert ((batch["subtree_end"] > 0) & (batch["parent"] < 0)).sum() == trees


def test_a_trajectory_takes_its_length():
    turns = trajectory("a", 0, 4)
    batch = sft_batch(turns, (32,), ROWS)
    whole = [*turns[-1].prompt, *turns[-1].completion]
    assert batch["tokens"][0].tolist() == whole + [0] * 8
    assert (batch["subtree_end"] > 0).sum() == 24


def test_a_rewritten_history_takes_what_is_new():
    turns = trajectory("a", 0, 3, rewrite=True)
    batch = sft_batch(turns, (64,), ROWS)
    distinct = {
        tuple([*t.prompt, *t.completion][:n])
        for t in turns
        for n in range(1, len(t.prompt) + len(t.completion) + 1)
    }
    assert (batch["subtree_end"] > 0).sum() == len(distinct) > 16


@pytest.mark.parametrize("name", CASES)
def test_the_completions_weigh_one_in_all_and_prompts_nothing(name):
    turns = CASES[name]
    batch = sft_batch(turns, SLOTS[:1], ROWS)
    weight = batch["weight"]
    trained = {tuple([*t.prompt, *t.completion[: n + 1]]) for t in turns for n in range(len(t.completion))}
    packed = type("Packed", (), batch)
    found = {tuple(path_tokens(packed, r, s)) for r, s in zip(*np.nonzero(weight))}
    assert found == trained and abs(weight.sum() - 1) < 1e-6
    assert weight.shape[0] % ROWS == 0


def test_what_cannot_be_trained_on_is_a_sentence():
    with pytest.raises(InputError, match="0 turns have no token to train"):
        sft_batch([], SLOTS, ROWS)
    with pytest.raises(InputError, match="33 tokens exceed the largest shape 32"):
        sft_batch([Turn("a", [1] * 30, [2] * 3)], SLOTS, ROWS)


@pytest.mark.parametrize(
    "count, epochs, steps", [(23, 1, 2), (40, 1, 3), (40, 3, 8), (16, 0.5, 1), (3, 1, 1)]
)
def test_no_trajectory_is_left_out_by_rounding(count, epochs, steps):
    assert sft_turns.steps_of(epochs, count, 16) == steps


# ---- which turns


def test_calls_that_the_template_does_not_write_are_neither_imitated_nor_missing_from_a_history(tmp_path):
    call = action_to_message(Action("", "", (Call("look", {"where": "here"}),)))
    said = {"role": "user", "content": "What is here?"}, {"role": "assistant", "content": "A cat."}
    result = {"role": "tool", "tool_call_id": "call_0", "name": "look", "content": "cat"}
    trajectories = [Trajectory("a", [*said, said[0], call, result, said[1]], [], "openai", "a", "exact")]
    turns, left_out = sft_turns.turns_of(templates.chat(tmp_path, ""), trajectories, 10_000, 10_000)
    assert [len(several) for several in turns] == [1] and list(left_out) == ["a@3", "a@5"]
    assert all("writes no tool calls" in why for why in left_out.values())


def test_reasoning_that_the_template_does_not_write_is_counted(tmp_path):
    ask, thought = {"role": "user", "content": "q"}, action_to_message(Action("a", "hm"))
    trajectories = [
        Trajectory("a", [ask, thought, ask, thought, ask], [], "openai", "a", "exact", skip={1: "x"})
    ]
    assert sft_turns.reasoning_lost(templates.chat(tmp_path, ""), trajectories) == 1
    assert sft_turns.reasoning_lost(load_chat(save_tokenizer(tmp_path, QWEN3), False), trajectories) == 0


def test_turns_that_make_no_candidate_are_not_imitated():
    said = [{"role": r, "content": f"{r} {i}"} for i, r in enumerate(("user", "assistant") * 5)]
    greeting = {"role": "assistant", "content": "Hello!"}
    skip = {3: "context", 5: "unparseable_call", 7: "call_error"}
    trajectories = [
        Trajectory("a", said, [], "openai", "a", "exact", skip=skip),
        Trajectory("b", said[:2], [], "openai", "b", "exact", skip={1: "repeated"}),
        Trajectory("c", [greeting, *said[:2]], [], "openai", "c", "exact"),
    ]
    chat = load_chat(EMBEDDED, keep_thinking=False)
    turns, left_out = sft_turns.turns_of(chat, trajectories, 10_000, 10_000)
    assert left_out == {} and [[t.trajectory_id for t in several] for several in turns] == [["a", "a"], ["c"]]
    candidates = extract.extract(trajectories)
    assert [c.id for c in candidates] == ["a@1", "a@9", "c@2"], "what PivotRL learns from"
    for turn, c in zip([turn for several in turns for turn in several], candidates, strict=True):
        assert turn.prompt.tolist() == chat.prompt_ids(list(c.messages), [])
        assert chat.decode(turn.completion) == c.demonstration["content"]
    assert sft_turns.skipped(trajectories) == {
        "context": 1,
        "unparseable_call": 1,
        "call_error": 1,
        "repeated": 1,
    }
    limit = len(turns[0][0].prompt) + len(turns[0][0].completion)
    for bounds in ((10_000, limit), (len(turns[0][0].prompt), 10_000)):
        short, left_out = sft_turns.turns_of(chat, trajectories, *bounds)
        assert [len(several) for several in short][:1] == [1] and "a@9" in left_out


@pytest.mark.parametrize(
    "decay, warmup, marked", [("linear", 2, True), ("linear", 0, False), ("none", 2, False)]
)
def test_a_checkpoint_of_another_curve_is_not_continued(decay, warmup, marked):
    c = defaults().sft
    c.decay, c.warmup_steps = decay, warmup
    assert ("falls" in recipe.fixed_sft(c)) is marked
