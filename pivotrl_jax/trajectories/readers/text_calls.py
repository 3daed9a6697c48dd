"""Chat messages whose calls are written in the text -> messages with `tool_calls` and tool results.

The dialect is found per conversation. A turn that shows the marks of a call which cannot be read is skipped
(unparseable_call); it never becomes a talk turn.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects.base import Schemas, TextCalls, properties_of, schemas_of
from pivotrl_jax.chat.json_text import lenient_json, without_nulls
from pivotrl_jax.chat.messages import named_call, parse_arguments, tool_call
from pivotrl_jax.chat.reasoning import PART_TYPES, reasoning_of, split_all_thinking, split_thinking
from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers import result_steps
from pivotrl_jax.trajectories.readers.building import BY_ORDER
from pivotrl_jax.trajectories.readers.lenient_calls import repaired
from pivotrl_jax.trajectories.readers.react_steps import split_steps
from pivotrl_jax.trajectories.readers.result_steps import split_results

NATIVE = "native"  # calls stand in `tool_calls`

TEXT_TYPES = ("text", "input_text", "output_text")

# In these dialects the message after a call is always its result: nobody else speaks.
COMMANDS = ("qwen3_coder", "command_tags", "bash_fence", "last_fence", "react")

# In these, what is said has marks too.
ROUTED = ("harmony", "functionary")

_RESPONSE = re.compile(r"<(tool_response|function_results|tool_result|tool_output)>(.*?)</\1>", re.DOTALL)
_SWE_AGENT = re.compile(r"bash-\$|\(Open file:|\(Current directory:")
_ASKS_FOR_FENCE = re.compile(
    r"```(?:bash|sh|shell|mswea_bash_command)|(?:bash|shell) code block", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Read:
    """A conversation whose calls were found."""

    messages: list[Message]  # more than before, where one message held several results
    dialect: str  # a key of DIALECTS, NATIVE, or "" for a conversation without calls
    skip: dict[int, str]  # index into `messages` -> slug, of turns whose calls cannot be read


def read_calls(messages: Sequence[Message], tools: list[dict]) -> Read:
    """The conversation with calls and results in the form of OpenAI's messages."""
    schemas = schemas_of(tools)
    messages = [_with_text(m) for m in messages]
    native = any(_role(m) == "assistant" and m.get("tool_calls") for m in messages)
    messages = messages if native else split_results(split_steps(messages, schemas))
    texts = {
        i: split_thinking(m["content"])[1]
        for i, m in enumerate(messages)
        if _role(m) == "assistant" and isinstance(m.get("content"), str) and not m.get("tool_calls")
    }
    if native:
        messages, others = without_doubles(messages, schemas)
        return Read(messages, NATIVE, _unread(messages, texts, schemas) | others)
    dialect = _dialect(messages, texts, schemas)
    if not dialect:
        return Read(messages, "", _unread(messages, texts, schemas))
    return _Conversion(messages, texts, dialect, schemas).read()


def without_doubles(messages: Sequence[Message], schemas: Schemas) -> tuple[list[Message], dict[int, str]]:
    """(messages whose texts do not hold the calls once more that stand in their `tool_calls`, index -> slug
    of the turns whose text makes other calls than these)."""
    once = [_without_double(m, schemas) for m in messages]
    others = {i: UNREADABLE for i, (_, makes_others) in enumerate(once) if makes_others}
    return [message for message, _ in once], others


def _without_double(message: Any, schemas: Schemas) -> tuple[Any, bool]:
    """(a message whose text does not hold the calls once more that stand in its `tool_calls`, whether the
    text makes other calls than these)."""
    calls = message.get("tool_calls") if _role(message) == "assistant" else None
    text = split_thinking(_text(message))[1]
    if not isinstance(calls, list) or not calls or not text:
        return message, False
    wanted = [named and [named[0], parse_arguments(named[1])] for named in map(named_call, calls)]
    others = False
    for dialect in dialects.DIALECTS.values():
        if dialect.sure and any(mark in text for mark in dialect.marks):
            found = dialect.read(text, schemas)
            written = [[c.name, c.arguments] for c in found.calls]
            if without_nulls(wanted) == without_nulls(written) and not found.fault:
                return {**message, "content": _text(message).removesuffix(text) + found.content}, False
            others = others or bool(found.calls)
    return message, others


def _with_text(message: Any) -> Any:
    """A message whose content is text, where it was a list of text and thinking."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not content:
        return message
    if not all(isinstance(p, (str, dict)) for p in content):
        return message
    kinds = {str(p.get("type", "text")) if isinstance(p, dict) else "text" for p in content}
    texts = [p if isinstance(p, str) else p.get("text") for p in content if not _is_thinking(p)]
    if not kinds <= {*TEXT_TYPES, *PART_TYPES} or not all(isinstance(t, str) for t in texts):
        return message
    thought = {"reasoning_content": t} if (t := reasoning_of(message)) else {}
    return {**message, "content": "".join(texts), **thought}


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in PART_TYPES


UNREADABLE = "unparseable_call"


def _unread(messages: Sequence[Message], texts: dict[int, str], schemas: Schemas) -> dict[int, str]:
    """Turns whose text shows a call that was not read. Where the prompt asks for one shell fence, two of them
    are such a call too, and so is one where a shell is documented: it may be advice, or have been run."""
    asked = any(map(_ASKS_FOR_FENCE.search, map(_text, messages[:2])))
    has_shell = any(p in ("command", "cmd") for name in schemas for p in properties_of(schemas, name))

    def may_run(text: str) -> bool:
        found = dialects.read(text, "bash_fence", schemas)
        return bool((asked and found.fault) or (has_shell and found.calls))

    return {i: UNREADABLE for i, t in texts.items() if dialects.shows_a_call(t, schemas) or may_run(t)}


def _dialect(messages: Sequence[Message], texts: dict[int, str], schemas: Schemas) -> str:
    """The dialect in which most turns can be read without a fault; "" if there is none."""
    best, most = "", (0, 0)
    for name, dialect in dialects.DIALECTS.items():
        if not dialect.sure and most[0]:
            break  # unmistakable dialects come first in the table, and one readable turn is enough
        marked = {i: t for i, t in texts.items() if any(mark in t for mark in dialect.marks)}
        found = {i: _read(t, name, schemas) for i, t in marked.items()}
        calls = {i for i, f in found.items() if f.calls and not f.fault}
        score = len(calls), -sum(bool(f.fault) for f in found.values())
        if score > most and (dialect.sure or _evidence(name, calls, found, messages, schemas)):
            best, most = name, score
    return best


def _read(text: str, dialect: str, schemas: Schemas) -> TextCalls:
    """As the policy's completions are read, and with repairs that only demonstrations get."""
    found = dialects.read(text, dialect, schemas)
    found = repaired(text, dialect, schemas) or found if found.fault else found
    undocumented = schemas and not any(c.name in schemas for c in found.calls)
    # JSON with a name may be the answer itself
    return TextCalls(text) if dialect in ("json", "json_fence") and found.calls and undocumented else found


def _evidence(name: str, calls: set[int], found: dict, messages: Sequence[Message], schemas: Schemas) -> bool:
    """Whether turns that look like calls of an unmarked dialect are calls."""
    if name in ("json", "pythonic"):
        return True  # the whole text has the form of a call
    after = [messages[i + 1] for i in calls if i + 1 < len(messages)]
    answers = [_text(m) for m in after if _role(m) in ("user", "tool")]
    answered = any(_role(m) == "tool" for m in after) or any(map(dialects.OBSERVATION.match, answers))
    if name == "json_fence" and not any(found[i].content for i in calls):
        return True
    if name in ("functionary", "react", "json_fence"):
        named = {c.name for i in calls for c in found[i].calls}
        prompt = " ".join(map(_text, messages[:2]))
        return answered or bool(named & schemas.keys()) or any(n in prompt for n in named)
    if name == "last_fence":
        return answered or any(map(_SWE_AGENT.search, answers))
    first = [_text(m) for m in messages[:2] if _role(m) in ("system", "user")]
    return answered or any(map(_ASKS_FOR_FENCE.search, first))


def _role(message: Any) -> str:
    return message.get("role") if isinstance(message, dict) else ""


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


@dataclasses.dataclass
class _Conversion:
    """Messages with their calls, and the results that are still to come."""

    source: Sequence[Message]
    texts: dict[int, str]
    dialect: str
    schemas: Schemas
    messages: list[Message] = dataclasses.field(default_factory=list)
    skip: dict[int, str] = dataclasses.field(default_factory=dict)
    waiting: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (id, name): no result yet

    def read(self) -> Read:
        for i, message in enumerate(self.source):
            if i in self.texts:
                self._turn(i, message)
            elif _role(message) in ("user", "tool") and self.waiting and _text(message):
                self._results(message)
            else:
                self.messages.append(message)
        return Read(self.messages, self.dialect, self.skip)

    def _turn(self, i: int, message: Message) -> None:
        text = self.texts[i]
        found = _read(text, self.dialect, self.schemas)
        holds_results = found.calls and result_steps.INSIDE.search(found.content)
        required = self.dialect in ("bash_fence", "last_fence") and not found.calls
        where = split_all_thinking(text)[0] if found.calls else text  # a call in thinking is none
        shown = dialects.shows_a_call(where, self.schemas)
        if found.fault or holds_results or required or shown:
            self.skip[len(self.messages)] = UNREADABLE
            self.messages.append(message)
            self.waiting = []
            return
        calls = [tool_call(c.name, c.arguments, f"call_{i}_{n}") for n, c in enumerate(found.calls)]
        self.waiting = [(c["id"], c["function"]["name"]) for c in calls]
        if calls:
            thought = split_thinking(message["content"])[0]
            message = {**message, "content": found.content, "tool_calls": calls}
            if thought and not message.get("reasoning_content"):
                message["reasoning_content"] = thought
            message = self._with_words_before(message)
        elif self.dialect in ROUTED:
            message = {**message, "content": message["content"].removesuffix(text) + found.content}
        self.messages.append(message)

    def _with_words_before(self, message: Message) -> Message:
        """A message that calls, joined with the one before it if that is the same response's text."""
        before = self.messages[-1] if self.messages else {}
        plain = _role(before) == "assistant" and isinstance(before.get("content"), str)
        if not plain or before.get("tool_calls") or len(self.messages) - 1 in self.skip:
            return message
        self.messages.pop()
        texts = [m["content"] for m in (before, message) if m["content"]]
        return {**before, **message, "content": "\n".join(texts)}

    def _results(self, message: Message) -> None:
        text = message["content"]
        blocks = [m[2].strip("\r\n") for m in _RESPONSE.finditer(text)]
        if blocks:
            rest = _RESPONSE.sub("", text).strip()
            last = len(self.waiting) - 1
            if len(blocks) > len(self.waiting):  # the last call gets what is left
                blocks = [*blocks[:last], "\n".join(blocks[last:])]
        elif (
            message["role"] == "tool"
            or self.dialect in COMMANDS
            or dialects.OBSERVATION.match(text)
            or _is_json(text)
        ):
            blocks, rest = [text], ""
        else:
            self.waiting = []
            self.messages.append(message)
            return
        for block in blocks:
            id = self._called(message.get("name") if len(blocks) == 1 else _name_in(block))
            self.messages.append({"role": "tool", "tool_call_id": id, "content": block, BY_ORDER: True})
        if rest:
            self.messages.append({"role": "user", "content": rest})
            self.waiting = []

    def _called(self, name: Any) -> str:
        """The id of the call that a result belongs to: the first that has its name, else the first."""
        at = next((i for i, (_, called) in enumerate(self.waiting) if called == name), 0)
        return self.waiting.pop(at)[0]


def _name_in(block: str) -> Any:
    """The name of the function in a result that says it: {"name": ..., "content": ...}."""
    try:
        value = lenient_json(block)
    except ValueError:
        return None
    return value.get("name") if isinstance(value, dict) and "content" in value else None


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list, as tools return it."""
    try:
        return isinstance(lenient_json(text), (dict, list))
    except ValueError:
        return False
