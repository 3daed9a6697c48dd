"""An action and the answers to its calls, as messages. Calls are numbered across the episode: call_0, ..."""

import json

from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.records import Action, Call, Message


def assistant_message(action: Action, first: int) -> Message:
    """The assistant message of an action, its calls numbered from `first`. Arguments that JSON cannot express
    become {}."""
    message = action_to_message(action)
    for i, call in enumerate(message.get("tool_calls", [])):
        call["id"] = f"call_{first + i}"
        call["function"]["arguments"] = _json_arguments(call["function"]["arguments"])
    return message


def tool_message(number: int, call: Call, output: str) -> Message:
    """The answer to the call with this number."""
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": call.name, "content": output}


def _json_arguments(arguments: object) -> dict:
    if not isinstance(arguments, dict):
        return {}
    try:
        json.dumps(arguments, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):  # lone surrogates are a ValueError
        return {}
    return arguments
