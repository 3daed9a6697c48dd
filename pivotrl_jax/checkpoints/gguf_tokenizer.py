"""The tokenizer of a GGUF file -> tokenizer.json, tokenizer_config.json, chat templates, generation config.

Token for token as transformers reads it (integrations/gguf/gguf_tokenizer_mapping.py), with two differences:
a way of splitting text that is not known is refused, where transformers falls back to GPT-2's, and control
tokens are special tokens whatever characters they are written in.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from pivotrl_jax.checkpoints import hf
from pivotrl_jax.checkpoints.gguf_file import Gguf
from pivotrl_jax.records import InputError

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = None  # the tokenizers library's own

# tokenizer.ggml.pre -> how text is split before merging
SPLITS = {
    **dict.fromkeys(("gpt-2", "default", "smollm", "mpt", "olmo"), _GPT2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe", "falcon3"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    "tekken": _TEKKEN,
}

MAX_PIECE = 1000  # characters of a token that is put together from others; real ones have up to 48

# control tokens that end a turn, where a chat template writes them
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "</s>", "<|endoftext|>")


def write_tokenizer(file: Gguf, directory: Path, context: int) -> dict[str, Any]:
    """Write the files, and return what config.json says of special tokens: bos_token_id, eos_token_id,
    pad_token_id. `context` is the length that the model was made for. Raises InputError."""
    tokens = _tokens(file)
    tokenizer = _backend(file, tokens)
    special = {
        f"{name}_token": _id(file, tokens, key)
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    is_spm = file.fields.get("tokenizer.ggml.model") == "llama"
    add_bos = file.get("tokenizer.ggml.add_bos_token", bool, is_spm) and special["bos_token"] is not None
    if add_bos:
        _add_bos(tokenizer, tokens, special["bos_token"])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": add_bos,
        **{name: None if id is None else tokens[id] for name, id in special.items()},
    }
    _write_json(directory / "tokenizer_config.json", settings)
    templates = _templates(file)
    for name, template in templates.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(template, "utf-8")
    stops = _stop_ids(file, tokens, "".join(templates.values()))
    ids = {
        "bos_token_id": special["bos_token"],
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": special["pad_token"],
    }
    ids = {name: value for name, value in ids.items() if value not in (None, [])}
    _write_json(directory / "generation_config.json", ids)
    return ids


def _templates(file: Gguf) -> dict[str, str]:
    """File of the checkpoint -> the chat template in it: the default one, and those with names (tool_use)."""
    template = file.get("tokenizer.chat_template", str, "")
    found = {hf.TEMPLATE: template} if template else {}
    for name in file.get("tokenizer.chat_templates", list, []):
        if not re.fullmatch(r"[\w-]{1,64}", str(name)):
            raise InputError(f"{file.path}: a chat template is named {name!r:.80}; use another checkpoint")
        if template := file.get(f"tokenizer.chat_template.{name}", str, ""):
            found[f"{hf.NAMED_TEMPLATES}/{name}.jinja"] = template
    return found


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _tokens(file: Gguf) -> list[str]:
    tokens = file.get("tokenizer.ggml.tokens", list)
    kind = file.get("tokenizer.ggml.model", str)
    if kind not in ("gpt2", "llama"):
        raise InputError(
            f"{file.path}: a tokenizer of the kind {kind!r} is not read, only 'gpt2' (byte-level BPE) and "
            "'llama' (sentencepiece BPE) are; use another checkpoint"
        )
    if not tokens:
        raise InputError(f"{file.path}: tokenizer.ggml.tokens is missing; download it again")
    rows = file.tensors["token_embd.weight"].shape[0]
    if len(tokens) > rows or len(set(tokens)) < len(tokens):
        raise InputError(
            f"{file.path}: {len(tokens)} tokens, of which {len(set(tokens))} are different, for {rows} rows "
            "of the embedding; use another checkpoint"
        )
    return tokens


def _id(file: Gguf, tokens: list[str], key: str) -> int | None:
    value = file.get(f"tokenizer.ggml.{key}_token_id", int)
    if value is not None and not 0 <= value < len(tokens):
        raise InputError(
            f"{file.path}: tokenizer.ggml.{key}_token_id is {value!r}, and there are {len(tokens)} tokens; "
            "use another checkpoint"
        )
    return value


def _stop_ids(file: Gguf, tokens: list[str], template: str) -> list[int]:
    """The ids that end a turn: what the file says, then the ends of turns that its template writes."""
    named = [_id(file, tokens, key) for key in ("eos", "eot", "eom")]
    control = _of_type(file, tokens, _CONTROL)
    written = [tokens.index(end) for end in TURN_ENDS if end in control and end in template]
    return list(dict.fromkeys(i for i in [*named, *written] if i is not None))


def _of_type(file: Gguf, tokens: list[str], kind: int) -> list[str]:
    types = file.get("tokenizer.ggml.token_type", np.ndarray)
    return [] if types is None else [token for token, found in zip(tokens, types) if found == kind]


def _backend(file: Gguf, tokens: list[str]):
    """The tokenizers.Tokenizer."""
    from tokenizers import AddedToken

    byte_level = file.fields["tokenizer.ggml.model"] == "gpt2"
    control, user = (_of_type(file, tokens, kind) for kind in (_CONTROL, _USER_DEFINED))
    tokenizer = (_byte_level if byte_level else _sentencepiece)(file, tokens)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in user])
    return tokenizer


def _byte_level(file: Gguf, tokens: list[str]):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    pre = file.get("tokenizer.ggml.pre", str, "default")
    if pre not in SPLITS:
        raise InputError(
            f"{file.path}: its tokenizer splits text in the way {pre!r}, which is not read; use one of "
            f"{', '.join(SPLITS)}"
        )
    merges = [tuple(merge.split(" ")) for merge in file.get("tokenizer.ggml.merges", list, [])]
    vocab = {token: i for i, token in enumerate(tokens)}
    bad = [" ".join(m) for m in merges if len(m) != 2 or not {*m, "".join(m)} <= vocab.keys()]
    if bad or not merges:
        what = f"the merge {bad[0]!r} is not of two tokens to a third" if bad else "its merges are missing"
        raise InputError(f"{file.path}: {what}; download it again")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if split := SPLITS[pre]:
        steps = [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: Gguf, tokens: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: i for i, token in enumerate(tokens)}
    scores = file.get("tokenizer.ggml.scores", np.ndarray)
    if scores is None or len(scores) != len(tokens):
        raise InputError(f"{file.path}: tokenizer.ggml.scores does not fit the tokens; download it again")
    merges = _merges(vocab, scores)
    unknown = _id(file, tokens, "unknown")
    model = models.BPE(
        vocab=vocab,
        merges=merges,
        fuse_unk=True,
        byte_fallback=True,
        unk_token=None if unknown is None else tokens[unknown],
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)])
    return tokenizer


def _merges(vocab: dict[str, int], scores) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, the best token first: transformers'
    `generate_merges`."""
    found = [
        (-float(scores[id]), -len(left), len(left) - len(token), id, vocab[left], vocab[token[len(left) :]])
        for token, id in vocab.items()
        if len(token) <= MAX_PIECE
        for left in (token[:cut] for cut in range(1, len(token)))
        if left in vocab and token[len(left) :] in vocab
    ]
    names = list(vocab)
    return [(names[left], names[right]) for *_, left, right in sorted(found)]


def _add_bos(tokenizer, tokens: list[str], bos: int) -> None:
    from tokenizers.processors import TemplateProcessing

    name = tokens[bos]
    tokenizer.post_processor = TemplateProcessing(
        single=[f"{name}:0", "$A:0"],
        pair=[f"{name}:0", "$A:0", f"{name}:1", "$B:1"],
        special_tokens=[(name, bos)],
    )
