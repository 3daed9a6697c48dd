"""exact: a string match, and nothing that means the same."""

from support.booking import ACCEPTED, BOOK, CANCEL, GOLD, candidate
from support.hostile_actions import act

from pivotrl_jax.verifiers import VERIFIERS


def test_any_text_will_do_for_tool_call_but_not_for_exact():
    talks, other = candidate(content="Done."), act(content="It is done.")
    assert VERIFIERS["tool_call"].verify(talks, other).reward == 1
    assert VERIFIERS["exact"].verify(talks, other).reason == "differs"


def test_exact_is_a_string_match():
    verify = VERIFIERS["exact"].verify
    gold = candidate(BOOK, CANCEL)
    assert (
        verify(gold, act(("book", dict(reversed(GOLD.items()))), CANCEL)).reward == 1
    )  # canonical key order
    assert verify(gold, act(CANCEL, BOOK)).reason == "differs"
    for name, call in ACCEPTED.items():
        if name not in ("itself", "other order of arguments"):
            assert verify(candidate(BOOK), act(call)).reason == "differs", name


def test_exact_string_is_the_text_with_its_order_of_arguments():
    verify = VERIFIERS["exact_string"].verify
    gold = candidate(BOOK, CANCEL)
    assert verify(gold, act(BOOK, CANCEL)).reward == 1
    assert verify(gold, act(("book", dict(reversed(GOLD.items()))), CANCEL)).reason == "differs"
    assert verify(gold, act(CANCEL, BOOK)).reason == "differs"
    for name, call in ACCEPTED.items():
        if name != "itself":
            assert verify(candidate(BOOK), act(call)).reason == "differs", name
    assert verify(candidate(content="Done."), act(content=" Done.\n")).reward == 1
    assert verify(candidate(content="Done."), act(content="done.")).reason == "differs"
