"""Programs that judge a free text. They raise on no text, and their time is linear in its length."""

import re
from collections.abc import Callable

FIRST_WORDS = 20  # a fact must be told within these: a reply that lists all capitals knows none

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TAG = re.compile(r"</?[a-zA-Z_][^<>]{0,80}>")
_BULLET = re.compile(r"\s*[-*•–]\s*\S")
_POINT = re.compile(r"\s*\d+[.)]\s*\S")
_RESULT = re.compile(r"=\s*[$€]?(\d++(?:\.\d++)?)(?!\s*[-+*/×÷x])")
_SENTENCE_END = re.compile(r"[.!?]\s")
_MARKS = " \t\r\n.!?,;:'\"“”‘’*_`"


def words(text: str) -> list[str]:
    """The words and numbers of a text, case-folded."""
    return [word.casefold() for word in _WORD.findall(text)]


def contains(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` follow one another in the text."""
    return f" {' '.join(words(phrase))} " in f" {' '.join(words(text))} "


def in_words(text: str) -> bool:
    """Whether a text is made of words: it has one, has no markup, calls nothing and is no JSON."""
    return bool(words(text)) and not _TAG.search(text) and text.strip()[:1] not in tuple("{[")


def repeats_itself(text: str) -> bool:
    """Whether more than half of the text's runs of three words occurred before in it."""
    found = words(text)
    runs = list(zip(found, found[1:], found[2:]))
    return len(set(runs)) < len(runs) / 2


def tells(text: str, answers: tuple[str, ...]) -> bool:
    """Whether one of the accepted answers is among the first words."""
    beginning = " ".join(words(text)[:FIRST_WORDS])
    return any(contains(beginning, answer) for answer in answers)


def result_number(text: str) -> str:
    """The number that a text says is the result: the first one that stands alone after "=", or the last one
    if there is none; "" without numbers. "1,200.0" is "1200"."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    found = _RESULT.findall(text)[:1] or _NUMBER.findall(text)
    if not found:
        return ""
    whole, _, decimals = found[-1].partition(".")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals.strip("0") else "")


def _lines(text: str, mark: re.Pattern) -> int:
    """How many lines begin with a mark."""
    return sum(1 for line in text.splitlines() if mark.match(line))


def _is_question(text: str, _: str) -> bool:
    text = text.strip(_MARKS.replace("?", ""))
    return text.endswith("?") and not _SENTENCE_END.search(text)


# kind of instruction -> whether a text follows it, given what the item asks for
INSTRUCTIONS: dict[str, Callable[[str, str], bool]] = {
    "capitals": lambda text, _: text == text.upper() != text.lower(),
    "bullets": lambda text, n: _lines(text, _BULLET) == int(n),
    "list": lambda text, n: _lines(text, _POINT) == int(n),
    "word": contains,
    "yes_or_no": lambda text, _: words(text) in (["yes"], ["no"]),
    "ends_with": lambda text, phrase: words(text)[-len(words(phrase)) :] == words(phrase),
    "starts_with": lambda text, phrase: words(text)[: len(words(phrase))] == words(phrase),
    "no_comma": lambda text, _: "," not in text and len(words(text)) > 3,
    "fewer_words": lambda text, n: 2 < len(text.split()) < int(n),
    "repeat": lambda text, sentence: text.strip(_MARKS).split() == sentence.strip(_MARKS).split(),
    "question": _is_question,
}


def follows(text: str, kind: str, argument: str) -> bool:
    """Whether a text is in words and follows an instruction of a kind."""
    return in_words(text) and not repeats_itself(text) and INSTRUCTIONS[kind](text, argument)
