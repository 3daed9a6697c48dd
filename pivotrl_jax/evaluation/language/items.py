"""The items of the suite: six families for pretrained language models, at least 100 items each.

| family | asked for | scored |
|---|---|---|
| fact_choices | the end of a sentence, one of six | 1 if the right one has the highest log-prob per byte |
| fact_answers | the same facts, in words | 1 if an accepted form is among the first words |
| arithmetic | a number | 1 if the reply says it is the result |
| instructions | a text in a form that a program can check | 1 if it has it |
| small_talk | a reply to a remark | 1 if it is a finished one in words, without calls, markup or loops |
| text | the continuation of a passage | its bits per byte: lower is better |

The passages, remarks and instructions in assets/language were written for this project; the facts are common
knowledge. SmolLM2-135M-Instruct answers between 0.35 and 0.9 of each family, so that loss and gain can show.
"""

import dataclasses
import functools
import operator
import random
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path

from pivotrl_jax.evaluation.language import checks
from pivotrl_jax.records import InputError

VERSION = 1  # counts up when items, their judges or their order change
_DATA = Path(__file__).parents[2] / "assets" / "language"
_CHOICES = 6


@dataclasses.dataclass(frozen=True)
class Question:
    """Something to ask, and the judge of a finished reply."""

    id: str
    family: str
    question: str
    judge: Callable[[str], bool]
    may_be_cut: bool = False  # a reply cut at the token limit can be right


@dataclasses.dataclass(frozen=True)
class Choice:
    """A sentence that a reply begins with, and its possible ends. `answer` is the right one's index."""

    id: str
    family: str
    question: str
    sentence: str
    ends: tuple[str, ...]
    answer: int


@dataclasses.dataclass(frozen=True)
class Passage:
    """A text without any chat: the beginning is given, and the rest is scored."""

    id: str
    family: str
    beginning: str
    rest: str


Item = Question | Choice | Passage


def _toml(name: str) -> dict:
    return tomllib.loads((_DATA / name).read_text("utf-8"))


def _lines(name: str) -> list[str]:
    lines = (_DATA / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def _fact_choices(family: str) -> list[Item]:
    items: list[Item] = []
    for kind, facts in _toml("facts.toml").items():
        firsts = sorted({forms[0] for forms in facts["answers"].values()})
        for subject, forms in facts["answers"].items():
            others = [x for x in firsts if x not in forms and x != subject]
            others.sort(key=lambda x: (abs(len(x) - len(forms[0])), _hash(f"{subject} {x}")))
            ends = sorted([forms[0], *others[: _CHOICES - 1]], key=lambda x: _hash(f"{x} {subject}"))
            sentence = facts["sentence"].format(subject)
            sentence = sentence[0].upper() + sentence[1:]
            ask = f'Complete this sentence: "{sentence} ..."'
            name = f"{family}/{kind}/{subject}"
            items.append(Choice(name, family, ask, sentence, tuple(ends), ends.index(forms[0])))
    return items


def _fact_answers(family: str) -> list[Item]:
    return [
        Question(
            f"{family}/{kind}/{subject}",
            family,
            facts["question"].format(subject),
            functools.partial(checks.tells, answers=tuple(forms)),
            may_be_cut=True,
        )
        for kind, facts in _toml("facts.toml").items()
        for subject, forms in facts["answers"].items()
    ]


# kind -> (question, possible first numbers, possible second numbers, result)
_SUMS: dict[str, tuple[str, range, range, Callable[[int, int], int]]] = {
    "sum": ("What is {} + {}?", range(1, 10), range(1, 10), operator.add),
    "apples": (
        "Tom has {} apples and gets {} more. How many apples does he have now?",
        range(2, 12),
        range(2, 7),
        operator.add,
    ),
    "coins": (
        "Anna has {} coins and finds {} more. How many coins does she have in all?",
        range(2, 12),
        range(2, 7),
        operator.add,
    ),
    "books": (
        "Sam has {} books and gives away {} of them. How many books does he have left?",
        range(8, 14),
        range(2, 8),
        operator.sub,
    ),
}
_PER_KIND = 30


def _arithmetic(family: str) -> list[Item]:
    items: list[Item] = []
    for kind, (ask, first, second, result) in _SUMS.items():
        pairs = [(a, b) for a in first for b in second]
        for a, b in random.Random(kind).sample(pairs, _PER_KIND):
            judge = functools.partial(_is_number, want=str(result(a, b)))
            items.append(
                Question(f"{family}/{kind}/{a},{b}", family, ask.format(a, b), judge, may_be_cut=True)
            )
    return items


def _is_number(text: str, want: str) -> bool:
    return checks.result_number(text) == want


def _instructions(family: str) -> list[Item]:
    items: list[Item] = []
    for kind, asked in _toml("instructions.toml").items():
        for i, about in enumerate(asked["about"]):
            parts = about.split(" | ")
            judge = functools.partial(checks.follows, kind=kind, argument=parts[-1])
            items.append(Question(f"{family}/{kind}/{i}", family, asked["ask"].format(*parts), judge))
    return items


def _is_reply(text: str) -> bool:
    return checks.in_words(text) and not checks.repeats_itself(text)


def _small_talk(family: str) -> list[Item]:
    lines = _lines("small_talk.txt")
    # SmolLM2-135M ends nearly every reply in time when asked to, and hardly any otherwise: with two in three
    # asked, the family starts between 0.35 and 0.9
    please = " (Please reply in one short sentence.)"
    asks = [line + (please if i % 3 else "") for i, line in enumerate(lines)]
    return [Question(f"{family}/{i}", family, ask, _is_reply) for i, ask in enumerate(asks)]


def _text(family: str) -> list[Item]:
    parts = [line.split(" | ") for line in _lines("text.txt")]
    return [Passage(f"{family}/{i}", family, first, f" {rest}") for i, (first, rest) in enumerate(parts)]


_FAMILIES: dict[str, Callable[[str], list[Item]]] = {
    "fact_choices": _fact_choices,
    "fact_answers": _fact_answers,
    "arithmetic": _arithmetic,
    "instructions": _instructions,
    "small_talk": _small_talk,
    "text": _text,
}


def families() -> list[str]:
    """The names of the families."""
    return list(_FAMILIES)


def items(family: str, count: int | None = None) -> list[Item]:
    """All items of a family, or `count` of them, always the same ones and of every kind.

    Raises InputError for an unknown family, or one with fewer than `count` items.
    """
    if family not in _FAMILIES:
        raise InputError(f"language family {family!r} does not exist; choose one of {', '.join(_FAMILIES)}")
    found = _FAMILIES[family](family)
    if count is None:
        return found
    if count > len(found):
        raise InputError(
            f"language family {family!r} has {len(found)} items, fewer than {count}; "
            f"set config.evaluate.skill_items to {len(found)} or less"
        )
    return sorted(found, key=lambda item: _hash(item.id))[:count]
