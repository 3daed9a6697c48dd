"""What the benchmarks share: prompts, our GRPO step, and the same step in TRL and in plain transformers.

All of them load the embedded checkpoint (Qwen3-MoE, 2.0 M parameters), or another one, in float32 and
sample at temperature 1 without stop tokens, so that every completion has the same length. The reward is 1
for an odd first token, which takes no time to compute: verifiers are left out. Peers need `pip install -e
'.[bench]'`; this file imports torch only where it uses it.

Every side runs in a process of its own (`Side`), so that the threads of one library never disturb another,
and waits while another side works. In addition to seconds it reports `cpu`, the CPU time of its threads,
which varies less on a busy machine. Set OMP_WAIT_POLICY=passive, otherwise waiting threads count too.
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import hf, hf_config, locate
from pivotrl_jax.environments import toolbox
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import Prompt
from pivotrl_jax.rollouts.actor import Actor, BatchShape, Completion, Request
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import advantages as advantages_lib
from pivotrl_jax.training import batches, learner, losses, objectives, optimizer
from pivotrl_jax.trajectories import extract

PACKAGES = ("jax", "torch", "transformers", "trl")
LEARNING_RATE, CLIP_LOW, CLIP_HIGH, EPS = 1e-6, 0.2, 0.28, 1e-6
# what a loss reads of `config.grpo`
GRPO = SimpleNamespace(
    loss="grpo", clip_low=CLIP_LOW, clip_high=CLIP_HIGH, importance="ratio", kl_coefficient=0.0, kl_in="loss"
)
PAUSE = 0.3  # seconds between sides, because OpenMP's threads spin for a while after their last work
Seconds = dict[str, float]


def say(*words) -> None:
    """Progress goes to stderr: stdout holds one line of JSON."""
    print(*words, file=sys.stderr, flush=True)


def facts(benchmark: str) -> dict:
    """What every JSON line contains: the program, the machine and the versions."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    machine = f"{platform.machine()}, {cores()} core(s), {jax.default_backend()}"
    return {"benchmark": benchmark, "machine": machine, "versions": versions}


def report(page: dict) -> None:
    def rounded(x):
        if isinstance(x, dict):
            return {key: rounded(value) for key, value in x.items()}
        if isinstance(x, list | tuple):
            return [rounded(value) for value in x]
        return float(f"{x:.4g}") if isinstance(x, float) else x

    print(json.dumps(rounded(page)))


def reward(token_ids: Sequence[int]) -> float:
    return float(token_ids[0] % 2)


def medians(times: Sequence[Seconds]) -> Seconds:
    return {part: statistics.median(t[part] for t in times) for part in times[0]}


# Sides


class Side:
    """A side in a process of its own, which runs `serve(receive, send, *args)`: it gets numbers from
    `receive` and answers each with `send`. Calling the side with a number returns its answer."""

    def __init__(self, serve: Callable, *args):
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, serve, args), daemon=True)
        self._process.start()
        theirs.close()
        self._name = serve.__name__

    def __call__(self, number: int):
        self._pipe.send(number)
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self._name} ended with exit code {self._process.exitcode}") from None

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _work(pipe, serve: Callable, args: tuple) -> None:
    os.dup2(2, 1)  # stdout is for JSON alone
    with contextlib.suppress(EOFError):  # the program has ended
        serve(pipe.recv, pipe.send, *args)


def take_turns(sides: dict[str, Callable], runs: int) -> dict[str, list]:
    """The answers of every side to the numbers 1 .. runs; the sides take turns. Answers to 0 are dropped."""
    answers = {name: [] for name in sides}
    for number in range(runs + 1):
        for name, side in sides.items():
            answers[name].append(side(number))
            say(f"{number}: {name} {answers[name][-1]}")
            time.sleep(PAUSE)
    return {name: found[1:] for name, found in answers.items()}


def fastest(name: str, options: Sequence[int], side_of: Callable[[int], Side]) -> int:
    """The option whose side takes the fewest seconds for its second step; a single option is not tried."""
    if len(options) == 1:
        return options[0]
    seconds = {}
    for option in options:
        side = side_of(option)
        seconds[option] = [side(number)["seconds"] for number in range(2)][-1]
        side.close()
    say(f"{name}: seconds by rows at a time: {seconds}")
    return min(seconds, key=seconds.get)


# Prompts


def embedded_chat() -> template.Chat:
    return template.load_chat(locate.EMBEDDED, False)


def made_up_prompt(trajectory: str, ids: list[int]) -> Prompt:
    """A prompt of a trajectory of its own, with only the fields that packing reads."""
    return Prompt(SimpleNamespace(trajectory_id=trajectory), ids)


def prompts_of(count: int, length: int) -> list[list[int]]:
    """`count` different prompts of exactly `length` tokens. Each joins the last turns' prompts of several
    episodes of the embedded world, cut at the end. No two begin with the same episode."""
    talk = embedded_chat()
    per_prompt = 1 + length // 200  # an episode's prompt has at least that many tokens
    turns = extract.extract(
        [toolbox.demonstrate(task) for task in toolbox.tasks("train", count * per_prompt, 0)]
    )
    last = {turn.trajectory_id: turn for turn in turns}
    texts = [talk.prompt_ids(turn.messages, turn.tools) for turn in last.values()]
    joined = (itertools.chain(*texts[i * per_prompt : (i + 1) * per_prompt]) for i in range(count))
    prompts = [list(ids)[:length] for ids in joined]
    if any(len(prompt) != length for prompt in prompts) or len({tuple(p) for p in prompts}) != count:
        raise ValueError(f"{count} prompts of {length} tokens: {[len(prompt) for prompt in prompts]}")
    return prompts


# Ours


def sampling_of(max_tokens: int) -> Sampling:
    """Sampling from the whole distribution, `max_tokens` tokens per completion."""
    return Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=max_tokens, stop_ids=())


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user would set for given sizes; configs/bfcl.py has the same names."""

    sampler_slots: tuple[int, ...]
    sampler_rows: int
    branches: int
    decode_slots: int
    learner_slots: tuple[int, ...]
    learner_rows: int
    devices: int
    attention_chunk: int = 128
    log_prob_chunk: int = 128

    @staticmethod
    def of(prompts: int, length: int, group: int, completion: int) -> "Settings":
        """Sampling uses one row per prompt. Learning uses one row per prompt with its group, and processes
        two rows per device at a time."""
        up = lambda n: -(-n // 128) * 128  # noqa: E731
        tree, devices = up(length + group * completion), devices_for(prompts)
        return Settings((up(length),), prompts, group, group, (tree,), 2 * devices, devices)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def devices_for(rows: int) -> int:
    """How many CPU devices to split this many rows over: one per core, as README says. A single device leaves
    cores idle in work that is too small to split, such as loops and small products."""
    return max(n for n in range(1, cores() + 1) if rows % n == 0)


def our_mesh(devices: int):
    """The mesh of that many devices. Call it before JAX is used."""
    jax.config.update("jax_num_cpu_devices", devices)
    return sharding.make_mesh({"data": -1})


def load_policy(mesh, checkpoint: Path = locate.EMBEDDED):
    """(config, parameters) of a checkpoint, float32."""
    config = hf_config.load_config(checkpoint, "float32")
    places = sharding.param_shardings(decoder.abstract_params(config), mesh)
    return config, hf.load_params(checkpoint, config, "float32", places)


def peak_gib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class OurStep:
    """One GRPO step as in training: rollouts, advantages, packing, update. The number it is called with is
    the seed. Returns seconds by part."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        group: int,
        completion: int,
        settings: Settings,
        checkpoint: Path = locate.EMBEDDED,
    ):
        mesh = our_mesh(settings.devices)
        self.config, params = load_policy(mesh, checkpoint)
        self.prompts, self.group, self.settings = prompts, group, settings
        self.actor = Actor(
            self.config,
            sampling_of(completion),
            mesh,
            shape=BatchShape(settings.sampler_rows, settings.branches, settings.decode_slots),
            row_lengths=settings.sampler_slots,
            attention_chunk=settings.attention_chunk,
        )
        self.learner = learner.Learner(
            self.config,
            learner.Compute(
                settings.attention_chunk, settings.log_prob_chunk, "nothing", settings.learner_rows, mesh=mesh
            ),
            optimizer.make_optimizer(LEARNING_RATE, 0, 0.0, 0.9, 0.95, 1.0),
            objectives.policy_gradient(GRPO),
            1.0,
        )
        self.state = self.learner.init_state(params)

    def roll_out(self, number: int) -> list[list[Completion]]:
        policy = self.actor.place(self.state.params)
        requests = [Request(str(i), p, str(i), self.group) for i, p in enumerate(self.prompts)]
        return self.actor.act(policy, requests, jax.random.key(number))

    def batch_of(self, groups: list[list[Completion]]) -> losses.Batch:
        rewards = np.array([[reward(completion.token_ids) for completion in group] for group in groups])
        advantages = advantages_lib.group_advantages(rewards, EPS)
        prompts = [made_up_prompt(str(i), ids) for i, ids in enumerate(self.prompts)]
        lengths = [[len(completion.token_ids) for completion in group] for group in groups]
        weights = advantages_lib.token_weights(lengths, "token_mean", 0)
        slots, rows = self.settings.learner_slots, self.settings.learner_rows
        return batches.grpo_batch(prompts, groups, advantages, weights, slots, rows)

    def __call__(self, number: int) -> Seconds:
        cpu, began = time.process_time(), time.perf_counter()
        groups = self.roll_out(number)
        rolled = time.perf_counter()
        batch = self.batch_of(groups)
        packed = time.perf_counter()
        self.state, values = self.learner.step(self.state, batch)
        jax.block_until_ready(self.state)
        done = time.perf_counter()
        if not np.isfinite(values["loss"]):
            raise ValueError(f"the loss of our step is {values['loss']}")
        return {
            "seconds": done - began,
            "rollout": rolled - began,
            "update": done - rolled,
            "packing": packed - rolled,
            "cpu": time.process_time() - cpu,
            "peak_gib": peak_gib(),
        }


def our_step(receive, send, *args) -> None:
    step = OurStep(*args)
    while True:
        send(step(receive()))


# Peers


def load_torch(checkpoint: Path = locate.EMBEDDED):
    """The checkpoint in transformers, in its fastest form on a CPU: SDPA attention, grouped matrix
    products of experts, and as many threads as there are cores."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(cores())
    return AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        attn_implementation="sdpa",
        experts_implementation="grouped_mm",
    )


def fixed_length(completion: int) -> dict:
    """Arguments of `generate` that sample exactly `completion` tokens from the whole distribution."""
    lengths = {"max_new_tokens": completion, "min_new_tokens": completion}
    return {**lengths, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class TorchStep:
    """The same step written by hand: `generate` with `num_return_sequences`, then forward and backward over
    the padded batch, `rows` sequences at a time, with logits of completions only, then AdamW."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        group: int,
        completion: int,
        rows: int,
        checkpoint: Path = locate.EMBEDDED,
    ):
        import torch

        self.torch, self.model = torch, load_torch(checkpoint)
        self.prompts, self.group, self.completion, self.rows = torch.tensor(prompts), group, completion, rows
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0
        )

    def roll_out(self):
        self.model.eval()
        with self.torch.no_grad():
            return self.model.generate(
                input_ids=self.prompts,
                attention_mask=self.torch.ones_like(self.prompts),
                num_return_sequences=self.group,
                **fixed_length(self.completion),
            )

    def learn(self, sequences, advantage) -> None:
        torch, C = self.torch, self.completion
        self.model.train()
        for start in range(0, len(sequences), self.rows):
            ids, weight = sequences[start : start + self.rows], advantage[start : start + self.rows, None]
            scores = self.model(input_ids=ids, logits_to_keep=C + 1).logits[:, :-1].float()
            chosen = scores.gather(-1, ids[:, -C:, None])[..., 0]
            log_prob = chosen - scores.logsumexp(-1)
            ratio = torch.exp(log_prob - log_prob.detach())  # on-policy: the behaviour policy is this one
            clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
            loss = -torch.minimum(ratio * weight, clipped * weight).sum() / (len(sequences) * C)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def __call__(self, number: int) -> Seconds:
        self.torch.manual_seed(number)
        cpu, began = time.process_time(), time.perf_counter()
        sequences = self.roll_out()
        rolled = time.perf_counter()
        first = sequences[:, -self.completion :].tolist()
        rewards = np.array([reward(ids) for ids in first]).reshape(-1, self.group)
        advantage = advantages_lib.group_advantages(rewards, EPS).reshape(-1)
        self.learn(sequences, self.torch.tensor(advantage, dtype=self.torch.float32))
        done = time.perf_counter()
        seconds = {"seconds": done - began, "rollout": rolled - began, "update": done - rolled}
        return {**seconds, "cpu": time.process_time() - cpu, "peak_gib": peak_gib()}


def torch_step(receive, send, *args) -> None:
    step = TorchStep(*args)
    while True:
        send(step(receive()))


def trl_step(
    receive,
    send,
    prompts: Sequence[Sequence[int]],
    group: int,
    completion: int,
    rows: int,
    checkpoint: Path = locate.EMBEDDED,
) -> None:
    """TRL's GRPOTrainer in its own loop, which waits for `receive` before every step; the wait is not timed.
    Each step is one optimizer step over all prompts and completions, `rows` sequences at a time.

    Prompts are given as ids, because text might be tokenized to another length. No KL, no bfloat16, no
    gradient checkpointing, no auxiliary router loss, no logging, no checkpoints.
    """
    import datasets
    import transformers
    import trl

    total = len(prompts) * group
    if total % rows:
        raise ValueError(f"{total} sequences cannot be taken {rows} at a time")

    class Timed(trl.GRPOTrainer):
        rollout = 0.0

        def _tokenize_prompts(self, names):
            return [list(prompts[int(name)]) for name in names], None, {}

        def _generate_and_score_completions(self, inputs):
            began = time.perf_counter()
            out = super()._generate_and_score_completions(inputs)
            self.rollout = time.perf_counter() - began
            if tuple(out["completion_ids"].shape) != (total, completion):
                raise ValueError(f"TRL sampled {tuple(out['completion_ids'].shape)}")
            return out

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            receive()
            self.cpu, self.began = time.process_time(), time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            seconds = time.perf_counter() - self.began
            parts = {"seconds": seconds, "rollout": trainer.rollout, "update": seconds - trainer.rollout}
            send({**parts, "cpu": time.process_time() - self.cpu, "peak_gib": peak_gib()})

    args = trl.GRPOConfig(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        max_steps=1_000_000,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=total // rows,
        num_generations=group,
        max_completion_length=completion,
        generation_kwargs={"min_new_tokens": completion},
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        beta=0.0,
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        mask_truncated_completions=False,
        router_aux_loss_coef=0.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Timed(
        model=load_torch(checkpoint),
        reward_funcs=lambda completion_ids, **_: [reward(ids) for ids in completion_ids],
        args=args,
        train_dataset=datasets.Dataset.from_dict({"prompt": [str(i) for i in range(len(prompts))]}),
        processing_class=embedded_chat().tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
