"""The text of a completion -> the action it stands for <-> an assistant message."""

from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.records import Action, Call, Message

THINK, END_THINK = "<think>", "</think>"
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

MAX_BLOCKS = 256  # <tool_call> blocks read per completion; each may search all the text after it


# ---- completion -> action


def _split_thinking(text: str, thinking_open: bool) -> tuple[str, str]:
    """(reasoning, the rest). Only text after the last `</think>` belongs to the reply."""
    before, closed, after = text.rpartition(END_THINK)
    if closed:
        return before.lstrip().removeprefix(THINK).strip("\n"), after
    return "", THINK + text if thinking_open and not text.lstrip().startswith(THINK) else text


def _unclosed(text: str, close: int, start: int) -> tuple[None, str, int] | None:
    """What `_read_call` returns for a block that is not closed before the next one opens; else None."""
    reopened = text.find(_OPEN, start)
    if close < 0 or 0 <= reopened < close:
        return None, "a <tool_call> is never closed", reopened if reopened >= 0 else len(text)
    return None


def _read_call(text: str, start: int) -> tuple[Call | None, str, int]:
    """Read one block whose body begins at `start`: (call, what was wrong, index to continue from)."""
    try:
        value, end = strict_json(text, start)
    except ValueError as e:
        close = text.find(_CLOSE, start)
        fault = None, f"a <tool_call> holds no valid JSON ({str(e)[:120]})", close + len(_CLOSE)
        return _unclosed(text, close, start) or fault
    while end < len(text) and text[end].isspace():
        end += 1
    after = end + len(_CLOSE)
    if not text.startswith(_CLOSE, end):
        close = text.find(_CLOSE, end)
        fault = None, "a <tool_call> holds more than one JSON object", close + len(_CLOSE)
        return _unclosed(text, close, end) or fault
    if not isinstance(value, dict):
        return None, f"a <tool_call> holds a JSON {type(value).__name__}, want an object", after
    if not isinstance(value.get("name"), str) or not value["name"]:
        return None, 'a <tool_call> has no "name"', after
    if not isinstance(value.get("arguments"), dict):
        kind = type(value["arguments"]).__name__ if "arguments" in value else "nothing"
        return None, f'a <tool_call> has {kind} as "arguments", want an object', after
    return Call(value["name"], value["arguments"]), "", after


def parse_action(text: str, thinking_open: bool = False) -> Action:
    """Parse a completion in Qwen3's (Hermes) form: `<think>...</think> text <tool_call>{json}</tool_call>`.

    Never raises. Only text after the last `</think>` counts: a call inside thinking is not a call, nor is one
    after a `<think>` that is never closed. `thinking_open` says that the prompt already ended in `<think>`.
    Newlines around the JSON are optional. One unreadable block makes the whole action malformed: `malformed`
    describes the first fault, `calls` holds the blocks that could be read, and `content` the text outside of
    blocks, stripped.
    """
    reasoning, reply = _split_thinking(text, thinking_open)
    calls, faults, content, at = [], [], [], 0
    while at <= len(reply):
        start = reply.find(_OPEN, at)
        piece = reply[at : start if start >= 0 else len(reply)]
        if THINK in piece:  # inside a block it would be part of an argument
            thought = reply[at:].split(THINK, 1)[1]
            fault = "a <think> block is never closed"
            return Action("".join(content).strip(), (reasoning + "\n" + thought).strip("\n"), (), fault, text)
        content.append(piece)
        if start < 0:
            break
        if len(calls) + len(faults) >= MAX_BLOCKS:
            faults.append(f"more than {MAX_BLOCKS} <tool_call> blocks")
            break
        call, fault, at = _read_call(reply, start + len(_OPEN))
        if call is not None:
            calls.append(call)
        if fault:
            faults.append(fault)
    if any(_CLOSE in piece for piece in content):
        faults.append("a </tool_call> closes nothing")
    return Action("".join(content).strip(), reasoning, tuple(calls), faults[0] if faults else "", text)


# ---- action <-> message


def action_to_message(action: Action) -> Message:
    """The assistant message that goes into the history for `action`.

    A malformed action stays in the history as its text, without tool calls, since nothing of it was executed.
    """
    message: Message = {"role": "assistant", "content": action.content}
    if action.malformed:
        message["content"] = action.text.rpartition(END_THINK)[2].strip() or action.content
    elif action.calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for i, c in enumerate(action.calls)
        ]
    if action.reasoning:
        message["reasoning_content"] = action.reasoning
    return message


def message_to_action(message: Message) -> Action:
    """The action that an assistant message (a demonstration) stands for."""
    calls = tuple(
        Call(call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    )
    content = message.get("content") or ""
    return Action(content, message.get("reasoning_content") or "", calls, "", content)
