"""Candidates, profiles and rollouts <-> rows of NVIDIA NeMo Gym (their rules: contract.py).

    row_of(pivot, None, agent)               what their dataset and their verifier's server read
    rollout_rows(candidate, rollouts, 3)     what their rollout collection writes, one row per sample
    record_of(row, "file:1")                 back: a Candidate, and a Profile if the row has rewards

What their format has no field for (our verifier's name, the case, the scenario) is under the key "pivotrl",
which their code ignores. A row without that key is read like any other of theirs
(trajectories/readers/nemo_gym.py).
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pivotrl_jax.chat import responses
from pivotrl_jax.chat import tools as tools_lib
from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.chat.dialects import HERMES
from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.chat.json_text import same_json
from pivotrl_jax.pivots.notation import Notation
from pivotrl_jax.pivots.selection import mean_and_variance
from pivotrl_jax.records import Candidate, InputError, Message, Pivot, Profile, Rollout
from pivotrl_jax.trajectories import extract
from pivotrl_jax.trajectories.readers import nemo_gym
from pivotrl_jax.verifiers import VERIFIERS, terminal_cases

# ---- candidate -> row


def row_of(record: Candidate | Pivot, profile: Profile | None, agent: str) -> dict:
    """The row of a candidate or pivot, to be routed to `agent`. A pivot's own profile is used."""
    candidate = record.candidate if isinstance(record, Pivot) else record
    profile = record.profile if isinstance(record, Pivot) else profile
    extra = candidate.case.get("nemo_gym")  # an imported row keeps its other fields
    extra = dict(extra) if isinstance(extra, dict) else {}
    request = extra.pop("responses_create_params", {})
    tools = [tools_lib.flat_tool(tool) for tool in candidate.tools]
    several = len(candidate.demonstration.get("tool_calls") or []) > 1
    row = {
        **extra,
        "responses_create_params": {
            **{k: v for k, v in request.items() if k != "instructions"},  # they are the first message now
            "input": responses.items_of(candidate.messages),
            "tools": tools,
            # asking for one call and expecting several would contradict itself
            "parallel_tool_calls": several or request.get("parallel_tool_calls") is not False,
            "tool_choice": "auto",
        },
        **nemo_gym.gold_fields(candidate),
        **_options(candidate, tools),
        "agent_ref": {"type": "responses_api_agents", "name": agent},
        "uuid": extra.get("uuid", candidate.id),
        "trajectory_id": extra.get("trajectory_id", candidate.trajectory_id),
        "meta_info": extra.get("meta_info") or depths(candidate.messages),
        "reference_output": responses.output_items(candidate.demonstration, "demonstration"),
    }
    if profile is not None and profile.rewards:  # without a decided one there is no rate to tell
        row["source_model_info"] = model_info(profile)
    return {**row, nemo_gym.OURS: _ours(candidate, row, profile)}


def _options(candidate: Candidate, tools: list[dict]) -> dict:
    """The fields that the terminal servers read besides the expected action."""
    case = candidate.case
    options = {"threshold": case["threshold"]} if case.get("threshold") is not None else {}
    if candidate.verifier.partition(":")[0] != "terminal":
        return {}
    if not terminal_cases.is_terminus(candidate):
        options |= {"harness": case.get("harness") or "generic", "declared_tools": tools}
    return options


def depths(messages: Iterable[Message]) -> dict[str, int]:
    """The number of user turns, of assistant turns since the last one, and of all assistant turns."""
    turn = step = depth = 0
    for message in messages:
        if message["role"] == "user":
            turn, step = turn + 1, 0
        elif message["role"] == "assistant":
            step, depth = step + 1, depth + 1
    return {"turn": turn, "step": step, "assistant_depth": depth}


def model_info(profile: Profile) -> dict:
    """A profile under their names. The standard deviation, like the variance, is the population's."""
    return {
        "rewards": profile.rewards,
        "reward_mean": profile.mean,
        "reward_std": math.sqrt(max(profile.variance, 0.0)),
        "reward_var": profile.variance,
    }


def _ours(candidate: Candidate, row: dict, profile: Profile | None) -> dict:
    """What the rest of the row does not say."""
    ours = {f: getattr(candidate, f) for f in ("id", "trajectory_id", "turn", "scenario", "verifier", "case")}
    ours |= {"version": nemo_gym.VERSION, "tools": tools_lib.tool_shape(candidate.tools)}
    read_back = responses.messages_of(row["responses_create_params"]["input"])
    changes = nemo_gym.patch(read_back, candidate.messages)
    if changes is not None:
        ours["messages"] = changes
    if not same_json(responses.messages_of(row["reference_output"]), [candidate.demonstration]):
        ours["demonstration"] = candidate.demonstration
    if profile is not None:
        elsewhere = ("candidate_id", *(("rewards", "mean", "variance") if profile.rewards else ()))
        ours["profile"] = {k: v for k, v in dataclasses.asdict(profile).items() if k not in elsewhere}
    return ours


# ---- row -> candidate, profile


def record_of(row: dict, where: str) -> tuple[Candidate, Profile | None]:
    """The candidate of a row, and its profile if the row has rewards. Raises InputError whose sentence
    begins with the field."""
    ours = candidate = nemo_gym.own_candidate(row)
    if candidate is None:
        candidates = extract.extract([nemo_gym.trajectory(row, where)])
        if not candidates:
            raise InputError("the demonstrated action is empty, or cannot be read")
        candidate = candidates[0]
    return candidate, _profile(candidate, row, row[nemo_gym.OURS].get("profile") if ours else None)


def _numbers(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rewards(row: dict) -> tuple[str, dict] | None:
    """(the key, {"rewards", ...}) of a row's profile; None if it has none.

    The released sets call it source_model_info or after the model, as in qwen_235b_info; others count passes.
    """
    keys = ["source_model_info", *sorted(k for k in row if k.endswith("_info"))]
    for key in keys:
        if isinstance(row.get(key), dict) and isinstance(row[key].get("rewards"), list):
            return key, row[key]
    passed, total = row.get("pass_rate_passed"), row.get("pass_rate_total")
    if isinstance(passed, int) and isinstance(total, int) and 0 <= passed <= total and total:
        return "pass_rate", {"rewards": [1.0] * passed + [0.0] * (total - passed)}
    return None


def _profile(candidate: Candidate, row: dict, ours: Any) -> Profile | None:
    """`ours`: the other fields of a profile that we exported; None for one of theirs."""
    named = _rewards(row)
    if isinstance(ours, dict) and "rewards" in ours and "source_model_info" not in row:  # none was decided
        return _made(candidate, ours)
    if named is None:
        return None
    key, info = named
    decided = [r for r in info["rewards"] if r is not None]  # null: neither a rule nor a judge decided
    if not all(_numbers(r) for r in decided):
        raise InputError(f'"{key}.rewards" holds something that is not a number; want a list of rewards')
    rewards = [float(r) for r in decided]
    mean, variance = mean_and_variance(rewards)
    request = row.get("responses_create_params") or {}
    temperature = request.get("temperature")
    # not `.get`, which ignores installed verifiers
    verifier = VERIFIERS[candidate.verifier] if candidate.verifier in VERIFIERS else None
    settings = {
        "policy": f"nemo_gym:{key}",
        "verifier": verifier.label if verifier else f"{candidate.verifier}/?",
        # the API's default, which all released recipes keep
        "temperature": float(temperature) if _numbers(temperature) else 1.0,
        "seed": -1,  # not recorded there
        "is_call": candidate.is_call,
        "abstained": len(info["rewards"]) - len(decided),
    }
    measured = {
        "rewards": rewards,
        "mean": float(info["reward_mean"]) if _numbers(info.get("reward_mean")) else mean,
        "variance": float(info["reward_var"]) if _numbers(info.get("reward_var")) else variance,
    }
    return _made(candidate, {**(ours if isinstance(ours, dict) else settings), **measured})


def _made(candidate: Candidate, fields: dict) -> Profile:
    try:
        return Profile(candidate_id=candidate.id, **fields)
    except TypeError as e:
        raise InputError(f'"{nemo_gym.OURS}.profile" cannot be read ({e}); remove it') from None


def is_rollout(row: dict) -> bool:
    """Whether a row is one of several samples of a task."""
    return "response" in row and isinstance(row.get("_ng_task_index"), int)


def gather(rows: Iterable[tuple[str, dict]], rewards: Mapping[int, list]) -> Iterator[tuple[str, dict]]:
    """The rows of a file. Each task's first rollout stands for all of them, with all their `rewards`."""
    tasks = set()
    for where, row in rows:
        if not is_rollout(row):
            yield where, row
        elif row["_ng_task_index"] not in tasks:
            tasks.add(row["_ng_task_index"])
            yield where, {**row, "source_model_info": {"rewards": rewards[row["_ng_task_index"]]}}


def task_rewards(rows: Iterable[tuple[str, dict]]) -> dict[int, list]:
    """Task -> the rewards of its rollouts, in the order of the file."""
    rewards: dict[int, list] = collections.defaultdict(list)
    for _, row in rows:
        if is_rollout(row):
            rewards[row["_ng_task_index"]].append(row.get("reward"))
    return rewards


# ---- rollouts -> rows


def rollout_rows(
    candidate: Candidate,
    rollouts: Sequence[Rollout],
    task_index: int,
    agent: str = "",
    thinking_open: bool | None = False,
    dialect: str = HERMES,
) -> list[dict]:
    """A row per decided rollout: the request, the response in items, the reward, and which sample it is.

    Token ids and log-probs are not exported: NeMo Gym takes them only together with the prompt's ids.
    `thinking_open`: the policy's prompt ends in `<think>`, so a completion begins inside it; None: unknown,
    and each completion shows it. `dialect`: the form in which the policy writes calls.
    """
    notation, schemas = Notation(dialect, thinking_open), schemas_of(candidate.tools)
    whole = row_of(candidate, None, agent)
    shared = {k: v for k, v in whole.items() if k not in (nemo_gym.OURS, "reference_output")}
    rows = []
    for rollout in rollouts:
        if rollout.reward is None:  # a judge abstained: NeMo Gym has no value for it
            continue
        message = action_to_message(notation.action(rollout, candidate.tools, schemas))
        rows.append(
            {
                "_ng_task_index": task_index,
                "_ng_rollout_index": rollout.sample,
                **shared,
                "response": _response(rollout, message, whole["responses_create_params"]),
                "reward": float(rollout.reward),
                nemo_gym.OURS: {
                    "candidate_id": candidate.id,
                    "reason": rollout.reason,
                    "details": rollout.details,
                },
            }
        )
    return rows


def _response(rollout: Rollout, message: Message, request: dict) -> dict:
    return {
        "id": f"resp_{rollout.candidate_id}_{rollout.sample}",
        "object": "response",
        "created_at": 0.0,  # not recorded here
        "model": "policy_model",
        "output": responses.output_items(message, str(rollout.sample)),
        "parallel_tool_calls": request["parallel_tool_calls"],
        "tool_choice": request["tool_choice"],
        "tools": request["tools"],
        "status": "completed" if rollout.finished else "incomplete",
        "incomplete_details": None if rollout.finished else {"reason": "max_output_tokens"},
    }
