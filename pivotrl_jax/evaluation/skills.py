"""Out-of-domain skills: short questions with one right answer, to measure what training on tools makes a
policy forget.

`items(family, split, count, seed)` draws from a family's "pretrain" or "test" half. The halves are disjoint:
a hash of its question decides to which one an item belongs. The made-up facts are an exception: a policy can
be asked only about facts that it has learned, so both halves share them and only the *phrasings* are
disjoint. Nothing here calls a tool.
"""

import dataclasses
import random
import zlib
from collections.abc import Callable

from pivotrl_jax.records import InputError, Message

SPLITS = ("pretrain", "test")
WORDS = """apple arrow autumn bamboo banjo barn basket beach bell bench bird blanket board boot branch brick
bridge brush bucket button cabin cake candle canoe carpet castle cedar chain chair cherry circle cliff cloud
coat coin comet copper coral cotton cousin crown curtain desert diamond dragon drum eagle engine fabric
feather fence ferry field finger flag flame flute forest fountain fox garlic giant glass glove goat grape
hammer harbor hat hawk helmet hill honey hook island ivory jacket jelly kettle kite ladder lantern leaf lemon
lion lizard magnet maple marble meadow melon mirror moon moss mountain needle nest ocean olive onion orange
otter oven owl paddle panda pearl pencil pepper piano pillow pine planet plum pond potato puzzle rabbit rain
raven ribbon river rocket rope saddle salt sand shell shoe silver spoon stone storm sugar swan temple tiger
tower tulip tunnel turtle valley violin wagon walnut whale wheel willow window winter wolf wool yarn
zebra""".split()
ENTITIES = """arvo belka corun dalim esper fenor galdo hurin istra jorva kelto lumar morda nivek oskin palud
quorn rusta selmo tarvi ulmen varsa wexin xandu yorik zelda brask clovo drent frima gorsk klent plasi stroga
trivo""".split()

RELATIONS = {
    "color": "red blue green yellow black white purple brown".split(),
    "animal": "cat dog horse sheep mouse bear duck frog".split(),
    "metal": "iron gold zinc tin lead steel brass nickel".split(),
}
_OPENERS = ("", "please say: ", "tell me, ", "quick question: ", "i forgot, ")

_CORES = (
    "what is the {r} of {e}?",
    "name the {r} of {e}.",
    "{e} has which {r}?",
    "which {r} belongs to {e}?",
    "the {r} of {e} is what?",
)
_ORDINALS = {"first": 0, "second": 1, "third": 2, "last": -1}


@dataclasses.dataclass(frozen=True)
class SkillItem:
    """One question and its answer."""

    family: str
    messages: list[Message]
    answer: str
    id: str


def _some(rng: random.Random, low: int, high: int) -> list[str]:
    return rng.sample(WORDS, rng.randint(low, high))


def _copy(rng: random.Random) -> tuple[str, str]:
    text = " ".join(_some(rng, 3, 7))
    return f"repeat: {text}", text


def _reverse(rng: random.Random) -> tuple[str, str]:
    words = _some(rng, 2, 5)
    return f"reverse: {' '.join(words)}", " ".join(reversed(words))


def _sort(rng: random.Random) -> tuple[str, str]:
    digits = rng.sample("0123456789", rng.randint(4, 6))
    return f"sort: {' '.join(digits)}", " ".join(sorted(digits))


def _add(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 29), rng.randint(0, 29)
    return f"add: {a} + {b} = ?", str(a + b)


def _subtract(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(0, 39)
    b = rng.randint(0, a)
    return f"subtract: {a} - {b} = ?", str(a - b)


def _count(rng: random.Random) -> tuple[str, str]:
    words = _some(rng, 1, 9)
    return f"count the words: {' '.join(words)}", str(len(words))


def _pick(rng: random.Random) -> tuple[str, str]:
    words = _some(rng, 4, 7)
    which = rng.choice(list(_ORDINALS))
    return f"{which} word of: {' '.join(words)}", words[_ORDINALS[which]]


def _lookup(rng: random.Random) -> tuple[str, str]:
    words = rng.sample(WORDS, 2 * rng.randint(3, 6))
    pairs = list(zip(words[::2], words[1::2]))
    key, value = rng.choice(pairs)
    return f"table: {', '.join(f'{k} {v}' for k, v in pairs)}. value of {key}?", value


def _replace(rng: random.Random) -> tuple[str, str]:
    *words, new = _some(rng, 4, 7)
    old = rng.choice(words)
    return f"replace {old} by {new}: {' '.join(words)}", " ".join(new if w == old else w for w in words)


def fact(entity: str, relation: str) -> str:
    """The invented value of a relation. It never changes, and there is no pattern to infer it from."""
    values = RELATIONS[relation]
    return values[zlib.crc32(f"fact {entity} {relation}".encode()) % len(values)]


def _facts(rng: random.Random, split: str) -> tuple[str, str]:
    # Pretraining has all openers and cores, but not their combinations on one diagonal.
    while True:
        opener, core = rng.randrange(len(_OPENERS)), rng.randrange(len(_CORES))
        if ((opener + core) % 5 == 3) == (split == "test"):
            break
    entity, relation = rng.choice(ENTITIES), rng.choice(list(RELATIONS))
    return _OPENERS[opener] + _CORES[core].format(r=relation, e=entity), fact(entity, relation)


# Family -> generator, and the accuracy of a guesser who knows the form of the answer and nothing else: one of
# the words in the question for pick and lookup, a random order of them for reverse and sort, a uniform draw
# from the possible values for the rest.
_FAMILIES: dict[str, tuple[Callable[[random.Random], tuple[str, str]] | None, float]] = {
    "copy": (_copy, 0.04),  # mean of 1/n! for n = 3..7
    "reverse": (_reverse, 0.18),  # mean of 1/n! for n = 2..5
    "sort": (_sort, 0.02),  # mean of 1/n! for n = 4..6
    "facts": (None, 0.125),  # eight values each
    "add": (_add, 1 / 30),  # the most frequent sum of two draws from 0..29
    "subtract": (_subtract, 0.11),  # the most frequent difference, 0
    "count": (_count, 1 / 9),
    "pick": (_pick, 0.19),  # mean of 1/n for n = 4..7
    "lookup": (_lookup, 0.24),  # one of the 3..6 values
    "replace": (_replace, 0.24),  # the right words with the new one at a random place
}


def families() -> list[str]:
    """The names of all skills."""
    return list(_FAMILIES)


def _find(family: str) -> tuple[Callable[[random.Random], tuple[str, str]] | None, float]:
    if family not in _FAMILIES:
        raise InputError(f"skill family {family!r} does not exist; choose one of {', '.join(_FAMILIES)}")
    return _FAMILIES[family]


def chance(family: str) -> float:
    """Accuracy of guessing in the right form. Raises InputError for an unknown family."""
    return _find(family)[1]


def items(family: str, split: str, count: int, seed: int) -> list[SkillItem]:
    """`count` different items of a family's half, the same for the same seed.

    Raises InputError for an unknown family or split, or when the half holds fewer than `count` items.
    """
    draw, _ = _find(family)
    if split not in SPLITS:
        raise InputError(f"skill split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    rng = random.Random(f"skills/{family}/{split}/{seed}")
    by_question: dict[str, SkillItem] = {}
    misses = 0
    while len(by_question) < count:
        if draw is None:
            question, answer = _facts(rng, split)
        else:
            question, answer = draw(rng)
            # One question in four belongs to the test half.
            if (zlib.crc32(f"{family}: {question}".encode()) % 4 == 0) != (split == "test"):
                continue
        misses += question in by_question
        if misses > 100 * (count + 100):
            raise InputError(
                f"skill family {family!r} has fewer than {count} different {split} items; "
                f"ask for at most {len(by_question)}"
            )
        by_question.setdefault(
            question,
            SkillItem(
                family,
                [{"role": "user", "content": question}],
                answer,
                f"{family}_{split}_{seed}_{len(by_question)}",
            ),
        )
    return list(by_question.values())


def is_correct(item: SkillItem, text: str) -> bool:
    """Whether a completion is the answer, apart from blanks, case and a final full stop. Never raises."""
    return text.strip().rstrip(".").lower().split() == item.answer.lower().split()


def all_words() -> set[str]:
    """Every word in a question or an answer of any family (the tiny tokenizer makes each a token)."""
    phrases = " ".join(
        [*_OPENERS, *_CORES, *_ORDINALS, *RELATIONS, "repeat reverse sort add subtract count the"]
    )
    words = {w for w in "".join(c if c.isalpha() else " " for c in phrases).split() if w not in ("r", "e")}
    values = [v for vs in RELATIONS.values() for v in vs]
    return (
        words
        | set(WORDS)
        | set(ENTITIES)
        | set(values)
        | {"words", "word", "of", "table", "value", "replace", "by"}
    )
