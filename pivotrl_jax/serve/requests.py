"""What a client may ask: the bodies of /v1/chat/completions and /v1/completions, read and checked.

Every field of OpenAI's API is read, ignored because it asks nothing of the model (IGNORED), accepted with the
one value that asks nothing (NEUTRAL), or refused by name, so that nothing is left out silently.
"""

import dataclasses
import math
import secrets
from typing import Any

from pivotrl_jax.chat.actions import THINK
from pivotrl_jax.chat.json_text import MAX_NESTING, nesting, read_object
from pivotrl_jax.chat.messages import read_messages
from pivotrl_jax.chat.reasoning import split_thinking
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.serve.engine import Settings
from pivotrl_jax.serve.programs import TOP

MAX_MESSAGES, MAX_TOOLS = 4096, 512
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
LOWEST_TEMPERATURE = 1e-5  # lower ones, but for 0, overflow float32

IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "spaces_between_special_tokens",
}  # fmt: skip
NEUTRAL: dict[str, tuple] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "include_stop_str_in_output": (False,),
}
CONSTRAINED = (
    'it needs decoding that is constrained to calls, which this server does not have; use "auto" or "none"'
)


class BadRequest(InputError):
    """A request that is refused, in OpenAI's terms."""

    def __init__(self, sentence: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(sentence)
        self.param, self.status, self.code = param, status, code


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server can do for one request."""

    model: str  # the name under which it is served
    context: int  # tokens of prompt and completion
    prompt_tokens: int
    completion_tokens: int
    vocabulary: int
    choices: int  # completions


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request, read. Either `messages`, with `tools`, or `prompts`, which are texts or token ids."""

    settings: Settings  # max_tokens 0: as many as there is room for
    seeded: bool  # else every prompt gets a seed of its own
    n: int
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    log_probs: bool
    top: int  # most likely tokens to report beside each
    stream: bool
    include_usage: bool
    return_token_ids: bool
    skip_special: bool
    messages: list[Message] = dataclasses.field(default_factory=list)
    tools: list[dict] = dataclasses.field(default_factory=list)
    one_call: bool = False  # parallel_tool_calls is false
    thinking: bool | None = None  # the template's enable_thinking; None: as the server was told
    prompts: list = dataclasses.field(default_factory=list)
    add_special: bool = False


class _Fields:
    """The fields of a body. A field that is null counts as left out."""

    def __init__(self, body: dict):
        self._body, self._read = body, set()

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        value = self._body.get(name)
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise BadRequest(f"{name} is {_shown(value)}; want true or false", name)
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequest(f"{name} is {_shown(value)}; want a whole number from {low} to {high}", name)
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.get(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high:
            raise BadRequest(f"{name} is {_shown(value)}; want a number from {low:g} to {high:g}", name)
        return float(value)

    def check_rest(self) -> None:
        """Raises BadRequest for a field that was not read and would change the answer."""
        for name, value in self._body.items():
            if name in self._read or name in IGNORED or value is None:
                continue
            if name not in NEUTRAL:
                raise BadRequest(f"{_shown(name)} is not supported by this server; leave it out", name[:64])
            if not any(value == neutral for neutral in NEUTRAL[name]):
                raise BadRequest(f"{name} is not supported by this server; leave it out", name)


def _shown(value: Any) -> str:
    """A value in an error sentence; long ones are cut."""
    text = repr(value) if isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"
    return text if len(text) <= 64 else text[:64] + "..."


def read_body(raw: bytes) -> dict:
    """The JSON object of a request. Raises BadRequest."""
    try:
        body = read_object(raw)
    except InputError as e:
        raise BadRequest(f"the body is {str(e).split('; fix')[0]}; send a JSON object in UTF-8") from None
    if nesting(body) > MAX_NESTING:
        raise BadRequest(f"the body is nested deeper than {MAX_NESTING} levels")
    return body


def read_chat(body: dict, limits: Limits) -> Ask:
    """A body of /v1/chat/completions. Raises BadRequest."""
    fields = _Fields(body)
    _check_model(fields, limits)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages is missing or empty; want a list of chat messages", "messages")
    if len(messages) > MAX_MESSAGES:
        raise BadRequest(f"{len(messages)} messages; at most {MAX_MESSAGES} are taken", "messages")
    try:
        messages = read_messages([_said(i, message) for i, message in enumerate(messages)], _own_thinking)
    except InputError as e:
        raise BadRequest(str(e), "messages") from None
    top = fields.whole("top_logprobs", 0, TOP, 0)
    log_probs = fields.flag("logprobs")
    if top and not log_probs:
        raise BadRequest("top_logprobs needs logprobs; set it to true", "top_logprobs")
    limit = 0
    for name in ("max_tokens", "max_completion_tokens"):
        if fields.get(name) is not None:
            limit = fields.whole(name, 1, limits.completion_tokens, 1)
    common = _common(fields, limits, limit, top)
    tools = _tools(fields)
    ask = Ask(
        **common,
        log_probs=log_probs,
        top=top,
        messages=messages,
        tools=tools,
        one_call=not fields.flag("parallel_tool_calls", True),
        thinking=_thinking(fields),
    )
    fields.check_rest()
    return ask


def _said(i: int, message: Any) -> Any:
    """A message with a refusal in the place of its content. Raises BadRequest for what would be lost."""
    if not isinstance(message, dict):
        return message
    for name, instead in (("function_call", "tool_calls"), ("audio", "content")):
        if message.get(name) is not None:
            raise BadRequest(f'messages[{i}]: {name} is not supported; use "{instead}"', "messages")
    refusal = message.get("refusal")
    if not refusal:
        return message
    if message.get("content") or not isinstance(refusal, str):
        raise BadRequest(f"messages[{i}]: want refusal as a text, and no content beside it", "messages")
    return {**message, "content": refusal}


def _own_thinking(content: str) -> tuple[str, str]:
    """(thinking, the rest) of a content in the history. Only `<think>` is read: other tags are words."""
    return split_thinking(content) if content.lstrip().startswith(THINK) else ("", content)


def read_completion(body: dict, limits: Limits) -> Ask:
    """A body of /v1/completions. Raises BadRequest."""
    fields = _Fields(body)
    _check_model(fields, limits)
    prompts = _prompts(fields.get("prompt"), limits)
    log_probs = fields.get("logprobs") is not None
    top = fields.whole("logprobs", 0, TOP, 0)
    max_tokens = fields.whole("max_tokens", 1, limits.completion_tokens, min(16, limits.completion_tokens))
    common = _common(fields, limits, max_tokens, top)
    if len(prompts) * common["n"] > limits.choices:
        raise BadRequest(
            f"{len(prompts)} prompts with n={common['n']} ask for more than {limits.choices} choices",
            "prompt",
        )
    add_special = fields.flag("add_special_tokens")
    fields.check_rest()
    return Ask(**common, log_probs=log_probs, top=top, prompts=prompts, add_special=add_special)


def _check_model(fields: _Fields, limits: Limits) -> None:
    model = fields.get("model")
    if not isinstance(model, str):
        raise BadRequest(f'model is missing; this server has "{limits.model}"', "model")
    if model != limits.model:
        sentence = f'the model {_shown(model)} does not exist; this server has "{limits.model}"'
        raise BadRequest(sentence, "model", 404, "model_not_found")


def _common(fields: _Fields, limits: Limits, max_tokens: int, top: int) -> dict:
    """What both kinds of requests have, as fields of an Ask."""
    stream, temperature = fields.flag("stream"), fields.number("temperature", 0, 100, 1.0)
    if 0 < temperature < LOWEST_TEMPERATURE:
        raise BadRequest(
            f"temperature is {temperature:g}; want 0, the most likely token, or {LOWEST_TEMPERATURE} or more",
            "temperature",
        )
    options = fields.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise BadRequest('stream_options: only "include_usage" is supported', "stream_options")
    include_usage = options.get("include_usage") or False
    if not isinstance(include_usage, bool):
        raise BadRequest("stream_options: include_usage is true or false", "stream_options")
    settings = Settings(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=max(fields.number("top_p", 0, 1, 1.0), 1e-9),  # the most likely token always stays
        top_k=max(fields.whole("top_k", -1, 2**31 - 1, 0), 0),
        min_p=fields.number("min_p", 0, 1, 0.0),
        seed=fields.whole("seed", -(2**63), 2**63 - 1, 0),
        ignore_stop=fields.flag("ignore_eos"),
        top=top > 0,
        soon=stream,
    )
    return {
        "settings": settings,
        "seeded": fields.get("seed") is not None,
        "n": fields.whole("n", 1, limits.choices, 1),
        "stop": _stops(fields.get("stop", [])),
        "stop_ids": frozenset(_ids(fields.get("stop_token_ids", []), "stop_token_ids", 2**31)),
        "stream": stream,
        "include_usage": include_usage,
        "return_token_ids": fields.flag("return_token_ids"),
        "skip_special": fields.flag("skip_special_tokens"),
    }


def _stops(stop: Any) -> tuple[str, ...]:
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(s, str) and s for s in stop[: MAX_STOPS + 1]):
        raise BadRequest("stop: want a text or a list of texts, none of them empty", "stop")
    if len(stop) > MAX_STOPS or any(len(s) > MAX_STOP_LENGTH for s in stop):
        raise BadRequest(
            f"stop: at most {MAX_STOPS} texts of up to {MAX_STOP_LENGTH} characters are taken", "stop"
        )
    return tuple(stop)


def _ids(ids: Any, param: str, vocabulary: int) -> list[int]:
    if not isinstance(ids, list):
        raise BadRequest(f"{param}: want a list of token ids", param)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise BadRequest(f"{param}: {_shown(token)} is no token id below {vocabulary}", param)
    return ids


def _tools(fields: _Fields) -> list[dict]:
    """The tools to show the model: none for tool_choice "none"."""
    given, choice = fields.get("tools", []), fields.get("tool_choice", "auto")
    if isinstance(given, list):
        if len(given) > MAX_TOOLS:
            raise BadRequest(f"{len(given)} tools; at most {MAX_TOOLS} are taken", "tools")
        for i, tool in enumerate(given):
            if not isinstance(tool, dict) or tool.get("type") != "function":
                raise BadRequest(f'tools[{i}]: only tools of type "function" are supported', "tools")
    try:
        tools = read_tools(given)
    except InputError as e:
        raise BadRequest(str(e), "tools") from None
    if choice in ("auto", "none"):
        return tools if choice == "auto" else []
    if choice == "required" or isinstance(choice, dict):
        shown = '"required"' if choice == "required" else "a named function"
        raise BadRequest(f"tool_choice is {shown}: {CONSTRAINED}", "tool_choice")
    raise BadRequest(f'tool_choice is {_shown(choice)}; want "auto" or "none"', "tool_choice")


def _thinking(fields: _Fields) -> bool | None:
    """`enable_thinking` of chat_template_kwargs. Others are refused: some would replace the template."""
    arguments = fields.get("chat_template_kwargs", {})
    if not isinstance(arguments, dict) or set(arguments) - {"enable_thinking"}:
        raise BadRequest(
            'chat_template_kwargs: only {"enable_thinking": true or false} is supported',
            "chat_template_kwargs",
        )
    value = arguments.get("enable_thinking")
    if value is not None and not isinstance(value, bool):
        raise BadRequest("chat_template_kwargs: enable_thinking is true or false", "chat_template_kwargs")
    return value


def _prompts(prompt: Any, limits: Limits) -> list:
    """A list of texts and lists of token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise BadRequest("prompt is missing or empty; want a text, token ids, or a list of these", "prompt")
    if all(isinstance(p, str) for p in prompt):
        return prompt
    if all(isinstance(p, list) for p in prompt):
        return [_ids(p, "prompt", limits.vocabulary) for p in prompt]
    return [_ids(prompt, "prompt", limits.vocabulary)]


def settings_for(ask: Ask, prompt: list[int], limits: Limits) -> Settings:
    """The settings for one of the prompts, with `max_tokens` and `seed` filled in. Raises BadRequest when
    prompt and completion do not fit."""
    settings = ask.settings
    if not prompt:
        raise BadRequest("the prompt has no tokens; there is nothing to continue")
    if len(prompt) > limits.prompt_tokens:
        raise BadRequest(
            f"the prompt has {len(prompt)} tokens, and at most {limits.prompt_tokens} are taken; shorten it",
            code="context_length_exceeded",
        )
    room = limits.context - len(prompt)
    if room < max(settings.max_tokens, 1):
        asked = f" and {settings.max_tokens} to generate" if settings.max_tokens else ""
        raise BadRequest(
            f"the context has {limits.context} tokens, but there are {len(prompt)} in the prompt{asked}; "
            "shorten the prompt or lower max_tokens",
            "max_tokens" if room > 0 else None,
            code="context_length_exceeded",
        )
    return dataclasses.replace(
        settings,
        max_tokens=settings.max_tokens or min(room, limits.completion_tokens),
        seed=settings.seed if ask.seeded else secrets.randbits(63),
    )
