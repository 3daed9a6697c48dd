"""The thinking at the start of a completion, apart from its content, whole or while it grows."""

from collections.abc import Sequence

from pivotrl_jax.chat.actions import END_THINK, THINK, marks


def split(text: str, opened: bool, whole: bool = True) -> tuple[str, str]:
    """(thinking, content) of a completion: its `<think>` blocks up to the first other word, and the rest as
    the model wrote it, without the newlines before it.

    `opened` says that the prompt ended in `<think>`. A `</think>` between quotes closes nothing. Of a text
    that is not `whole`, both parts are what every longer text begins with.
    """
    thoughts, rest = [], text
    while True:
        begun = rest.lstrip()
        if not whole and THINK.startswith(begun):  # nothing yet, or a tag that may be opening
            return _joined(thoughts), ""
        if begun.startswith(THINK):
            rest = begun.removeprefix(THINK)
        elif not opened:
            return _joined(thoughts), rest.lstrip("\n")
        ends = marks(rest, END_THINK, 0, ())
        if not ends:
            return _joined([*thoughts, rest if whole else held(rest, (END_THINK,))]), ""
        thoughts.append(rest[: ends[0]])
        rest, opened = rest[ends[0] + len(END_THINK) :].lstrip("\n"), False


def _joined(thoughts: list[str]) -> str:
    return "\n".join(filter(None, (thought.strip("\n") for thought in thoughts)))


def held(text: str, opening: Sequence[str]) -> str:
    """The text without an end with which one of the marks `opening` may begin."""
    for size in range(min(len(text), max(map(len, opening), default=1) - 1), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in opening):
            return text[:-size]
    return text
