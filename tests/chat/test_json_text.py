"""The decoders of JSON and what they refuse."""

import pytest

from pivotrl_jax.chat import json_text
from pivotrl_jax.chat.json_text import MAX_NESTING, strict_json
from pivotrl_jax.records import InputError

DEEP = "[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1)


def test_strict_json_says_where_the_value_ends():
    assert strict_json(' {"a": 1} x') == ({"a": 1}, 9)
    with pytest.raises(ValueError, match="NaN is not JSON"):
        strict_json("[NaN]")


@pytest.mark.parametrize("text", ["NaN", "1e999", DEEP, "[" * 100_000, "9" * 5000])
def test_what_strict_json_refuses(text):
    with pytest.raises(ValueError):
        strict_json(text)


def test_lenient_json_reads_nan_but_bounds_the_nesting_and_loads_does_not():
    assert str(json_text.lenient_json("[NaN, Infinity]")) == "[nan, inf]"
    with pytest.raises(ValueError, match="nested deeper than"):
        json_text.lenient_json(DEEP)
    assert json_text.nesting(json_text.loads(DEEP), 1000) == MAX_NESTING + 1
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.loads("[" * 100_000)


@pytest.mark.parametrize(
    "raw, says",
    [
        (b"\xff", r"not text in UTF-8 \(byte 1 is 0xff\)"),
        (b"[" * 100_000, "not valid JSON"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b"[1]", "a JSON list, want an object"),
    ],
)
def test_an_object_of_a_file_is_read_or_what_is_wrong_is_said(raw, says):
    assert json_text.read_object(b'\xef\xbb\xbf{"a": NaN}').keys() == {"a"}
    with pytest.raises(InputError, match=says):
        json_text.read_object(raw)


def test_the_order_of_keys_counts():
    assert json_text.same_json({"a": 1, "b": 2}, {"a": 1, "b": 2})
    assert not json_text.same_json({"a": 1, "b": 2}, {"b": 2, "a": 1})
