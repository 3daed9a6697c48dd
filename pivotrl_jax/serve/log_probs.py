"""`logprobs` of OpenAI's replies. A token that is part of a character has bytes, but no text of its own."""

import re

from pivotrl_jax.serve.text import Choice, Decode

# byte-level tokenizers write a byte as the character of its number where one is printable, else as one
# from U+0100 on, in the order of the bytes
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
_BYTES = {chr(b): b for b in _PRINTED} | {chr(256 + i): b for i, b in enumerate(_OTHERS)}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a byte in SentencePiece's vocabularies


def bytes_of(tokenizer, token: int, text: str) -> bytes:
    """The bytes of a token whose text is `text`."""
    piece = tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else None
    if piece is None:
        return text.encode()
    if byte := _BYTE_TOKEN.fullmatch(piece):
        return bytes.fromhex(byte[1])
    return bytes(_BYTES[c] for c in piece) if set(piece) <= set(_BYTES) else text.encode()


def chat_log_probs(choice: Choice, tokenizer, decode: Decode, top: int, first: int = 0) -> dict:
    """`logprobs` of a choice of a chat completion, for its tokens from `first` on."""

    def entry(token: int, log_prob: float) -> dict:
        text = decode([token])
        return {"token": text, "logprob": log_prob, "bytes": list(bytes_of(tokenizer, token, text))}

    content = []
    for i in range(first, len(choice.tokens)):
        best = choice.top[i][:top] if top else []
        one = entry(choice.tokens[i], choice.log_probs[i])
        content.append({**one, "top_logprobs": [entry(*pair) for pair in best]})
    return {"content": content, "refusal": None}


def completion_log_probs(choice: Choice, tokenizer, decode: Decode, top: int, first: int = 0) -> dict:
    """`logprobs` of a choice of a completion, for its tokens from `first` on. The sampled token is among the
    most likely ones, so that there may be one more than asked for."""

    def name(token: int) -> str:
        """The text of a token, or its bytes as OpenAI writes them, by which parts of characters differ."""
        text = decode([token])
        raw = bytes_of(tokenizer, token, text)
        return text if raw == text.encode() else "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    tokens, log_probs = choice.tokens[first:], choice.log_probs[first:]
    names, best = [name(token) for token in tokens], None
    if top:
        rows = [{name(t): p for t, p in row[:top]} for row in choice.top[first:]]
        best = [row | {own: p} for row, own, p in zip(rows, names, log_probs)]
    return {
        "tokens": names,
        "token_logprobs": log_probs,
        "top_logprobs": best,
        "text_offset": choice.offsets[first:],
    }
