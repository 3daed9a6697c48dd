"""The thinking of an assistant message, under every name and tag under which it is published."""

import re
from typing import Any

from pivotrl_jax.chat.actions import END_THINK, THINK, marks
from pivotrl_jax.records import Message

# fields of a message that hold its thinking as text, or as a list of blocks
FIELDS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_details",
    "thinking_blocks",
)
PART_TYPES = ("reasoning", "thinking", "redacted_thinking", "reasoning_content", "think")

_TAGS = "thinking|reasoning|thought|thoughts|scratchpad|scratch_pad|seed:think|analysis|longcat_think"
_BLOCK = re.compile(rf"\s*<({_TAGS})>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
# the marks of models that write other ones
_PAIRS = (
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("[|think|]", "[|/think|]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
_MARKED = tuple(
    re.compile(rf"\s*{re.escape(opening)}(.*?){re.escape(close)}", re.DOTALL) for opening, close in _PAIRS
)
# and of those that mark their answer too
_ANSWER = re.compile(
    r"\A\s*(?:<\|begin_of_solution\|>(.*)<\|end_of_solution\|>|<\|START_RESPONSE\|>(.*)<\|END_RESPONSE\|>)\s*\Z",
    re.DOTALL,
)
_HARMONY = re.compile(
    r"\s*(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>(.*?)(?:<\|end\|>|(?=<\|start\|>|<\|channel\|>))",
    re.DOTALL,
)
# the head of the channel that the user reads, where nothing follows on another
_FINAL = re.compile(
    r"\A(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>(?!.*<\|channel\|>)", re.DOTALL
)
_IN_SENTENCE = re.compile(r"[\w,;] \Z")


def reasoning_of(message: Message) -> str:
    """The thinking of a loosely typed message, from its fields and from parts of its content; "" if it has
    none. What providers encrypt is not read."""
    parts = message.get("content") if isinstance(message.get("content"), list) else []
    parts = [p for p in parts if isinstance(p, dict) and p.get("type") in PART_TYPES]
    for value in (*(message.get(name) for name in FIELDS), parts):
        if text := _text(value).strip("\n"):
            return text
    return ""


def _text(value: Any) -> str:
    """The text of a field or block of thinking."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(text for one in value if (text := _text(one)))
    if not isinstance(value, dict) or "encrypted" in str(value.get("type")):
        return ""
    keys = ("text", "thinking", "reasoning", "reasoning_content", "summary", "content")
    return next((text for key in keys if (text := _text(value.get(key)))), "")


def split_thinking(content: str) -> tuple[str, str]:
    """(thinking, the rest) of an assistant's content: what stands before `</think>`, with or without an
    opening tag, or in a block of another public name at the start. A tag between quotes is not one."""
    if content.lstrip().startswith(THINK):
        return _think_blocks(content)
    for pattern in (_BLOCK, *_MARKED, _HARMONY):
        if match := pattern.match(content):
            rest = content[match.end() :].lstrip("\n")
            rest = _FINAL.sub("", rest) if pattern is _HARMONY else rest
            answer = _ANSWER.match(rest)
            rest = answer[answer.lastindex].strip("\n") if answer else rest
            return match[match.lastindex].strip("\n"), rest
    # without an opening tag; inside a sentence it is a word about tags
    end = next((i for i in marks(content, END_THINK, 0, ()) if not _in_sentence(content, i)), -1)
    if end < 0 or THINK in content[:end]:
        return "", content
    return content[:end].strip("\n"), content[end + len(END_THINK) :].lstrip("\n").removeprefix(" ")


_TAG = re.compile(r"^[ \t]*(<think(?:ing)?[ \t]*>)|</think(?:ing)?[ \t]*>|```", re.MULTILINE | re.IGNORECASE)


def split_all_thinking(content: str) -> tuple[str, str]:
    """`split_thinking` of a demonstration, whose thinking may also stand between its words: in blocks that
    begin a line, outside of code fences."""
    thought, rest = split_thinking(content)
    thoughts, words, at, opened, in_fence = [thought], [], 0, None, False
    for tag in _TAG.finditer(rest):
        if opened is None and tag[0] == "```":
            in_fence = not in_fence
        elif opened is None and tag[1] and not in_fence:
            opened = tag
        elif opened is not None and tag[0].startswith("</"):
            thoughts.append(rest[opened.end() : tag.start()])
            words.append(rest[at : opened.start()])
            at, opened = tag.end(), None
    words.append(rest[at:])
    thoughts = [t.strip("\r\n") for t in thoughts if t.strip()]
    if len(words) == 1:
        return "\n".join(thoughts), rest.lstrip("\r\n") if thoughts else rest
    return "\n".join(thoughts), "\n".join(w.strip("\r\n") for w in words if w.strip())


MAX_BLOCKS = 64  # of thinking that follow each other


def _think_blocks(content: str) -> tuple[str, str]:
    """`split_thinking` of a text that begins with `<think>`: one block, or several after each other."""
    thoughts, rest = [], content
    while len(thoughts) < MAX_BLOCKS and rest.lstrip().startswith(THINK):
        start = rest.index(THINK) + len(THINK)
        ends = marks(rest, END_THINK, start, ())
        if not ends:
            break
        thoughts.append(rest[start : ends[0]].strip("\n"))
        rest = rest[ends[0] + len(END_THINK) :].lstrip("\n")
    return "\n".join(filter(None, thoughts)), rest


def _in_sentence(content: str, at: int) -> bool:
    """Whether the `</think>` at an index stands between two words."""
    before = content[max(0, at - 2) : at]
    return bool(_IN_SENTENCE.search(before)) and content.startswith(" ", at + len(END_THINK))
