"""Tokens of a chat template that were left around an assistant's text: its head, and the end of its turn.

Tokens that belong to a call (<|python_tag|>, <|call|>) are left to the dialects.
"""

import re

_HEAD = re.compile(
    r"\A\s*(?:<s>|<\|begin_of_text\|>)?\s*(?:<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>"
    r"|<start_of_turn>model|<\|assistant\|>|<｜Assistant｜>|(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>)"
    r"[ \t]*\n*"
)
_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>"),
    *(
        "<|return|>",
        "<end_of_turn>",
        "</s>",
        "<eos>",
        "<|eos|>",
        "<｜end▁of▁sentence｜>",
        "<|END_OF_TURN_TOKEN|>",
    ),
)


MAX_ENDS = 8  # tokens that are taken from the end of one text


def without_special_tokens(text: str) -> str:
    """The text without a template's head at its start and without ends of a turn at its end.

    >>> without_special_tokens("<|im_start|>assistant\\nDone.<|im_end|>\\n")
    'Done.'
    """
    text, whole = _HEAD.sub("", text, count=1), text
    for _ in range(MAX_ENDS):
        text_end = text.rstrip()
        end = next((e for e in _ENDS if text_end.endswith(e)), "")
        if not end:
            break
        text = text_end.removesuffix(end)
    return text.rstrip() if text != whole else text
