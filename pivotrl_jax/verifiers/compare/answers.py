"""The final answer of a search: where a text marks it, and whether two answers are the same.

Model output may be of any length and kind, so everything here takes linear time and treats numbers as text.
"""

import re

from pivotrl_jax.verifiers.compare.numbers import counted
from pivotrl_jax.verifiers.compare.web import SIGN_CHARACTER, plain, signs, too_long, undotted, words

_SIGNED_ANSWER = re.compile(rf"[{SIGN_CHARACTER}]|\d/\d")  # amounts, percents and minus are read as words

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = {name: i for i, long in enumerate(_MONTHS, 1) for name in (long, long[:3])} | {"sept": 9}

_LABEL = re.compile(
    r"^[ \t*_#>]{0,9}(?:the[ ](?=[efs]))?(?:exact|final|short)?[ \t]?answer(?:[ ]is)?[ \t*_]{0,9}:"
    r"[ \t*_]{0,9}\n?[ \t*_]{0,9}(\S.*)$",
    re.I | re.M,
)

_TAGGED = re.compile(r"<answer>(.{0,20000}?)</answer>", re.I | re.S)
_BRACE = re.compile(r"\\boxed[ ]?\{|\\?[{}]")
_TEXT = re.compile(r"\\text(?:bf|it|rm)?\{([^{}]*)\}")
_ISO = re.compile(r"(?<![0-9-])([0-9]{4})-(0?[1-9]|1[0-2])-([0-9]{1,2})(?![0-9-])")
_MONEY = re.compile(r"\$[ ]?([0-9][0-9.,]*)( (?:thousand|million|billion|trillion)\b)?")
_SIGN = re.compile(r"(?<![\w.])[-−](?=[0-9])")


def final_answer(text: str) -> str:
    r"""The answer that a final turn marks ("Exact Answer: ...", <answer>...</answer>, \boxed{...}), or all of
    its text."""
    start = text.rfind("<answer>")
    tagged = _TAGGED.match(text, start) if start >= 0 else None
    labelled = [] if tagged else _LABEL.findall(text)
    marked = tagged[1].strip() if tagged else (labelled[-1] if labelled else text).strip(" \t\r\n*")
    return _boxed(marked) or marked


def _boxed(text: str) -> str:
    r"""What the last closed \boxed{...} of a text holds, without a \text{...} around it; "" without one."""
    opened: list[tuple[bool, int]] = []  # of each brace: whether it boxes, and where its content begins
    found = ""
    for brace in _BRACE.finditer(text):
        if brace[0].endswith("{") and brace[0] != "\\{":
            opened.append((brace[0] != "{", brace.end()))
        elif brace[0] == "}" and opened:
            boxes, begin = opened.pop()
            found = text[begin : brace.start()].strip() if boxes else found
    inner = _TEXT.fullmatch(found)
    return inner[1].strip() if inner else found


def _date(three: list[str]) -> str:
    """The words [day, month, year] or [month, day, year] as year-month-day, "" for other words."""
    if len(three) < 3 or not re.fullmatch("[0-9]{4}", three[2]):
        return ""
    for day, month in ((three[0], three[1]), (three[1], three[0])):
        number = re.fullmatch("([0-9]{1,2})(?:st|nd|rd|th)?", day)
        if number and month in _MONTH:
            return f"{three[2]}-{_MONTH[month]}-{int(number[1])}"
    return ""


def _dated(parts: list[str]) -> list[str]:
    """`parts` with every date of three words as one word."""
    out, i = [], 0
    while i < len(parts):
        date = _date(parts[i : i + 3])
        out.append(date or parts[i])
        i += 3 if date else 1
    return out


def normal_answer(text: str) -> str:
    """An answer without case, accents, punctuation and articles, its numbers and dates in one notation."""
    text = _MONEY.sub(lambda m: f"{m[1]}{m[2] or ''} dollars", plain(text))
    text = _ISO.sub(lambda m: f" {int(m[3])} {_MONTHS[int(m[2]) - 1]} {m[1]} ", text)
    parts = words(_SIGN.sub(" minus ", text).replace("%", " percent "), names=True)
    # "the" is never a name; "a" may be one (vitamin A)
    parts = [w for i, w in enumerate(parts) if not (w == "the" and i < len(parts) - 1)]
    parts = parts[1:] if len(parts) > 1 and parts[0] in ("a", "an") else parts
    parts = [w for i, w in enumerate(parts) if w != "of" or not i or not parts[i - 1][0].isdecimal()]
    return " ".join(_dated(counted(parts)))


def same_answer(want: str, got: str) -> bool:
    """Whether two final answers are equal in normal form. Answers without a word must be equal."""
    if too_long(want, got):
        return False
    want, got = undotted(want), undotted(got)
    if signs(want, _SIGNED_ANSWER) != signs(got, _SIGNED_ANSWER):
        return False
    ours, theirs = normal_answer(want), normal_answer(got)
    return ours == theirs if ours and theirs else want.split() == got.split()
