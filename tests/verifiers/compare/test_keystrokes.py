"""The normal form of what is typed exists or not, and never raises."""

import pytest
from hypothesis import strategies as st
from support.hostile_actions import fast_and_slow

from pivotrl_jax.verifiers.compare import keystrokes

shell_like = st.text("ab -/.'\"\\$`(){}<>|&;#!*\n0EOF\t", max_size=40)


def check_normal_form(text):
    """A text equals itself, and neither its normal form nor a comparison raises."""
    form = keystrokes.normal_form(text)
    assert form == keystrokes.normal_form(text)
    assert keystrokes.same(text, text)
    keystrokes.contradiction(text, text + "x")


test_no_text_makes_the_normal_form_raise, test_no_text_makes_the_normal_form_raise_slow = fast_and_slow(
    shell_like | st.text(max_size=40), check_normal_form
)


@pytest.mark.parametrize(
    "gold, action",
    [
        ("cat -s -s a", "cat -- -s -s a"),
        ("grep a -e b -e c", "grep -- a -e b -e c"),
        ("tar tvf a.tar", "tar -- tvf a.tar"),
        ("rm -r -r a", "rm -- -r -r a"),
        ("tail -n 2 a b", "tail -2 a b"),
        ("ls ~", 'ls ""~'),
        ("rm $x", "rm $x''"),
        ("grep -r a . --include=*.{py,js}", "grep -r a . --include='*.{py,js}'"),
    ],
)
def test_commands_that_only_look_alike(gold, action):
    assert keystrokes.same(gold, gold) and not keystrokes.same(gold, action)


def test_a_pattern_of_files_needs_no_quotes():
    assert keystrokes.same("grep -rn a . --include=*.py", "grep -rn a . --include='*.py'")
