"""Assistant turns in the history, each as the chat template writes it when it is the last turn.

Templates write old turns differently: without their thinking, or without the empty block of a turn that has
none. So each turn is rendered twice, as the last of a short conversation and with what follows it. Where the
texts differ, the history is rendered with a mark as the turn's content, and the mark is replaced afterwards
by what the template wrote for the last turn.
"""

import dataclasses
import itertools
from collections.abc import Callable

from pivotrl_jax.records import InputError, Message

_MARK = "[[kept turn {}]]"
KNOWN = 4096  # turns that are remembered

_ASK, _ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@dataclasses.dataclass(frozen=True)
class _Turn:
    """What stands around the mark of a turn in the history, and what is to stand there instead."""

    before: str
    after: str
    written: str


class PastTurns:
    """`render` gives the texts of conversations, without a generation prompt."""

    def __init__(self, render: Callable[[list[list[Message]], list[dict]], list[str]]):
        self._render = render
        self._known: dict[tuple, tuple[Message, _Turn | None]] = {}

    def marked(
        self, messages: list[Message], tools: list[dict]
    ) -> tuple[list[Message], list[tuple[str, str]]]:
        """(the messages with marks, what the marks become in the text -> what is to stand there, in order).
        Raises InputError for a template in which a turn cannot be marked."""
        last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        marked: list[Message] = []
        written: list[tuple[str, str]] = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant" and i < len(messages) - 1:
                if turn := self._turn(messages, i, i < last_user, tools):
                    mark = _MARK.format(i)
                    message = _with(message, mark)
                    written.append((turn.before + mark + turn.after, turn.written))
            marked.append(message)
        return marked, written

    def _turn(self, messages: list[Message], i: int, past: bool, tools: list[dict]) -> _Turn | None:
        """The turn of message i; None if the history has it as it is. `past`: a user's message follows."""
        key = id(messages[i]), past, bool(tools)
        if key not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            # one tool selects the same template as all, and is rendered faster
            turn = self._compared(messages[i], _following(messages, i, past), tools[:1])
            self._known[key] = messages[i], turn  # the message, since an id is of an object that lives
        return self._known[key][1]

    def _compared(self, message: Message, following: list[Message], tools: list[dict]) -> _Turn | None:
        last, history = self._render([[_ASK, message], [_ASK, message, *following]], tools)
        if history.startswith(last):
            return None
        mark = _MARK.format(0)
        other = _with(message, mark)
        as_last, in_history = self._render([[_ASK, other], [_ASK, other, *following]], tools)
        head, _, rest = in_history.partition(mark)
        tail = as_last.partition(mark)[2]
        start = _shared(head, last)
        written = last[start:]
        same = _shared(written[::-1], tail[::-1])
        after = tail[: len(tail) - same]
        if mark not in as_last or mark not in in_history or not rest.startswith(after):
            raise _unkept()
        return _Turn(head[start:], after, written[: len(written) - same])


def unmarked(text: str, written: list[tuple[str, str]]) -> str:
    """The text with what is to stand in the place of the marks of `PastTurns.marked`."""
    parts = []
    for marked, instead in written:
        before, found, text = text.partition(marked)
        if not found:
            raise _unkept()
        parts += [before, instead]
    return "".join([*parts, text])


def _shared(a: str, b: str) -> int:
    """How many characters two texts share at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _unkept() -> InputError:
    return InputError(
        "the chat template writes old turns in a way in which they cannot be kept as they were; set "
        "config.model.keep_thinking=False"
    )


def _with(message: Message, mark: str) -> Message:
    return {k: v for k, v in message.items() if k != "reasoning_content"} | {"content": mark}


def _following(messages: list[Message], i: int, past: bool) -> list[Message]:
    """A short continuation after message i, in which it is as old as in the whole."""
    more = itertools.takewhile(lambda m: m["role"] != "assistant", messages[i + 2 :])
    following = [messages[i + 1], *more]
    if past and not any(m["role"] == "user" for m in following):
        following += [_ASK] if following[-1]["role"] == "assistant" else [_ANSWER, _ASK]
    return following
