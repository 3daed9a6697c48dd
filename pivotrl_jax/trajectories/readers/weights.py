"""What a source says of learning from a message or a row: weights and masks, labels, and a cut at the limit.

A turn whose weight is 0, less or false is context, and so is one that says that it is masked or ignored. What
a bare `mask` means is told by the users' messages, which nobody learns: a turn with the same mask is context,
and where it cannot be told, the mask is not obeyed and named. A weight between, or one of a part of
a turn, is not obeyed: a demonstration counts whole, and `unobeyed` names it.
"""

from collections.abc import Iterable
from typing import Any

WEIGHTS = ("weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale")
WEIGHTS += ("loss_mask", "step_loss_mask")
WEIGHTS += ("learn", "do_train", "is_trainable", "train_on", "compute_loss", "calculate_loss")
# true: the turn is not learned (torchtune's "masked")
MASKED = ("masked", "is_masked", "mask_loss", "ignore", "ignored", "ignore_loss", "no_loss")
MASK = "mask"
DETAILS = ("train_detail", "training_detail")  # Axolotl's: of spans of the text
LABELS = ("label", "kto_tag")  # false: KTO's word for an answer that is not to be imitated; also of a turn
OF_ROW = ("weight", *LABELS)

# a message's own word on why it ended, what says that it reached the limit of its tokens, and what else says
# that it ended before its end
ENDS = ("finish_reason", "stop_reason", "done_reason", "finishReason", "stopReason", "status")
LIMITS = ("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded", "incomplete")
LIMITS += ("content_filter", "safety", "recitation", "prohibited_content", "blocklist")
LIMITS += ("malformed_function_call", "abort", "aborted", "cancelled", "failed", "error")

READ = " ".join(("", *WEIGHTS, *MASKED, *DETAILS, ""))


def degree(value: Any) -> float | None:
    """A weight as a number, also if it is written as text; None for anything else."""
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            return {"false": 0.0, "true": 1.0}[text] if text in ("false", "true") else float(text)
        except ValueError:
            return None
    return float(value) if isinstance(value, (bool, int, float)) and abs(value) < 1e9 else None


def is_no(value: Any) -> bool:
    """Whether a weight or a label says no: false, 0 or less, also as text."""
    found = degree(value)
    return found is not None and found <= 0


def is_context(message: Any) -> bool:
    """Whether a message says that it is shown and not imitated."""
    if any(is_no(message.get(key)) for key in WEIGHTS):
        return True
    if any(degree(message.get(key)) == 1 for key in MASKED) or any(is_no(message.get(key)) for key in LABELS):
        return True
    return any(all(told) for told in _of_parts(message))


def with_masks(messages: list) -> list:
    """Messages with their bare `mask` as a weight, where the users' messages tell what it means."""
    of_users = {
        degree(m.get(MASK)) for m in messages if isinstance(m, dict) and _role(m) in ("user", "human")
    }
    told = {degree(m.get(MASK)) for m in messages if isinstance(m, dict)} - {None}
    if len(of_users) != 1 or None in of_users or len(told) != 2:
        return messages
    (masked,) = of_users
    return [_with_weight(m, masked) if isinstance(m, dict) else m for m in messages]


def _role(message: dict) -> str:
    return str(message.get("role", message.get("from"))).lower()


def _with_weight(message: dict, masked: float | None) -> dict:
    value = degree(message.get(MASK))
    weight = {} if value is None else {"weight": 0 if value == masked else message.get("weight", 1)}
    return {k: v for k, v in message.items() if k != MASK} | weight


def _of_parts(message: dict) -> list[list[bool]]:
    """For each list of parts that a message weighs, whether each part is not to be learned."""
    lists = [message.get(key) for key in (*DETAILS, "content")]
    parts = [[p for p in value if isinstance(p, dict)] for value in lists if isinstance(value, list)]
    return [[any(is_no(p.get(key)) for key in WEIGHTS) for p in value] for value in parts if value]


def unobeyed(values: Any, of: str = "", keys: Iterable[str] = WEIGHTS) -> tuple[str, ...]:
    """The weights in a list of messages or rows that are neither 0 nor 1, and those of a part of a turn. `of`
    names the list, as in `unread`."""
    values = [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []
    found = {
        f"{key} (neither 0 nor 1)"
        for value in values
        for key in keys
        if value.get(key) not in (None, "") and not is_no(value[key]) and degree(value[key]) != 1
    }
    if any(any(told) and not all(told) for value in values for told in _of_parts(value)):
        found.add("weights of parts of a turn")
    return tuple(sorted(f"{of}.{name}" if of else name for name in found))


def is_cut(message: dict) -> bool:
    """Whether a message says that it was cut: at the limit of its tokens, by a filter or a failure."""
    return any(isinstance(message.get(key), str) and message[key].lower() in LIMITS for key in ENDS)
