"""Rows of typed steps -> chat messages: the Agent Data Protocol, R2E-Gym's steps, and LangChain's agents.

An API action is a call of its function; a code action is a call of `bash` or of the tool named after its
language. An observation of the environment answers the action before it. A step that holds no text (a web
page with its picture) leaves out the turns after it.
"""

import json
from typing import Any

from pivotrl_jax.chat.json_text import lenient_json
from pivotrl_jax.chat.messages import tool_call
from pivotrl_jax.records import Message

_SHELLS = ("bash", "sh", "shell")
_R2E = "trajectory_steps"


def adp(row: dict) -> tuple[list[Message], tuple[str, ...]] | None:
    """(messages, fields) of a row whose items have a `class_`; None for any other row."""
    key = next((k for k in ("content", "trajectory", "steps") if _has_classes(row.get(k))), "")
    if not key:
        return None
    messages: list[Message] = []
    for step in row[key]:
        messages.append(_adp_message(step, messages))
    return messages, (key,)


def _has_classes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "class_" in value[0]


def _adp_message(step: Any, before: list[Message]) -> Message:
    kind = step.get("class_") if isinstance(step, dict) else None
    content = step.get("content") if isinstance(step, dict) else None
    if kind == "text_observation":
        answers = bool(before) and bool(before[-1].get("tool_calls")) and step.get("source") != "user"
        return {"role": "tool" if answers else "user", "content": content}
    if kind == "message_action":
        return _action(step, content, None)
    if kind == "api_action":
        call = {"function": {"name": step.get("function"), "arguments": step.get("kwargs")}}
        return _action(step, step.get("description"), call)
    if kind == "code_action":
        language = str(step.get("language") or "").lower()
        name, key = ("bash", "command") if language in _SHELLS else (language or "code", "code")
        return _action(step, step.get("description"), tool_call(name, {key: content}))
    if kind in ("web_observation", "image_observation"):
        return {"role": "user", "content": [{"type": kind}]}
    return {"role": kind}


def _action(step: dict, text: Any, call: dict | None) -> Message:
    thought = step.get("description") if call is None else None
    message: Message = {"role": "assistant", "content": text if isinstance(text, str) else ""}
    if call is not None:
        message["tool_calls"] = [call]
    return {**message, "reasoning_content": thought} if isinstance(thought, str) and thought else message


def r2e(row: dict) -> tuple[list[Message], tuple[str, ...]] | None:
    """(messages, fields) of a row with R2E-Gym's steps, whose actions are written in a dialect."""
    steps = row.get(_R2E)
    if not isinstance(steps, list):
        return None
    messages: list[Message] = [{"role": "user", "content": row.get("problem_statement") or row.get("task")}]
    for step in steps:
        if not isinstance(step, dict):
            messages.append({"role": type(step).__name__})
            continue
        said = [step[key] for key in ("thought", "action") if isinstance(step.get(key), str) and step[key]]
        messages.append({"role": "assistant", "content": "\n\n".join(said)})
        if isinstance(step.get("observation"), str) and step["observation"]:
            messages.append({"role": "user", "content": step["observation"]})
    return messages, (_R2E, "problem_statement", "task")


def agent_steps(row: dict) -> tuple[list[Message], tuple[str, ...]] | None:
    """(messages, fields) of what LangChain's AgentExecutor returns: `intermediate_steps` of an action, as an
    object or as a list of its fields, and what was observed."""
    steps = row.get("intermediate_steps")
    asked = next((k for k in ("input", "question", "query") if isinstance(row.get(k), str)), "")
    if not isinstance(steps, list) or not steps or not asked:
        return None
    messages: list[Message] = [{"role": "user", "content": row[asked]}]
    for step in steps:
        action, seen = step if isinstance(step, list) and len(step) == 2 else (step, None)
        tool, given, log = _agent_action(action)
        function = {"name": tool, "arguments": given if isinstance(given, dict) else _text_argument(given)}
        thought = log.partition("\nAction:")[0].removeprefix("Thought:").strip() if "\nAction:" in log else ""
        messages.append({"role": "assistant", "content": thought, "tool_calls": [{"function": function}]})
        if seen is not None:
            messages.append({"role": "tool", "content": seen if isinstance(seen, str) else json.dumps(seen)})
    answer = next((k for k in ("output", "answer", "response") if isinstance(row.get(k), str) and row[k]), "")
    messages += [{"role": "assistant", "content": row[answer]}] if answer else []
    return messages, ("intermediate_steps", asked, *([answer] if answer else []))


def _agent_action(action: Any) -> tuple[Any, Any, str]:
    """(tool, input, log) of an action."""
    if isinstance(action, dict):
        inner = action["kwargs"] if isinstance(action.get("kwargs"), dict) else action
        values = [inner.get(key) for key in ("tool", "tool_input", "log")]
    else:
        values = [*action, None, None, None][:3] if isinstance(action, list) else [None, None, None]
    return values[0], values[1], values[2] if isinstance(values[2], str) else ""


def _text_argument(given: Any) -> Any:
    """A tool's input that is a text: its JSON object, or the argument "input"."""
    try:
        value = lenient_json(given) if isinstance(given, str) else None
    except ValueError:
        value = None
    if isinstance(value, dict) or (isinstance(given, str) and given.lstrip().startswith("{")):
        return given if value is None else value  # what is no JSON stays text, and its turn is skipped
    return {"input": given}


def instances(document: Any) -> list[dict] | None:
    """The rows of one API of ToolAlpaca, each an agent's steps, with the API's functions; None for any other
    document."""
    found = document.get("Instances") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(i, dict) and "input" in i for i in found):
        return None
    docs = document.get("Function_Description")
    names = [k for k in docs if k != "components"] if isinstance(docs, dict) else []
    tools = [{"name": name, "description": str(docs[name])} for name in names]
    return [{**instance, "tools": tools} for instance in found]


STEP_FORMS = (adp, r2e, agent_steps)
