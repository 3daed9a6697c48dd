"""Theorem 3.3 on real policies: do checkpoints keep the order that pi_0 gives task-unrelated actions?

States and actions are chosen with pi_0, and are the same for every checkpoint:

    skills    out-of-domain questions; actions are distinct completions sampled from pi_0, the answer, and the
              answers to other questions of the family
    toolbox   held-out turns of the toolbox world; actions are completions sampled from pi_0, answers to
              out-of-domain questions and demonstrations of other turns, but only those that the verifier
              rejects, so that all of them lie outside M(s)

Measured per state: Kendall's tau-b between log-probs under pi_0 and under the checkpoint, and the standard
deviation of log pi / pi_0 over the actions. The KL-least policy of the theorem has tau = 1 and deviation 0.
"""

import dataclasses
import runpy
import sys
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from pivotrl_jax import score, verifiers
from pivotrl_jax.checkpoints import hf, hf_config
from pivotrl_jax.evaluation import intervals, skills
from pivotrl_jax.rollouts.actor import Request, make_actor
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract, sources

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see theory.py
import theory

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 16  # completions sampled from pi_0 per state
OTHERS = 12  # actions of each other kind
FEWEST = 3  # states with fewer actions are left out: their order would mean little


@dataclasses.dataclass(frozen=True)
class State:
    """A prompt and the actions whose order is compared, as token ids."""

    kind: str
    cluster: str
    prompt: list[int]
    actions: list[list[int]]


def noisy_copy(source: Path, directory: Path, scale: float, seed: int) -> Path:
    """A copy of a checkpoint with normal noise of `scale` times its root mean square added to every array."""
    config = hf_config.load_config(source, "float32")
    params = hf.load_params(source, config, "float32")
    rng = np.random.default_rng([seed, 4])

    def shake(leaf):
        leaf = np.asarray(leaf)
        return leaf + rng.normal(size=leaf.shape).astype(np.float32) * scale * np.sqrt((leaf**2).mean())

    hf.save(directory, config, jax.tree.map(shake, params), source)
    return directory


def settings(reference: Path, quick: bool, seed: int):
    config = runpy.run_path(str(ROOT / "configs" / "bfcl.py"))["get_config"]("tiny")
    with config.unlocked():
        config.seed = seed
        config.workdir = "runs/theorem_3_3/order"
        config.model.checkpoint = str(reference)
        config.data.demonstrations = 1
        config.data.held_out_tasks = 4 if quick else 24
    return config


def unique(sequences) -> list[list[int]]:
    return [list(ids) for ids in dict.fromkeys(map(tuple, sequences))]


def skill_states(run, actor, params, per_family: int, stream) -> list[State]:
    items = [i for family in skills.families() for i in skills.items(family, "test", per_family, 1)]
    prompts = [run.chat.prompt_ids(item.messages, []) for item in items]
    requests = [Request(item.id, p, item.id, SAMPLES) for item, p in zip(items, prompts)]
    states = []
    for item, prompt, drawn in zip(items, prompts, actor.act(params, requests, stream)):
        others = [i.answer for i in items if i.family == item.family and i is not item]
        more = [answer_ids(run, item.messages, [], answer) for answer in [item.answer, *others[:OTHERS]]]
        drawn = [completion.token_ids for completion in drawn if completion.finished]
        states.append(State("skills", item.id, prompt, unique([*drawn, *more])))
    return states


def answer_ids(run, messages, tools, text: str) -> list[int]:
    return run.chat.completion_ids(messages, tools, {"role": "assistant", "content": text})


def toolbox_states(run, actor, params, data, stream) -> list[State]:
    limit = run.config.data.max_prompt_tokens
    prompts, _ = extract.within_limit(run.chat, extract.extract(data.held_out), limit)
    turns = [prompt.candidate for prompt in prompts]
    answers = [i.answer for family in skills.families() for i in skills.items(family, "test", 2, 2)]
    requests = [Request(c.id, p.ids, c.trajectory_id, SAMPLES) for c, p in zip(turns, prompts)]
    states, rng = [], np.random.default_rng(run.config.seed)
    for c, prompt, drawn in zip(turns, prompts, actor.act(params, requests, stream)):
        other = [
            turns[i].demonstration for i in rng.choice(len(turns), min(OTHERS, len(turns)), replace=False)
        ]
        ids = [completion.token_ids for completion in drawn if completion.finished]
        ids += [
            answer_ids(run, c.messages, c.tools, text) for text in rng.choice(answers, OTHERS, replace=False)
        ]
        ids += [run.chat.completion_ids(c.messages, c.tools, message) for message in other]
        verify = verifiers.get(c.verifier).verify
        outside = [x for x in unique(ids) if verify(c, run.chat.parse(run.chat.decode(x))).reward == 0]
        states.append(State("toolbox", c.trajectory_id, prompt.ids.tolist(), outside))
    return states


def log_probs(checkpoint: Path, states: list[State]) -> list[np.ndarray]:
    """log pi(action | state) for the actions of every state, float64."""
    scorer = score.Scorer(checkpoint, "float32")
    pairs = [(state.prompt, action) for state in states for action in state.actions]
    flat = iter(scorer([[*prompt, *action] for prompt, action in pairs]))
    return [
        np.array([np.sum(next(flat)[-len(action) :], dtype=np.float64) for action in state.actions])
        for state in states
    ]


def compare(before: list[np.ndarray], seeds: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Per state: tau-b and the standard deviation of log pi / pi_0, averaged over a policy's seeds."""
    tau_SN = [[theory.kendall_tau(a, b) for a, b in zip(before, after)] for after in seeds]
    deviation_SN = [[np.std(b - a) for a, b in zip(before, after)] for after in seeds]
    return {"tau": np.mean(tau_SN, axis=0), "deviation": np.mean(deviation_SN, axis=0)}


def interval(values: intervals.Interval) -> list[float]:
    return [round(x, 4) for x in values]


def summarise(states: list[State], found: dict[str, dict[str, np.ndarray]]) -> dict:
    """Kind -> policy -> mean tau and deviation, with bootstrap intervals over items or trajectories; also the
    paired differences by state, the first policy minus each other one."""
    page = {}
    for kind in dict.fromkeys(state.kind for state in states):
        at = [i for i, state in enumerate(states) if state.kind == kind]
        clusters = [states[i].cluster for i in at]
        page[kind] = {"states": len(at), "actions": sum(len(states[i].actions) for i in at)}
        first, *others = found
        for name, values in found.items():
            page[kind][name] = {
                key: interval(intervals.cluster_bootstrap(value[at], clusters))
                for key, value in values.items()
            }
        for name in others:
            page[kind][f"{first} less {name}"] = {
                key: interval(intervals.paired_difference(found[name][key][at], value[at], clusters))
                for key, value in found[first].items()
            }
    return page


def measure(reference: Path, policies: dict[str, list[Path]], quick: bool, seed: int) -> tuple[dict, dict]:
    """({kind: {policy: taus}}, summary). `policies` has the checkpoints of each policy's seeds."""
    began = time.perf_counter()
    config = settings(reference, quick, seed)
    run = run_lib.open_run(config)
    actor, stream = make_actor(run, config.profile.batch), jax.random.fold_in(jax.random.key(seed), 33)
    params = actor.place(run.params)
    states = skill_states(run, actor, params, 3 if quick else 12, stream)
    states += toolbox_states(run, actor, params, sources.load(config.data, seed), stream)
    some = [state for state in states if len(state.actions) >= FEWEST]
    before = log_probs(reference, some)
    found = {
        name: compare(before, [log_probs(path, some) for path in paths]) for name, paths in policies.items()
    }
    kinds = np.array([state.kind for state in some])
    taus = {k: {n: v["tau"][kinds == k] for n, v in found.items()} for k in dict.fromkeys(kinds.tolist())}
    return taus, {
        "reference": run.policy,
        "policies": {
            name: [hf.checkpoint_fingerprint(path) for path in paths] for name, paths in policies.items()
        },
        "too_few_actions": len(states) - len(some),
        **summarise(some, found),
        "seconds": round(time.perf_counter() - began),
    }


def draw(taus: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    for axes, (kind, by_policy) in zip(
        np.atleast_1d(figure.subplots(1, len(taus), sharey=True)), taus.items()
    ):
        axes.boxplot(list(by_policy.values()), widths=0.5, showfliers=True, flierprops={"markersize": 2})
        axes.set_xticks(range(1, len(by_policy) + 1), list(by_policy), fontsize=8)
        axes.set_title(kind, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("tau-b with pi_0, per state")
    figure.savefig(path, dpi=110)
