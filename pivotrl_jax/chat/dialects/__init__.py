"""The forms in which calls are written in a text, one file per family; base.py says what a dialect is.

DIALECTS is the table; `read` reads a text in one of them, `foreign_call` finds a call in any other.
"""

from collections import Counter
from collections.abc import Iterable

from pivotrl_jax.chat.dialects import plain, tags, tokens
from pivotrl_jax.chat.dialects.base import Dialect, Schemas, TextCalls

DIALECTS: dict[str, Dialect] = {d.name: d for d in (*tags.DIALECTS, *tokens.DIALECTS, *plain.DIALECTS)}
HERMES = "hermes"


def read(text: str, dialect: str, schemas: Schemas) -> TextCalls:
    """What a text says and calls in a dialect, which is a key of DIALECTS. Never raises on any text."""
    return DIALECTS[dialect].read(text, schemas)


def foreign_call(text: str, dialect: str, schemas: Schemas) -> str:
    """The name of another dialect in which a text without calls in `dialect` calls; "" if there is none.

    Only unmistakable dialects are tried.
    """
    for name, other in DIALECTS.items():
        if name != dialect and other.sure and any(mark in text for mark in other.marks):
            if other.read(text, schemas).calls:
                return name
    return ""


def most_used(texts: Iterable[str]) -> str:
    """The unmistakable dialect in which most of a policy's completions call; HERMES if none does."""
    counts: Counter[str] = Counter()
    for text in texts:
        for name, dialect in DIALECTS.items():
            if dialect.sure and any(mark in text for mark in dialect.marks):
                found = dialect.read(text, {})
                counts[name] += bool(found.calls) and not found.fault
    return max(counts, key=counts.__getitem__) if any(counts.values()) else HERMES
