"""The normal form of what is typed exists or not, and never raises."""

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
