"""Builds the tiny checkpoint's tokenizer: `python experiments/tiny_checkpoint/tokenizer.py`.

It is a byte-level BPE in which a word is the *same* token wherever it stands (after a blank, after a quote,
inside snake_case), so that copying a value from a request into a call means copying token ids. Steps:

1. the pre-tokenizer cuts text into runs of letters, single digits, single newlines, and runs of punctuation
   that may hold or touch single blanks (`": "`, `", "` are one piece each);
2. every word of the project's small language and every common punctuation piece is put into the vocabulary
   whole; the model looks a piece up before it merges (`ignore_merges`), so these need no merges;
3. the remaining room goes to merges trained on these words, for words that are not listed.

Left out: unicode normalisation (any UTF-8 text round-trips exactly), upper case (falls back to bytes).
"""

import argparse
import json
import shutil
from pathlib import Path

import words as language
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pivotrl_jax.environments import toolbox
from pivotrl_jax.evaluation import skills

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "pivotrl_jax/assets/tiny"

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
)
PIECES = r"\p{L}+|\p{N}|\n| ?[^\s\p{L}\p{N}]+(?: [^\s\p{L}\p{N}]+)* ?|\s"


# Small samples of what will be rendered. Common punctuation pieces with their blanks are collected from them.
SAMPLES = r"""{"name": "x_y", "arguments": {"a": "b", "c": 1, "d": ["e", "f"], "g": true, "h": 2.5}}
{"name": "x", "arguments": {"a": ["b"]}}
a "b" "c" d
a + b = ?
f(a: b = ["c"]) # d
f(a: b = ["c", "d"], e: f = ["g"]) # d
a "b"? e
{"name": "x", "arguments": {}}
{"name": "x"}
{"a": "b"}
{"a": 1}
{"a": ["b", "c"]}
{"a": [{"b": 1}, {"b": "c"}]}
{"a": [{"b": "c"}, {"b": 1}]}
{"a": [{"b": "c", "d": ["e"]}, {"b": ["f"]}]}
{"a": {"b": "c"}}
{"a": {"b": 1, "c": [1, 2]}, "d": {}}
{"a": [], "b": {}, "c": []}
{"a": {"b": "c"}, "d": {"e": 2}}
{"a": -1, "b": [1, 2], "c": "d.e"}
{"a": "b?", "c": "d.", "e": "f!"}
{"a": "b.", "c": 1}
{"a": "b?"}
{"a": "b."}
["a", "b"]
[1, 2]
[]
{}
{"a": [1, 2]}
[{"a": 1}, {"a": 2}]
[{"a": "b"}, {"a": "c"}]
{"a": [["b", "c"]]}
{"name": "x", "arguments": {"a": {"b": "c"}}}
{"name": "x", "arguments": {"a": {"b": 1}}}
{"name": "x", "arguments": {"a": [1, 2]}}
{"name": "x", "arguments": {"a": [{"b": 1}]}}
f(a: b, c?: d, e: f = 9, g: h = "x") # i
f() # i
f(a: b = "x", c: d = [], e: f = "y") # i
f(a?: b) # i
f(a: b = []) # i
f(a: x|y, b: c) # i
f(a: b = 9, c: d = true) # i
f(a: b = "", c: d) # i
f(a_b: c, d) # e
a "b c" d, "e" f. g? h! "i". "j"? "k", "l"; m: n. "o": "p"
a, b. c; d - e + f = ? (g) h's i/j.k
a: b, c d. e?
say "a". b: "c", d. (e, f), g. - h
+ - = / . , : ; ? ! ' " ( ) [ ] { } < > | # * & % $ @ _ \ ~ ` ^ +"""


def punctuation() -> list[str]:
    """Common punctuation pieces with their blanks, collected from SAMPLES."""
    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    pieces = [p for s in SAMPLES.split("\n") for p, _ in splitter.pre_tokenize_str(s)]
    return list(
        dict.fromkeys(p for p in pieces if not any(c.isalnum() for c in p) and len(p) > 1 and p != "\n")
    )


def vocabulary_words() -> list[str]:
    """Every word that must be one token: toolbox, generic services, skills."""
    return sorted(skills.all_words() | language.all_words() | set(toolbox.all_words()))


def build(minimum: int = 1536, merges: int = 96) -> Tokenizer:
    """The tokenizer. Its size is the first multiple of 128 from `minimum` with room for `merges` merges."""
    listed = vocabulary_words()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), byte_level])

    def symbols(text: str) -> str:
        return byte_level.pre_tokenize_str(text)[0][0]

    whole = [symbols(p) for p in [*punctuation(), *listed]]
    fixed = len({*pre_tokenizers.ByteLevel.alphabet(), *whole, *SPECIAL, *MARKUP})
    size = max(minimum, -(-(fixed + merges) // 128) * 128)

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        [" ".join(listed)],
        trainers.BpeTrainer(vocab_size=256 + 2 * size, initial_alphabet=alphabet, show_progress=False),
    )
    trained = json.loads(bpe.to_str())["model"]["merges"]

    tokens = list(dict.fromkeys([*alphabet, *whole]))
    known, kept = set(tokens), []
    for left, right in trained:
        if len(tokens) + len(SPECIAL) + len(MARKUP) >= size:
            break
        # Later merges build on this one, so none is skipped; one that gives a listed word needs no new token.
        if left + right not in known:
            tokens.append(left + right)
            known.add(left + right)
        kept.append((left, right))
    vocabulary = {token: i for i, token in enumerate(tokens)}

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=kept, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in MARKUP])
    return tokenizer


def write(directory: Path) -> Tokenizer:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json; the template is hand-made."""
    tokenizer = build()
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    end, stop = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    generation = {"do_sample": True, "temperature": 1.0, "eos_token_id": [stop, end], "pad_token_id": end}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    template = directory / "chat_template.jinja"
    if not template.exists():
        shutil.copy(ASSETS / template.name, template)
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    made = write(arguments.directory)
    print(f"{made.get_vocab_size()} tokens, {len(vocabulary_words())} whole words -> {arguments.directory}")
