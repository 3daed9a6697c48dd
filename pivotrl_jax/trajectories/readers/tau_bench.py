"""tau-bench and tau2-bench result files -> trajectories: a customer, a policy, tools on a database.

tau-bench: a list of {"task_id", "trial", "reward", "traj": messages, "info": {"task": {"actions": [...]}}}.
tau2-bench: {"tasks": [...], "simulations": [...], "info": ...}, one simulation per task and trial, whose
reward is in `reward_info`; or a folder of results.json, without simulations, and simulations/*.json. The
actions that the task expects become the turns' case: {"task_actions": [{"name", "kwargs" or "arguments",
tau2's "compare_args"}]}. The customer's own tool calls (tau2's telecom domain) are not seen by the agent and
are left out. tau2's files keep the policy apart from the messages; it becomes the system message.

tau-bench's files hold no tool docs: give them to the candidates program with --tools.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import read_value
from pivotrl_jax.chat.messages import lenient_tool_calls, require
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import building, files, message_forms, weights
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import Turns, call_of, read_parts
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

VERIFIER = "tau2"

RESULTS = "results.json"
SIMULATIONS = "simulations/*.json"

# tau2's file, beside its simulations
FILE_READ = "tasks simulations info simulation_index"
# the episode, and its messages with what the simulator notes in them
READ = """
    traj task_id info reward messages policy tools actions domain reward_info file termination_reason
    agent_cost user_cost mode """
MESSAGE_READ = MESSAGE + " requestor error tool_messages raw_data generation_time_seconds " + weights.READ


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a list of episodes with `traj`, one such episode, or tau2's tasks and simulations."""
    if isinstance(sample, list):
        sample = sample[0] if sample else None
    if not isinstance(sample, dict):
        return False
    return ("traj" in sample and "task_id" in sample) or {"tasks", "simulations"} <= sample.keys()


def holds(path: Path) -> bool:
    """Whether a folder, or its results.json, has its simulations in files of their own."""
    folder = _run(path)
    named = path.is_dir() or path.name == RESULTS
    return named and (folder / RESULTS).is_file() and next(folder.glob(SIMULATIONS), None) is not None


def _run(path: Path) -> Path:
    return path.parent if path.name in (RESULTS, "simulations") else path


def documents(path: Path) -> Iterable[Document]:
    """The documents of a file; a folder is one, as if its simulations stood in results.json."""
    if not holds(path):
        yield from files.documents(path)
        return
    folder = _run(path)
    meta = require(read_value((folder / RESULTS).read_bytes()), dict, RESULTS)
    if meta.get("simulations"):  # all are in the one file
        yield str(folder / RESULTS), meta
        return
    simulations, found = [], set()
    for place, simulation in files.of_files(sorted(folder.glob(SIMULATIONS))):
        if isinstance(simulation, InputError):
            yield place, simulation
        else:
            simulations.append(simulation)
        found |= {Path(place).stem, str(simulation.get("id") if isinstance(simulation, dict) else None)}
    index = meta.get("simulation_index")
    for entry in index if isinstance(index, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"] not in found:
            yield (
                f"{folder}/simulations/{entry['id']}.json",
                InputError(f"{RESULTS} lists it, but it is missing"),
            )
    yield str(folder), {**meta, "simulations": simulations}


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The episodes of a result file, each at "file:number"."""
    if isinstance(document, dict) and "simulations" in document:
        yield from _simulations(document, where)
    elif isinstance(document, list):
        for i, one in enumerate(document, 1):
            if isinstance(one, dict) and "simulations" in one:
                yield from _simulations(one, f"{where}:{i}")
            else:
                yield f"{where}:{i}", one
    else:
        yield where, document


def trajectory(episode: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    require(episode, dict, "an episode")
    task_id, trial = _key(episode, "task_id"), _key(episode, "trial")
    if "traj" in episode:
        info = require(episode.get("info"), dict, '"info"')
        task = require(info.get("task"), dict, '"info.task"')
        messages, tools, reward, skip = episode["traj"], None, episode.get("reward"), {}
        actions = _actions(task.get("actions"), "kwargs")
        scenario = f"tau:{task.get('user_id', '')}:{task_id}"
        messages = message_forms.joined([_tau_message(m) for m in require(messages, list, '"traj"')])
        said = [m if isinstance(m, dict) and m.get("role") == "assistant" else {} for m in messages]
        skip = {i: why for i, m in enumerate(said) if (why := building.told(m))}
    else:
        turns = _tau2_turns(episode.get("policy"), require(episode.get("messages"), list, '"messages"'))
        messages, skip = turns.messages, turns.skip
        info = episode.get("reward_info")
        reward = info.get("reward") if isinstance(info, dict) else None
        tools, actions = episode.get("tools"), episode.get("actions", [])
        scenario = f"tau2:{episode.get('domain', '')}:{task_id}"
    return building.checked(
        Trajectory(
            messages=messages,
            id=f"{building.stem(where).rpartition(':')[0] or building.stem(where)}:{task_id}:{trial}",
            origin=where,
            source="tau_bench",
            scenario=scenario,
            verifier=VERIFIER,
            tools=tools,
            reward=building.number(reward),
            skip=skip,
            unused=unread([episode.get("file")], FILE_READ, "file")
            + unread([episode], READ)
            + unread(episode.get("traj", episode.get("messages")), MESSAGE_READ, "messages")
            + weights.unobeyed(episode.get("traj", episode.get("messages")), "messages"),
        ),
        case={"task_actions": actions},
    )


def _key(episode: dict, name: str) -> str:
    value = episode.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f'"{name}" is a {type(value).__name__}, want a number or a name')
    return str(value)


def _actions(actions: Any, arguments: str) -> list[dict]:
    """The actions that the task expects of the agent, by name and arguments only; None means none."""
    expected = []
    for i, action in enumerate(require([] if actions is None else actions, list, "the task's actions")):
        if not isinstance(action, dict) or not isinstance(action.get("name"), str):
            raise InputError(f"the task's action {i} has no name")
        if action.get("requestor", "assistant") == "assistant":
            values = action.get(arguments)
            values = {} if values is None else require(values, dict, f"{arguments} of the task's action {i}")
            expected.append({"name": action["name"], arguments: values})
            if isinstance(action.get("compare_args"), list):  # the arguments that count; the others are free
                expected[-1]["compare_args"] = action["compare_args"]
    return expected


def _tau_message(message: Any) -> Any:
    """An OpenAI message. A call whose arguments are not JSON is kept, and its turn is skipped later."""
    if isinstance(message, dict) and message.get("role") == "assistant" and message.get("tool_calls"):
        return {**message, "tool_calls": lenient_tool_calls(message["tool_calls"])}
    return message


# ---- tau2-bench


def _simulations(document: dict, where: str) -> Iterable[Document]:
    """Simulations, each with its task's actions and with the policy and the tools that all share."""
    tasks = {}
    for task in require(document.get("tasks"), list, '"tasks"'):
        if isinstance(task, dict) and isinstance(task.get("id"), (str, int)):
            tasks[str(task["id"])] = task
    info = document.get("info")
    world = info.get("environment_info") if isinstance(info, dict) else None
    world = world if isinstance(world, dict) else {}
    policy = world.get("policy") if isinstance(world.get("policy"), str) else ""
    tools = _tools(world.get("tool_defs"))
    for i, simulation in enumerate(require(document.get("simulations"), list, '"simulations"'), 1):
        place = f"{where}:{i}"
        try:
            task = tasks.get(_key(require(simulation, dict, "a simulation"), "task_id"))
            if task is None:
                raise InputError(f'no task has the id {simulation.get("task_id")!r}; "tasks" must hold it')
            criteria = task.get("evaluation_criteria")
            criteria = {} if criteria is None else require(criteria, dict, "evaluation_criteria")
            actions = _actions(criteria.get("actions"), "arguments")
        except InputError as e:
            yield place, e
            continue
        shared = {
            "policy": policy,
            "tools": tools,
            "actions": actions,
            "domain": world.get("domain_name", ""),
            "file": document,
        }
        yield place, {**simulation, **shared}


def _tools(definitions: Any) -> list[dict] | None:
    """tau2's tool signatures (name -> doc and params, a JSON schema) as function docs."""
    if isinstance(definitions, list):
        return definitions
    if not isinstance(definitions, dict):
        return None
    docs = []
    for name, one in definitions.items():
        one = one if isinstance(one, dict) else {}
        parameters = one.get("params") if isinstance(one.get("params"), dict) else {}
        docs.append({"name": name, "description": str(one.get("doc") or ""), "parameters": parameters})
    return docs


def _tau2_turns(policy: Any, raw: list) -> Turns:
    turns = Turns()
    turns.say("system", read_parts(policy))
    for message in _flat(raw):
        role, parts = message.get("role"), read_parts(message.get("content"))
        if role == "assistant":
            calls = require(message.get("tool_calls") or [], list, '"tool_calls"')
            parts.calls = [call_of(require(call, dict, "a tool call")) for call in calls]
            parts.reasoning = reasoning_of(message)
            turns.answer(parts, source=message)
        elif role == "tool":
            if message.get("requestor", "assistant") == "assistant":
                turns.result(message.get("id"), parts, message.get("error") is True)
        elif role != "user" or not message.get("tool_calls"):
            turns.say(role, parts)
    return turns


def _flat(raw: list) -> Iterable[dict]:
    """Messages; a message that bundles several results becomes one message per result."""
    for message in raw:
        bundle = require(message, dict, "a message").get("tool_messages")
        for one in require(bundle, list, '"tool_messages"') if bundle is not None else [message]:
            yield (
                require(one, dict, "a message")
                if bundle is None
                else {"role": "tool", **require(one, dict, "a result")}
            )
