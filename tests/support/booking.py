"""A room's booking: tools, a demonstration, and calls that mean the same."""

from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers.cases import calls_message

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string"},
                    "hours": {"type": "integer"},
                    "price": {"type": "number"},
                    "note": {"type": "string"},
                    "quiet": {"type": "boolean", "default": False},
                    "layout": {"type": "string", "enum": ["round table", "rows"], "default": "rows"},
                    "guests": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"vip": {"default": 0}}},
                    },
                },
                "required": ["room", "hours"],
            },
        },
    },
    {
        "name": "cancel",
        "parameters": {"type": "dict", "properties": {"room": {"type": "string"}}, "required": []},
    },
]


def candidate(*calls, content="", verifier="tool_call", case=None):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate("t@1", "t", 0, [], TOOLS, message, verifier, case or {}, "t")


GOLD = {"room": "B12", "hours": 2, "price": 9.5, "note": "Bring the  Projector"}
BOOK = ("book", GOLD)
CANCEL = ("cancel", {"room": "A1"})


def changed(**arguments):
    return ("book", {k: v for k, v in {**GOLD, **arguments}.items() if v is not ...})


ACCEPTED = {
    "itself": BOOK,
    "other order of arguments": ("book", dict(reversed(GOLD.items()))),
    "a whole float for an integer": changed(hours=2.0),
    "a default written out": changed(quiet=False, layout="rows"),
    "null for an optional argument": changed(quiet=None, guests=None),
    "spaces and case in several words": changed(note=" bring the projector "),
}
