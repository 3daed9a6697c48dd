"""A conversation that a chat template rendered into one text -> messages: ChatML's and Llama 3's marks.

    <|im_start|>user\\nlist<|im_end|>\\n<|im_start|>assistant\\nHere it is.<|im_end|>

Read as one text it would be rendered once more. Texts with the marks of other templates, or without their
marks, are refused.
"""

import re

from pivotrl_jax.records import InputError, Message

_TURNS = (
    re.compile(
        r"<\|im_start\|>[ \t]*(\w{1,32})[ \t]*\n?(.*?)(?:<\|im_end\|>|(?=<\|im_start\|>)|\Z)", re.DOTALL
    ),
    re.compile(
        r"<\|start_header_id\|>[ \t]*(\w{1,32})[ \t]*<\|end_header_id\|>\s{0,2}(.*?)"
        r"(?:<\|eot_id\|>|<\|eom_id\|>|(?=<\|start_header_id\|>)|\Z)",
        re.DOTALL,
    ),
)
_BETWEEN = re.compile(r"(?:\s|<s>|</s>|<\|begin_of_text\|>|<\|end_of_text\|>|<\|endoftext\|>)*")
_BEGINS = re.compile(r"(?:\s|<s>|<\|begin_of_text\|>|<\|endoftext\|>)*<\|(?:im_start|start_header_id)\|>")
_OTHERS = re.compile(
    r"\s*(?:<s>|<bos>)?\s*(?:\[INST\]|<start_of_turn>|<\|(?:system|user|assistant)\|>|\[gMASK\]|<｜begin▁of▁sentence｜>"
    r"|<\|START_OF_TURN_TOKEN\|>|<\|turn>)"
)
# a prompt whose marks were left out when it was decoded, as verl logs it
_BARE = re.compile(r"(?:system|user)\n.*\nassistant\n(?:<think>\s*)?\Z", re.DOTALL)


def is_rendered(text: object) -> bool:
    """Whether a value is a text that begins with a chat template's marks, or lost them."""
    return isinstance(text, str) and bool(_BEGINS.match(text) or _OTHERS.match(text) or _BARE.match(text))


def messages(text: str) -> list[Message]:
    """The messages of a rendered text; a head without an answer at its end is none. Raises InputError."""
    pattern = next((p for p in _TURNS if p.search(text)), None) if _BEGINS.match(text) else None
    if pattern is None:
        raise InputError(
            "a chat template rendered it into one text, whose marks are not taken apart; give its messages"
        )
    turns = list(pattern.finditer(text))
    ends = [0, *(turn.end() for turn in turns)]
    starts = [*(turn.start() for turn in turns), len(text)]
    if not all(_BETWEEN.fullmatch(text, end, start) for end, start in zip(ends, starts)):
        raise InputError("a chat template rendered it into one text that goes on outside of its turns")
    found = [{"role": turn[1], "content": turn[2].strip("\n")} for turn in turns]
    if found[-1]["role"] == "assistant" and not found[-1]["content"].strip():
        found.pop()
    return found
