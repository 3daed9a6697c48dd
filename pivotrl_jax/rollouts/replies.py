"""Requests to a served model, and what its replies say: plain JSON in, completions out. Nothing is sent here.

Two ways to ask: "completions" sends the token ids of the rendered prompt and gets token ids and log-probs
back; "chat" sends messages and tools and gets a message back, with the calls parsed by the server.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.chat.json_text import MAX_NESTING, nesting
from pivotrl_jax.chat.reasoning import FIELDS
from pivotrl_jax.chat.responses import argument_text
from pivotrl_jax.chat.template import well_formed
from pivotrl_jax.endpoints import Failure, choices_of
from pivotrl_jax.records import Candidate, Message
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.sampling import Sampling

COMPLETIONS, CHAT = "completions", "chat"
CALLED = ("tool_calls", "function_call")  # of finish_reason: of some servers, also where a limit cut it
FINISHED = ("stop", *CALLED)  # of finish_reason: the model ended its turn
NAME_LENGTH = 200  # characters kept of the names that a server gives itself


# ---- requests


def sampling_body(sampling: Sampling, samples: int, seed: int | None) -> dict:
    """What both ways have in common. What is off is said too: a server would otherwise fill it in from the
    model's generation_config.json."""
    body = {
        "n": samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,  # -1 is "all" for vLLM and SGLang alike
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "max_tokens": sampling.max_tokens,
    }
    return body if seed is None else {**body, "seed": seed}


def optional(body: dict) -> list[str]:
    """The fields that can be left out for a server that refuses them, without another distribution."""
    off = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0}
    if "messages" in body:
        off["return_token_ids"] = True
    return [name for name in body if name == "seed" or (name in off and body[name] == off[name])]


def completions_body(prompt: Sequence[int], stop_ids: Sequence[int]) -> dict:
    """The fields of a request for completions of token ids, beside those of `sampling_body`."""
    return {
        "prompt": [int(i) for i in prompt],
        "logprobs": 1,
        "return_token_ids": True,
        "stop_token_ids": list(stop_ids),
        "skip_special_tokens": False,
    }


def chat_body(
    candidate: Candidate, history_reasoning: bool, template_arguments: dict, samples: int = 1
) -> dict:
    """The fields of a request for chat completions at a candidate's state."""
    body: dict = {"messages": [_wire(m, history_reasoning) for m in candidate.messages]}
    if samples > 1:  # else `usage` tells how long the reply is
        body["return_token_ids"] = True
    if candidate.tools:
        body["tools"] = [
            tool if tool.get("type") == "function" else {"type": "function", "function": tool}
            for tool in candidate.tools
        ]
    if template_arguments:
        body["chat_template_kwargs"] = template_arguments
    return json.loads(well_formed(json.dumps(body, ensure_ascii=False)))


def _wire(message: Message, history_reasoning: bool) -> Message:
    """A message as the API wants it: arguments as text."""
    wire = {k: v for k, v in message.items() if k != "reasoning_content" or history_reasoning}
    if message.get("tool_calls"):
        wire["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{n}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": argument_text(call["function"]["arguments"]),
                },
            }
            for n, call in enumerate(message["tool_calls"])
        ]
    return wire


# ---- replies


def read_reply(value: dict, mode: str, most: int, limit: int) -> list[Completion] | Failure:
    """The first `most` whole completions of a reply; a failure if it has none. `limit`: the max_tokens that
    was asked for."""
    choices = choices_of(value)
    if isinstance(choices, Failure):
        return choices
    served = {
        "mode": mode,
        "model": _name(value.get("model")),
        "fingerprint": _name(value.get("system_fingerprint")),
    }
    usage = value.get("usage")
    length = usage.get("completion_tokens") if isinstance(usage, dict) and len(choices) == 1 else None

    def read(choice: Any) -> Completion | str:
        if not isinstance(choice, dict):
            return "no object"
        if mode != CHAT:
            return _ids_choice(choice, served)
        ids = choice.get("token_ids")
        tokens = len(ids) if isinstance(ids, list) and ids else length
        return _chat_choice(choice, served, isinstance(tokens, int) and tokens >= limit)

    found = [read(choice) for choice in choices[:most]]
    whole = [one for one in found if isinstance(one, Completion)]
    return whole or Failure(f"a reply without a whole choice ({found[0] if found else 'it has none'})")


def _name(value: Any) -> str:
    return value[:NAME_LENGTH] if isinstance(value, str) else ""


def _ids_choice(choice: dict, served: dict) -> Completion | str:
    """A choice with token ids; a word about what is wrong with it otherwise."""
    ids, reason = choice.get("token_ids"), choice.get("finish_reason")
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        return "no token_ids"
    if not isinstance(values, list) or len(values) != len(ids) or not all(map(_is_log_prob, values)):
        return "token_ids without a log-prob for each"
    if reason not in (*FINISHED, "length"):
        return f"finish_reason {reason!r}"
    values = [float(x) for x in values]
    return Completion(ids, values, list(values), reason != "length", served=served)


def _is_log_prob(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _chat_choice(choice: dict, served: dict, full: bool) -> Completion | str:
    """A choice with a message. `full`: it has as many tokens as were allowed, so a call in it does not say
    that the model ended its turn: vLLM gives "tool_calls" there in place of "length"."""
    message, reason = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict):
        return "no message"
    said = ("content", "refusal", "tool_calls", "function_call", *FIELDS)
    kept = {k: message[k] for k in said if message.get(k)}
    if nesting(kept) > MAX_NESTING:
        kept = {"fault": f"a reply nested deeper than {MAX_NESTING} levels"}
    if reason == "content_filter":
        kept["fault"] = "the service's content filter cut it"
    elif reason not in (*FINISHED, "length"):
        return f"finish_reason {reason!r}"
    cut = reason == "length" or (full and reason in CALLED)
    return Completion([], [], [], not cut, served={**served, "message": kept})
