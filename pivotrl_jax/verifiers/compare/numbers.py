"""Cardinal numbers in words, or scaled by a word, as digits: forty-two is 42, and 5.2 million 5200000.

Only what is one number is joined: "nineteen eighty-four" are two, as are "two thousand million". Half, a few,
point, fifth, and abbreviations (5M, 5k) stay as they are.
"""

import re
from collections.abc import Sequence

_SMALL = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()
_BELOW_20 = {name: i for i, name in enumerate(_SMALL, 1)}
_TENS = {
    name: 10 * i for i, name in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALES = {name: 10**zeros for name, zeros in _ZEROS.items() if zeros > 2}
_DIGITS = re.compile(r"(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,12}))?")


def counted(parts: Sequence[str], pronouns: bool = False) -> list[str]:
    """Words in lower case, with every number in words as one word of digits. `pronouns`: a "one" that stands
    alone stays, since it may be none."""
    out, i = [], 0
    while i < len(parts):
        if parts[i] in ("a", "an") and parts[i + 1 : i + 2] and parts[i + 1] in _ZEROS:
            i += 1  # a million is one million
        value, end = _cardinal(parts, i)
        if not value or (pronouns and parts[i:end] == ["one"]):
            out.append(_scaled(parts, i) or ("0" if parts[i] == "zero" and not pronouns else parts[i]))
            i += 2 if _scaled(parts, i) else 1
        else:
            out.append(str(value))
            i = end
    return out


def _scaled(parts: Sequence[str], i: int) -> str:
    """5.2, million -> 5200000; "" where the word at `i` is no such number."""
    number = _DIGITS.fullmatch(parts[i])
    if not number or i + 1 == len(parts) or parts[i + 1] not in _ZEROS:
        return ""
    zeros, part = _ZEROS[parts[i + 1]], (number[2] or "").rstrip("0")
    whole = (number[1] + part[:zeros].ljust(zeros, "0")).lstrip("0") or "0"
    return f"{whole}.{part[zeros:]}" if part[zeros:] else whole


def _cardinal(parts: Sequence[str], start: int) -> tuple[int, int]:
    """(the number in words that begins at `start`, where it ends); (0, start) if there is none."""
    total, ceiling, i = 0, 10**15, start
    while True:
        joined = i + 1 if total and parts[i : i + 1] == ["and"] else i
        value, end = _below_ten_thousand(parts, joined)
        if not value and not total and parts[i : i + 1] and parts[i] in _SCALES:
            value = 1
        scale = _SCALES.get(parts[end], 0) if end < len(parts) else 0
        if not value or (scale or value) >= ceiling:
            return total, i
        if not scale:
            return total + value, end
        total, ceiling, i = total + value * scale, scale, end + 1


def _below_ten_thousand(parts: Sequence[str], start: int) -> tuple[int, int]:
    """As `_cardinal`, without the words from thousand on: nineteen hundred and five."""
    value, i = _below_hundred(parts, start)
    if parts[i : i + 1] != ["hundred"]:
        return value, i
    value, i = 100 * (value or 1), i + 1
    more, end = _below_hundred(parts, i + 1 if parts[i : i + 1] == ["and"] else i)
    return (value + more, end) if more else (value, i)


def _below_hundred(parts: Sequence[str], i: int) -> tuple[int, int]:
    word = parts[i] if i < len(parts) else ""
    if word not in _TENS:
        return (_BELOW_20[word], i + 1) if word in _BELOW_20 else (0, i)
    unit = _BELOW_20.get(parts[i + 1], 10) if i + 1 < len(parts) else 10
    return (_TENS[word] + unit, i + 2) if unit < 10 else (_TENS[word], i + 1)
