"""Which prompt tokens the engine computes next: chunks of one size, in one row of the cache or in several."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pivotrl_jax.serve import programs
from pivotrl_jax.serve.prefixes import Path

CHUNKS = (32, 128, 256, 512)  # tokens that a program computes in a row; one program each
PREFILL = 2048  # prompt tokens between decode steps, while as many samples decode as wait for their prompt
BESIDE = {size: min(8, PREFILL // size) for size in CHUNKS}  # rows that a program computes, if not one alone


class Prompt(Protocol):
    """A prompt on its way into a row."""

    ids: np.ndarray
    row: int
    path: Path
    computed: int  # tokens of the path that are in the cache


class Part(NamedTuple):
    """The next tokens of a prompt."""

    prompt: Prompt
    count: int


class RowChunk(NamedTuple):
    """What is computed in one row."""

    row: int
    parts: list[Part]


def next_chunks(waiting: Sequence[Prompt]) -> tuple[int, list[RowChunk]]:
    """(their size in tokens, the chunks to compute next): the first prompt's row, and those rows beside it
    that have a chunk of the same size, unless they are so few that padding would cost more than calls do."""
    queues: dict[int, list[Prompt]] = {}
    for prompt in waiting:
        queues.setdefault(prompt.row, []).append(prompt)
    filled = [(row, *_fill(queue)) for row, queue in queues.items()]
    size = filled[0][1]
    chunks = [RowChunk(row, parts) for row, this, parts in filled if this == size][: BESIDE[size]]
    return size, chunks if len(chunks) > BESIDE[size] // 2 else chunks[:1]


def arrays(
    chunks: Sequence[RowChunk], size: int, width: int, row_tokens: int
) -> tuple[np.ndarray, programs.Chunk]:
    """(rows, tokens to compute) for `programs.extend`. `width` slots of a row are seen; `row_tokens` is no
    slot."""
    B = 1 if len(chunks) == 1 else BESIDE[size]
    tokens, position = np.zeros((B, size), np.int32), np.zeros((B, size), np.int32)
    slots = np.full((B, size), row_tokens, np.int32)
    mask, rows = np.zeros((B, size, width), bool), np.zeros(B, np.int32)
    for i, chunk in enumerate(chunks):
        rows[i], at = chunk.row, 0
        for prompt, count in chunk.parts:
            here, new = slice(at, at + count), slice(prompt.computed, prompt.computed + count)
            tokens[i, here], position[i, here] = prompt.ids[:-1][new], np.arange(new.start, new.stop)
            slots[i, here] = own = prompt.path.slots[new]
            mask[i, here, prompt.path.slots[: new.start]] = True
            mask[i, np.arange(at, at + count)[:, None], own] = np.tri(count, dtype=bool)
            at += count
    return rows, programs.Chunk(tokens, position, slots, mask)


def _fill(queue: Sequence[Prompt]) -> tuple[int, list[Part]]:
    """(the size of the next chunk of the prompts of a row, what is in it)."""
    size = _size(sum(len(prompt.path.slots) - prompt.computed for prompt in queue))
    parts, room = [], size
    for prompt in queue:
        left = len(prompt.path.slots) - prompt.computed
        parts.append(Part(prompt, min(room, left)))
        room -= parts[-1].count
        if parts[-1].count < left:
            break
    return size, parts


def _size(tokens: int) -> int:
    """The size of the chunk to compute next of so many tokens. No more than half of it is padding, unless it
    is the smallest."""
    padded = next((size for size in CHUNKS if size >= tokens), CHUNKS[-1])
    smaller = [size for size in CHUNKS if size <= tokens]
    return smaller[-1] if smaller and tokens <= padded // 2 else padded
