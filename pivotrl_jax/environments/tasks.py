"""A scripted task: one multi-turn task in BFCL's format, and how it is read.

Source of the format: `BFCL_v4_multi_turn_*.json` of bfcl-eval (user turns, initial state, classes involved)
with the ground truth of `possible_answer/` and the function docs of `multi_turn_func_doc/` added.
`scenario`, `replies` and `bundles` are additions of this project.
"""

import ast
import dataclasses
import re
from typing import Any

from pivotrl_jax.environments import base
from pivotrl_jax.records import InputError, Message

# BFCL's wording (constants/default_prompts.py) for functions that become available in the middle of an
# episode.
NEW_FUNCTIONS = "{functions}\nI have updated some more functions you can choose from. What about now?"


@dataclasses.dataclass(frozen=True)
class ScriptedTask:
    """What the user says at every turn, the state the backends start in, and the expert's calls."""

    id: str
    category: str  # "multi_turn_base", "toolbox_base", ...
    user_turns: list[list[Message]]
    initial_config: dict[str, dict]  # class name -> state
    involved_classes: list[str]
    ground_truth: list[list[str]]  # per user turn, Python call strings "f(a=1, b='x')"
    docs: list[dict]  # raw BFCL docs: name, description, parameters
    # user turn -> functions first offered there
    missed_function: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    scenario: str = ""  # tasks that share a scenario stay on one side of a split
    replies: list[str] = dataclasses.field(default_factory=list)  # expert's final text per user turn
    # per user turn: calls per action; [] = one call per action
    bundles: list[list[int]] = dataclasses.field(default_factory=list)

    def start(self, max_steps: int) -> base.Episode:
        """An episode that fails after more than `max_steps` calling actions in one user turn."""
        from pivotrl_jax.environments.episode import ScriptedEpisode  # that module imports this one

        return ScriptedEpisode(self, max_steps)

    def offered(self, turn: int) -> list[dict]:
        """The docs of the functions that the assistant has been shown by user turn `turn` (from 0)."""
        late = {name for t, names in self.missed_function.items() if t > turn for name in names}
        return [doc for doc in self.docs if doc["name"] not in late]

    def messages(self, turn: int) -> list[Message]:
        """What the user says at `turn`; docs of functions that are new there come first, as in BFCL."""
        names = self.missed_function.get(turn)
        if not names:
            return list(self.user_turns[turn])
        docs = [doc for doc in self.docs if doc["name"] in names]
        return [{"role": "user", "content": NEW_FUNCTIONS.format(functions=docs)}, *self.user_turns[turn]]


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`f(1, a='x')` -> ("f", [1], {"a": "x"}). Literals only; nothing is evaluated.

    Raises InputError when the text is not one call of a plain name with literal arguments.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("not a call of a plain name")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("** is not allowed")
        positional = [ast.literal_eval(value) for value in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as e:
        raise InputError(
            f"ground-truth call {text[:200]!r} cannot be read ({e}); write it as f(name=literal)"
        ) from None
    return call.func.id, positional, named


def _need(condition: bool, origin: str, field: str, want: str, got: Any) -> None:
    if not condition:
        text = repr(got)
        raise InputError(
            f"{origin}: field {field!r} must be {want}, got {text[:120]}; fix the task or leave it out"
        )


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _user_turns(d: dict, origin: str) -> list[list[Message]]:
    turns = d.get("question")
    _need(isinstance(turns, list) and bool(turns), origin, "question", "a list of user turns", turns)
    for t, turn in enumerate(turns):
        _need(isinstance(turn, list), origin, f"question[{t}]", "a list of messages", turn)
        for message in turn:
            ok = isinstance(message, dict) and message.get("role") in ("system", "user", "assistant")
            ok = ok and isinstance(message.get("content"), str)
            _need(ok, origin, f"question[{t}]", "messages with a role and a text content", message)
    return turns


def _docs(d: dict, origin: str) -> list[dict]:
    docs = d.get("function")
    _need(
        isinstance(docs, list) and bool(docs), origin, "function", "a non-empty list of function docs", docs
    )
    for doc in docs:
        ok = isinstance(doc, dict) and isinstance(doc.get("name"), str)
        parameters = doc.get("parameters") if ok else None
        ok = isinstance(parameters, dict) and isinstance(parameters.get("properties"), dict)
        _need(ok, origin, "function", 'docs with "name" and "parameters": {"properties": {...}}', doc)
    return docs


def _missed(d: dict, names: set[str], turns: int, origin: str) -> dict[int, list[str]]:
    missed = d.get("missed_function") or {}
    want = "an object from user turn to names of documented functions"
    _need(isinstance(missed, dict), origin, "missed_function", want, missed)
    for turn, late in missed.items():
        ok = str(turn).isdecimal() and int(turn) < turns and _strings(late) and set(late) <= names
        _need(ok, origin, "missed_function", want, missed)
    return {int(turn): list(late) for turn, late in missed.items()}


def task_from_dict(d: dict, origin: str) -> ScriptedTask:
    """Read one task in BFCL's format, with the docs under `function` and the calls under `ground_truth`.

    Every error sentence starts with `origin` ("file:line"). Raises InputError naming the field and the value.
    """
    _need(isinstance(d.get("id"), str) and bool(d["id"]), origin, "id", "a non-empty string", d.get("id"))
    origin = f"{origin} ({d['id']})"
    user_turns, docs = _user_turns(d, origin), _docs(d, origin)
    turns = len(user_turns)
    config, classes = d.get("initial_config"), d.get("involved_classes")
    ok = isinstance(config, dict) and all(isinstance(value, dict) for value in config.values())
    _need(ok, origin, "initial_config", "an object of objects", config)
    _need(_strings(classes) and bool(classes), origin, "involved_classes", "a list of class names", classes)
    truth = d.get("ground_truth")
    ok = isinstance(truth, list) and len(truth) == turns and all(_strings(calls) for calls in truth)
    _need(ok, origin, "ground_truth", f"{turns} lists of call strings, one per user turn", truth)
    try:
        for calls in truth:
            for call in calls:
                parse_call(call)
    except InputError as e:
        raise InputError(f"{origin}: {e}") from None
    replies, bundles = d.get("replies", []), d.get("bundles", [])
    _need(
        _strings(replies) and len(replies) in (0, turns), origin, "replies", f"[] or {turns} texts", replies
    )
    ok = isinstance(bundles, list) and len(bundles) in (0, turns)
    ok = ok and all(
        isinstance(sizes, list)
        and all(type(size) is int and size > 0 for size in sizes)
        and (not sizes or sum(sizes) == len(calls))
        for sizes, calls in zip(bundles, truth)
    )
    _need(ok, origin, "bundles", "[] or, per user turn, sizes that sum to its number of calls", bundles)
    category = d.get("category", d["id"].rsplit("_", 1)[0])
    scenario = d.get("scenario") or scenario_of(d["id"])
    _need(isinstance(category, str), origin, "category", "a string", category)
    _need(isinstance(scenario, str), origin, "scenario", "a string", scenario)
    missed = _missed(d, {doc["name"] for doc in docs}, turns, origin)
    return ScriptedTask(
        d["id"], category, user_turns, config, classes, truth, docs, missed, scenario, replies, bundles
    )


def scenario_of(task_id: str) -> str:
    """The scenario of a task, for splits. BFCL's four multi-turn categories share 200 numbered scenarios.

    "multi_turn_miss_func_49" -> "bfcl_multi_turn_49"; any other id is its own scenario.
    """
    match = re.fullmatch(r"multi_turn_[a-z_]+?_(\d+)", task_id)
    return f"bfcl_multi_turn_{match[1]}" if match else task_id
