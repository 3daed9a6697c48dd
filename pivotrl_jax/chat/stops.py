"""The tokens that end a turn."""

import json
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError


def read_stop_ids(directory: str, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a turn: eos_token_id of generation_config.json (one or a list), and the tokenizer's.
    Raises InputError for what is no token."""
    from transformers.utils import cached_file

    path = cached_file(directory, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    eos = _settings(Path(path)).get("eos_token_id") if path else None
    vocabulary = tokenizer.get_vocab()
    ids = [_id(i, vocabulary, path) for i in (eos if isinstance(eos, list) else [eos]) if i is not None]
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer.eos_token_id] if i is not None))


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: cannot be read ({type(e).__name__}); download it again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: want a JSON object; download it again")
    return values


def _id(value: Any, vocabulary: dict[str, int], path: str) -> int:
    """The id of a stop token, which may be given as its text."""
    if isinstance(value, str) and value in vocabulary:
        return vocabulary[value]
    if type(value) is int and 0 <= value <= max(vocabulary.values()):
        return value
    raise InputError(f"{path}: eos_token_id {value!r} is no token of the tokenizer; give the id of one")
