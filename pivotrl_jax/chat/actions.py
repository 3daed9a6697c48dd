"""The text of a completion -> the action it stands for <-> an assistant message."""

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects import HERMES, Schemas, TextCalls
from pivotrl_jax.records import Action, Call, Message

# Change it whenever a reply could be read as another action, here or in dialects/, replies.py, reasoning.py:
# profiles and evaluations record it, since their rewards follow from it. tests/chat/test_reply_parser.py
# holds what the present version reads.
REPLY_PARSER = "1"

THINK, END_THINK = "<think>", "</think>"
QUOTES = "'\"`"


# ---- thinking


def quoted(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is only mentioned: stands between quotes or backticks."""
    return 0 < start and end < len(text) and text[start - 1] in QUOTES and text[end] in QUOTES


def marks(text: str, mark: str, start: int, spans: tuple[tuple[int, int], ...]) -> list[int]:
    """Where `mark` stands from `start` on, neither quoted nor inside one of `spans`, which are in order."""
    found, at, span = [], text.find(mark, start), 0
    while at >= 0:
        while span < len(spans) and spans[span][1] <= at:
            span += 1
        inside = span < len(spans) and spans[span][0] <= at
        if not inside and not quoted(text, at, at + len(mark)):
            found.append(at)
        at = text.find(mark, at + len(mark))
    return found


def _reply(text: str, dialect: str, schemas: Schemas) -> tuple[int, TextCalls]:
    """(where the reply begins, what it says and calls).

    Only text after the last `</think>` belongs to the reply. A `</think>` in an argument of a call, or
    between quotes, does not count.
    """
    found = dialects.read(text, dialect, schemas)
    ends = marks(text, END_THINK, 0, found.spans)
    if not ends:
        return 0, found
    start = ends[-1] + len(END_THINK)
    reply = dialects.read(text[start:], dialect, schemas)
    return start, reply


def parse_action(
    text: str, thinking_open: bool = False, dialect: str = HERMES, schemas: Schemas | None = None
) -> Action:
    """Parse a completion: `<think>...</think>`, text, and calls in a dialect (a key of `dialects.DIALECTS`).

    Never raises. A call inside thinking is not a call, nor is one after a `<think>` that is never closed.
    `thinking_open` says that the prompt already ended in `<think>`. `schemas` gives values their types in
    dialects that write them as plain text. One unreadable call makes the whole action malformed: `malformed`
    describes the first fault, `calls` holds those that could be read, and `content` the text outside of
    calls, stripped. A text that calls in another form only, or tries to, is malformed too: it is no talk.
    """
    schemas = schemas or {}
    start, reply = _reply(text, dialect, schemas)
    reasoning, rest = text[: max(start - len(END_THINK), 0)], text[start:]
    opened = marks(rest, THINK, 0, reply.spans)
    if start == 0 and thinking_open:
        opened = opened if opened and not text[: opened[0]].strip() else [0, *opened]
    if opened:
        thought = rest[opened[0] :].removeprefix(THINK)
        reasoning = reasoning.lstrip().removeprefix(THINK).strip("\n") + "\n" + thought
        before = dialects.read(rest[: opened[0]], dialect, schemas).content
        return Action(before, reasoning.strip("\n"), (), "a <think> block is never closed", text)
    fault = reply.fault
    if not fault and not reply.calls:
        other = dialects.attempted_call(rest, schemas, dialect)
        fault = f"a call in the form of {other}, which the chat template does not write" if other else ""
    return Action(reply.content, reasoning.lstrip().removeprefix(THINK).strip("\n"), reply.calls, fault, text)


# ---- action <-> message


def action_to_message(action: Action) -> Message:
    """The assistant message that goes into the history for `action`.

    A malformed action stays in the history as its text, without tool calls, since nothing of it was executed.
    """
    message: Message = {"role": "assistant", "content": action.content}
    if action.malformed:
        message["content"] = _after_thinking(action.text).strip() or action.content
    elif action.calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for i, c in enumerate(action.calls)
        ]
    if action.reasoning:
        message["reasoning_content"] = action.reasoning
    return message


def _after_thinking(text: str) -> str:
    ends = marks(text, END_THINK, 0, ())
    return text[ends[-1] + len(END_THINK) :] if ends else text


def message_to_action(message: Message) -> Action:
    """The action that an assistant message (a demonstration) stands for."""
    calls = tuple(
        Call(call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    )
    content = message.get("content") or ""
    return Action(content, message.get("reasoning_content") or "", calls, "", content)
