"""Pivot rows of NVIDIA NeMo Gym -> trajectories whose last assistant message is the demonstrated action.

    {"responses_create_params": {"input": [...], "tools": [...]}, "expected_action": {...},
     "agent_ref": {"type": "responses_api_agents", "name": "..."}}

The turns before it are context. The agent that a row names, or else the row's shape, tells which server
scores it, and so which of our verifiers (in the mode "nemo_gym") does the same:

| row | verifier | in the case |
|---|---|---|
| `expected_action` | tool_call:nemo_gym | `config`, where the agent's differs |
| the same, search_pivot | search:nemo_gym | |
| the same, swe_pivot's own server | swe:nemo_gym | |
| `expected_answers` (xlam_fc) | tool_call:nemo_gym | `server` |
| `expected_answer`, `metadata.harness` (terminus) | terminal:nemo_gym | the same, `threshold` |
| `expected_action` and `harness` or `declared_tools` | terminal:nemo_gym | the same, `threshold` |

All other fields of a row are kept in the case under "nemo_gym": the pass rates that NVIDIA publishes with its
sets (`pass_rate` reads them) among them. A row that we exported (it has the key "pivotrl") becomes the same
candidate again, unless its other fields were changed. Only the first of several rollouts of one task is read.
Rows whose server does not score a single action are left out: string_match, equivalence judges, images, and
end-to-end tasks, of which SWE-Pivot-v1 consists in spite of its name.

A server knows nothing of a row's own `config`, and only the terminal servers read its `threshold`. Here a
row's `config` counts if it is what `verify` takes: it holds `tool_call_comparator_config`, options of
terminus, or, for the terminal servers, `threshold`. Nulls that Arrow adds to calls and function docs are
dropped.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import responses
from pivotrl_jax.chat import tools as tools_lib
from pivotrl_jax.chat.json_text import same_json, strict_json
from pivotrl_jax.chat.messages import require
from pivotrl_jax.records import Candidate, InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building, files, nemo_gym_nulls
from pivotrl_jax.trajectories.readers.building import CONTEXT
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.verifiers import terminal_cases
from pivotrl_jax.verifiers.cases import responses_message

GOLDS = ("expected_action", "expected_answers", "expected_answer")

OURS = "pivotrl"

CALL_MARKS = ("<tool_call>", "<function=")  # of a call that was left in a text

VERSION = 1

COMPARATOR = "tool_call_comparator_config"

_LOOSE = {COMPARATOR: {"word_count_similarity_threshold": 0.0}}

_COUNTED = {
    COMPARATOR: {
        "word_count_similarity_threshold": 0.1,
        "parallel_tool_call_rewarding": True,
        "allow_subset": True,
        "allow_superset": True,
        "parallel_tool_call_reward_mode": "f1",
    }
}

# (part of an agent's name, verifier, what its server's configuration sets); the first match counts
AGENTS = (
    ("swe_pivot_single_step", "tool_call:nemo_gym", _LOOSE),
    ("argument_comparison_swe", "tool_call:nemo_gym", _LOOSE),  # the name in the first SWE release
    ("droid_pivot", "tool_call:nemo_gym", _LOOSE),
    ("swe_pivot", "swe:nemo_gym", {}),
    ("search_pivot", "search:nemo_gym", {}),
    ("parallel_tool_calls", "tool_call:nemo_gym", _COUNTED),
)

# the agent whose server asks a judge about keystrokes that are not similar enough
_JUDGED_AGENT = "terminus_judge_simple"
_JUDGED = {"enable_string_similarity": True, "string_similarity_threshold": 0.9, "enable_llm_judge": True}


def recognise(sample: Any, path: Path) -> bool:
    """Whether it has a request, and what is expected of the response to it or the agent that answers it."""
    params = sample.get("responses_create_params") if isinstance(sample, dict) else None
    return isinstance(params, dict) and any(key in sample for key in (*GOLDS, "agent_ref"))


def documents(path: Path) -> Iterator[Document]:
    """The documents of a file, with only the first of several rollouts of one task."""
    tasks = set()
    for where, row in files.documents(path):
        task = row.get("_ng_task_index") if isinstance(row, dict) else None
        if isinstance(task, int) and "response" in row:
            if task in tasks:
                continue  # another rollout from the same state
            tasks.add(task)
        yield where, row


def trajectory(row: Any, where: str) -> Trajectory:
    """One row. Raises InputError naming the field."""
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    ours = own_candidate(row)
    if ours is not None:
        messages = [*ours.messages, ours.demonstration]
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        return Trajectory(
            id=ours.trajectory_id,
            messages=messages,
            tools=ours.tools,
            source="nemo_gym",
            scenario=ours.scenario,
            verifier=ours.verifier,
            cases={turns[-1]: ours.case},
            origin=where,
            skip={i: CONTEXT for i in turns[:-1]},
        )
    return _foreign(row, where)


def _foreign(row: dict, where: str) -> Trajectory:
    row = nemo_gym_nulls.dropped(row)
    params = require(row.get("responses_create_params"), dict, '"responses_create_params"')
    verifier, case, demonstration = expectation(row)
    try:
        messages = responses.messages_of(params.get("input"))
    except InputError as e:
        raise InputError(f"responses_create_params.{e}") from None
    if isinstance(params.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": params["instructions"]})
    if messages and messages[-1].keys() == {"role", "content", "reasoning_content"}:
        if messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
            # this thinking belongs to the action; left in the history it would give the answer away
            demonstration["reasoning_content"] = messages.pop()["reasoning_content"]
    if not messages:
        raise InputError("responses_create_params.input is empty; want the state before the action")
    id = row["uuid"] if isinstance(row.get("uuid"), str) and row["uuid"] else building.stem(where)
    skip = {i: CONTEXT for i, m in enumerate(messages) if m["role"] == "assistant"}
    if "expected_answer" not in case and any(mark in demonstration["content"] for mark in CALL_MARKS):
        # to the server this call is a message, and any talk would be as good
        skip[len(messages)] = building.UNPARSEABLE_CALL
    made = building.checked(
        Trajectory(
            id=id,
            messages=[*messages, demonstration],
            tools=_tools(row, params),
            source="nemo_gym",
            scenario=_scenario(row) or building.opening(messages),
            verifier=verifier,
            cases={len(messages): {**case, "nemo_gym": _provenance(row, params)}},
            origin=where,
            skip=skip,
        )
    )
    if "tool_calls" in demonstration:
        # as they are written: the server compares the nulls of their JSON text too
        made.messages[-1]["tool_calls"] = demonstration["tool_calls"]
    return made


def _tools(row: dict, params: dict) -> list:
    tools = params.get("tools") or row.get("declared_tools") or []
    return [tools_lib.chat_tool(t) for t in require(tools, list, '"tools"')]


def _scenario(row: dict) -> str:
    """What rows of one task have in common, so that a split does not divide them; "" if nothing."""
    metadata = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    names = (row.get("scenario"), metadata.get("instance_id"), metadata.get("task_name"))
    names += (metadata.get("source_trajectory_uid"), row.get("trajectory_id"))
    named = (str(n) for n in names if isinstance(n, (str, int)) and not isinstance(n, bool) and n != "")
    return next(named, "")


_READ = ("responses_create_params", "declared_tools", "reference_output", OURS, *GOLDS)

_ROLLOUT = ("response", "reward", "category", "_ng_task_index", "_ng_rollout_index")


def _provenance(row: dict, params: dict) -> dict:
    """A row's fields besides state, action and options: provenance, profiles, the request's other fields."""
    dropped = (*_READ, *_ROLLOUT) if "response" in row else _READ
    fields = {k: v for k, v in row.items() if k not in dropped and v is not None}
    request = {k: v for k, v in params.items() if k not in ("input", "tools") and v is not None}
    return {**fields, "responses_create_params": request} if request else fields


# ---- published pass rates


def pass_rate(row: dict, field: str = "") -> float | None:
    """The share of the publisher's rollouts that passed from a row's state; None if the row does not say.

    `row`: a row, or a case's "nemo_gym". `field` names a rate or a profile of the row, e.g. "qwen_235b_info";
    "" takes `pass_rate`, else `pass_rate_passed` / `pass_rate_total`, else the mean of a profile.
    """
    if field:
        return _rate(row.get(field))
    passed, total = row.get("pass_rate_passed"), row.get("pass_rate_total")
    counted = passed / total if isinstance(passed, int) and isinstance(total, int) and total > 0 else None
    profiles = ("source_model_info", *sorted(key for key in row if str(key).endswith("_info")))
    rates = (_rate(value) for value in (row.get("pass_rate"), counted, *map(row.get, profiles)))
    return next((rate for rate in rates if rate is not None), None)


def _rate(value: Any) -> float | None:
    """A number from 0 to 1, or the mean of a profile with rewards; None for anything else."""
    if isinstance(value, dict):
        return None if value.get("rewards") == [] else _rate(value.get("reward_mean"))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 1 else None


# ---- which verifier, what is expected


def agent_name(row: dict) -> str:
    """`agent_ref.name`, "" where a row has none."""
    reference = row.get("agent_ref")
    name = reference.get("name") if isinstance(reference, dict) else reference
    return name if isinstance(name, str) else ""


def expectation(row: dict) -> tuple[str, dict, Message]:
    """(verifier, its case, the demonstration). Raises InputError if the row's server does
    not score a single action."""
    agent = agent_name(row)
    expected = row.get("expected_action")
    if expected is not None:
        expected = require(expected, dict, '"expected_action"')
        if "type" not in expected and isinstance(expected.get("name"), str):
            expected = {"type": "function_call", **expected}
        demonstration = responses_message(expected)
        if demonstration.get("tool_calls") and isinstance(expected.get("content"), str):
            demonstration["content"] = expected["content"]  # said beside the call
        if "harness" in row or "declared_tools" in row or "multi_harness" in agent:
            return (
                "terminal:nemo_gym",
                {**_terminal_options(row, {}), "expected_action": expected},
                demonstration,
            )
        name, config = next(((v, c) for part, v, c in AGENTS if part in agent), ("tool_call:nemo_gym", {}))
        own = _config(row).get(COMPARATOR)
        if isinstance(own, dict) and not name.startswith("swe"):
            config = {COMPARATOR: {**config.get(COMPARATOR, {}), **own}}
        return name, {"config": config} if config else {}, demonstration
    if isinstance(row.get("expected_answers"), list):
        calls = [{"type": "function_call", **c} for c in row["expected_answers"] if isinstance(c, dict)]
        gold = {"type": "function_call_batch", "calls": calls}
        gold = gold if calls else {"type": "message", "content": ""}
        return "tool_call:nemo_gym", {"server": "xlam_fc"}, responses_message(gold)
    if row.get("expected_answer") is None:
        raise InputError(
            "no expected action, so nothing says which action is right: it is an end-to-end task, as all "
            "rows of SWE-Pivot-v1 are in spite of its name; use pivot rows "
            "(Conversational-Tool-Use-Pivot-v1, Function-Calling-Pivot-v1, Terminal-Pivot-v1), or "
            "trajectories of agents that solved such tasks"
        )
    return _terminus(row, agent)


def _config(row: dict) -> dict:
    return row["config"] if isinstance(row.get("config"), dict) else {}


def _terminal_options(row: dict, config: dict) -> dict:
    """What the case of a terminal server's row says besides the expected action. `config`: its agent's."""
    known = (COMPARATOR, "threshold", *_JUDGED)
    config = {**config, **{k: v for k, v in _config(row).items() if k in known and v is not None}}
    options = {k: row[k] for k in ("harness", "threshold") if row.get(k) is not None}
    return {**options, "config": config} if config else options


def _terminus(row: dict, agent: str) -> tuple[str, dict, Message]:
    answer = require(row["expected_answer"], str, '"expected_answer"')
    metadata = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    if metadata.get("harness") is None and not _terminus_json(answer):
        raise InputError(
            f"a row of {agent or 'another server'}, which scores no single action; want "
            '"expected_action", or "expected_answer" with "metadata.harness"'
        )
    if metadata.get("harness") is None:  # the keys of the answer show which it is
        metadata = {**metadata, "harness": _terminus_json(answer)}
    options = _terminal_options(row, _JUDGED if _JUDGED_AGENT in agent else {})
    case = {**options, "expected_answer": answer, "metadata": metadata}
    return "terminal:nemo_gym", case, {"role": "assistant", "content": answer}


def _terminus_json(answer: str) -> str:
    """The harness in whose JSON form the answer is; "" for any other text."""
    try:
        value, _ = strict_json(answer.rpartition("</think>")[2])
    except ValueError:
        return ""
    if not isinstance(value, dict) or not isinstance(value.get("commands"), list):
        return ""
    return "terminus_1" if "state_analysis" in value else "terminus_2"


# ---- rows that we wrote


def gold_fields(candidate: Candidate) -> dict:
    """The fields of a row that say which action is expected."""
    verifier, case = candidate.verifier.partition(":")[0], candidate.case
    if verifier != "terminal" or not terminal_cases.is_terminus(candidate):
        return {"expected_action": responses.expected_action(candidate.demonstration)}
    answer = terminal_cases.gold_text(candidate)
    metadata = terminal_cases.row_of(case).get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    harness = metadata.get("harness") or case.get("harness") or _terminus_json(answer or "") or "terminus_2"
    return {"expected_answer": answer or "", "metadata": {**metadata, "harness": harness}}


def own_candidate(row: dict) -> Candidate | None:
    """The candidate that we exported as this row. None if the row lacks our key, or if its other fields were
    changed since, which then take precedence. Raises InputError for a broken key."""
    ours = row.get(OURS)
    if not isinstance(ours, dict) or ours.get("version") != VERSION:
        return None
    try:
        params = row["responses_create_params"]
        candidate = Candidate(
            id=ours["id"],
            trajectory_id=ours["trajectory_id"],
            turn=ours["turn"],
            messages=_patched(responses.messages_of(params["input"]), ours.get("messages")),
            tools=tools_lib.shaped(params["tools"], ours["tools"]),
            demonstration=ours.get("demonstration") or responses.messages_of(row["reference_output"])[0],
            verifier=ours["verifier"],
            case=ours["case"],
            scenario=ours["scenario"],
        )
        exported = responses.items_of(candidate.messages), [tools_lib.flat_tool(t) for t in candidate.tools]
        gold = gold_fields(candidate)
    except (KeyError, TypeError, AttributeError, IndexError) as e:
        raise InputError(
            f'"{OURS}" cannot be read ({type(e).__name__}: {e}); remove it, or repair it'
        ) from None
    same = same_json(exported, (params["input"], params["tools"]))
    return candidate if same and all(same_json(row.get(k), v) for k, v in gold.items()) else None


def patch(read_back: list[Message], messages: Sequence[Message]) -> dict | list | None:
    """What `_patched` needs to turn `read_back`, read from a row, into `messages`; None if they are equal."""
    if len(read_back) != len(messages):
        return list(messages)
    return {str(i): b for i, (a, b) in enumerate(zip(read_back, messages)) if not same_json(a, b)} or None


def _patched(read_back: list[Message], changes: dict | list | None) -> list[Message]:
    if isinstance(changes, list):
        return changes
    return [(changes or {}).get(str(i)) or m for i, m in enumerate(read_back)]
