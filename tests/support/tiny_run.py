"""What the tests of the run path share: a mesh, an actor of a tiny policy, a chat and a verifier that need no
tokenizer, made-up candidates, and a random checkpoint that wears the embedded tokenizer."""

import dataclasses
import functools
import json
import zlib
from pathlib import Path

import jax
import numpy as np

from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import hf
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.records import Action, Candidate, Prompt, Verdict
from pivotrl_jax.rollouts.actor import Actor, BatchShape
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training.optimizer import make_optimizer
from pivotrl_jax.verifiers.base import Verifier
from support.forests import MOE, sharp_params
from support.objectives import policy_gradient
from support.paths import EMBEDDED

ASSETS = EMBEDDED

ROWS, BRANCHES, DECODE_SLOTS, SLOTS, CHUNK = (
    2,
    8,
    3,
    48,
    16,
)  # decode slots: samples wait for one, and no share is even

TRAIN_SLOTS = (96,)
STOPS = (3, 8, 13, 21, 34, 55)
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=5, stop_ids=STOPS)


@functools.cache
def mesh():
    return sharding.make_mesh({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})


@functools.cache
def policy():
    """Parameters of MOE on the mesh."""
    return jax.device_put(sharp_params(MOE), sharding.param_shardings(decoder.abstract_params(MOE), mesh()))


@functools.cache
def actor(sampling: Sampling = SAMPLING) -> Actor:
    return Actor(
        MOE,
        sampling,
        mesh(),
        shape=BatchShape(ROWS, BRANCHES, DECODE_SLOTS),
        row_lengths=[SLOTS],
        attention_chunk=CHUNK,
    )


@functools.cache
def learner(learning_rate: float = 1e-2, kl_coefficient: float = 0.0, temperature: float = 1.0):
    """A GRPO learner of MOE; 2 rows at a time."""
    optimizer = make_optimizer(learning_rate, 0, 0.0, 0.9, 0.95, 1.0)
    loss = policy_gradient(0.2, 0.28, kl_coefficient)
    compute = learner_lib.Compute(CHUNK, 16, "nothing")
    return learner_lib.Learner(
        MOE, dataclasses.replace(compute, rows=ROWS, mesh=mesh()), optimizer, loss, temperature
    )


class Numbers:
    """A chat whose text is the token ids in decimal: `Chat.decode` and `Chat.parse` of the run path."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def unknown_ids(self, ids: list[int]) -> list[int]:
        return []

    def parse(self, text: str, tools=()) -> Action:
        return Action(content=text, text=text)


class Known(Numbers):
    """It also knows the prompts of `conversations`."""

    tokenizer, stop_ids = None, STOPS

    def __init__(self, prompts: list[Prompt]):
        self._ids = {prompt.candidate.messages[0]["content"]: prompt.ids for prompt in prompts}

    def render_all(self, conversations, tools):
        return [messages[0]["content"] for messages in conversations]

    def encode(self, text):
        return self._ids[text]


def verifier(accepts, name: str = "toy") -> Verifier:
    """A verifier that accepts by the sampled token ids, as `Numbers` shows them."""

    def verify(candidate: Candidate, action: Action) -> Verdict:
        return Verdict(float(accepts([int(word) for word in action.text.split()])), "toy")

    return Verifier(name, "1", verify, lambda case: None)


def odd_first(ids: list[int]) -> bool:
    """Accepts about half of what a random policy draws."""
    return ids[0] % 2 == 1


def candidate(trajectory: str, turn: int = 0, verifier: str = "toy", demonstration: str = "1") -> Candidate:
    return Candidate(
        id=f"{trajectory}@{turn}",
        trajectory_id=trajectory,
        turn=turn,
        messages=[{"role": "user", "content": f"{trajectory} {turn}"}],
        tools=[],
        demonstration={"role": "assistant", "content": demonstration},
        verifier=verifier,
        case={},
        scenario=trajectory,
    )


def rollouts(sampling: Sampling = SAMPLING, **fields) -> Rollouts:
    """The tiny policy's sampler, with a chat whose texts are numbers."""
    return Rollouts(actor(sampling), Numbers(), **fields)


def conversations(count: int, turns: int = 2) -> list[Prompt]:
    """Prompts at the turns of made-up trajectories: each extends the one before."""
    prompts = []
    for n in range(count):
        rng = np.random.default_rng([7, n])
        whole = rng.integers(1, MOE.vocab_size, 6 * turns + 3).astype(np.int32)
        for turn in range(turns):
            prompts.append(Prompt(candidate(f"t{n}", turn), whole[: 6 * turn + 4 + n % 3]))
    return prompts


# ---- a checkpoint on disk


def random_config() -> model_config.ModelConfig:
    """The embedded tokenizer's vocabulary on a policy of a few thousand parameters."""
    vocabulary = len(template.load_chat(ASSETS, False).tokenizer)
    return dataclasses.replace(
        MOE, vocab_size=vocabulary, hidden_size=32, num_experts=4, expert_size=16, head_dim=8, rope_theta=1e4
    )


def save_random(directory: Path) -> Path:
    """A random checkpoint in Hugging Face layout with the embedded tokenizer and template."""
    config, rng = random_config(), np.random.default_rng(0)

    def draw(path, leaf):  # loud enough that samples differ from turn to turn; no JAX program is compiled
        scale = 0.0 if path[-1].key.endswith("norm") else 0.06
        return (rng.normal(size=leaf.shape) * scale + (scale == 0)).astype(np.float32)

    hf.save(directory, config, jax.tree.map_with_path(draw, decoder.param_shapes(config)), ASSETS)
    return directory


def save_brief(directory: Path) -> Path:
    """`save_random`, and a third of all tokens ends a turn: else few completions of four tokens would
    finish."""
    file = save_random(directory) / "generation_config.json"
    stops = json.loads(file.read_text("utf-8"))
    stops["eos_token_id"] += range(0, min(stops["eos_token_id"]), 3)
    file.write_text(json.dumps(stops), "utf-8")
    return directory


def coin(text: str) -> int:
    """A fair coin that depends on the text alone."""
    return zlib.crc32(text.encode("utf-8", "replace")) & 1


def flip_coins() -> None:
    """Let a coin judge what the toolbox's verifier would: random policies then have pivots. The
    demonstration, the empty action and the self-check's garbage keep their verdicts."""
    from pivotrl_jax import verifiers
    from pivotrl_jax.chat.actions import message_to_action

    fixed = (candidates_lib.EMPTY, candidates_lib.GARBAGE_CALL, candidates_lib.GARBAGE_TEXT)

    def verify(candidate: Candidate, action: Action) -> Verdict:
        if action in fixed:
            return Verdict(0.0, "garbage")
        gold = action == message_to_action(candidate.demonstration)
        return Verdict(1.0 if gold else float(coin(action.text)), "coin")

    real = verifiers.VERIFIERS["bfcl_multi_turn"]
    verifiers.VERIFIERS["bfcl_multi_turn"] = dataclasses.replace(real, version="coin", verify=verify)
