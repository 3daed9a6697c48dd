"""What a row of the cache holds is what was put there, prompts that begin alike share it, and what a sample
uses stays."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pivotrl_jax.serve.prefixes import Row


def ids(*numbers):
    return np.array(numbers, np.int32)


def test_prompts_that_begin_alike_share_slots():
    row = Row(16)
    a = row.take(ids(1, 2, 3, 4))
    b = row.take(ids(1, 2, 9))
    c = row.take(ids(1, 2, 3))
    assert (a.cached, b.cached, c.cached) == (0, 2, 3)
    assert list(b.slots[:2]) == list(a.slots[:2]) and list(c.slots) == list(a.slots[:3])
    assert b.slots[2] not in a.slots
    assert row.held() == 5
    assert row.shared(ids(1, 2, 3, 4, 5)) == 4 and row.shared(ids(7)) == 0


def test_what_is_used_stays_and_what_was_used_last_goes_last():
    row = Row(6)
    old, new = row.take(ids(1, 2)), row.take(ids(3, 4))
    row.release(old)
    row.release(new)
    row.release(row.take(ids(1, 2)))  # now the other one is the older
    kept = row.take(ids(5, 6, 7, 8))
    assert row.shared(ids(1, 2)) == 2 and row.shared(ids(3, 4)) == 0
    assert row.take(ids(9, 9, 9)) is None, "a used prompt is not given up"
    assert row.shared(ids(1, 2)) == 2, "nothing is given up for a prompt that does not fit anyway"
    row.release(kept)
    assert row.take(ids(9, 9, 9, 9, 9, 9)).cached == 0


def test_an_empty_prompt_takes_nothing():
    row = Row(1)
    path = row.take(ids())
    assert path.cached == 0 and len(path.slots) == 0
    row.release(path)


PROMPTS = st.lists(st.integers(0, 2), max_size=7)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PROMPTS, st.integers(0, 3)), max_size=40))
def test_used_paths_hold_their_own_tokens_whatever_else_comes_and_goes(steps):
    """A slow memory beside the row: after each step every path in use must still read as its prompt."""
    row, memory, used = Row(12), {}, []
    for prompt, leave in steps:
        prompt = ids(*prompt)
        path = row.take(prompt)
        if path is None:
            assert used, "a row without users has room for any prompt that is not longer than the row"
        else:
            assert len(set(path.slots.tolist())) == len(prompt)
            for i, slot in enumerate(path.slots.tolist()):
                if i < path.cached:  # the token, and everything before it, was computed there before
                    assert memory[slot] == tuple(prompt[: i + 1])
                memory[slot] = tuple(prompt[: i + 1])
            used.append((prompt, path))
        for prompt, path in used:
            for i, slot in enumerate(path.slots.tolist()):
                assert memory[slot] == tuple(prompt[: i + 1])
        if used and leave:
            row.release(used.pop(leave % len(used))[1])
