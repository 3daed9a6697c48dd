"""BFCL's single-turn rows -> expert trajectories, with the answers of possible_answer.

BFCL has no expert prose: the refusals of irrelevance rows are placeholders.
"""

import functools
import zlib
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.environments.bfcl import tasks
from pivotrl_jax.environments.episode import ABSTAIN_REPLY
from pivotrl_jax.environments.messages import assistant_message
from pivotrl_jax.records import Action, Call, InputError, Trajectory

# Rows whose possible_answer accepts no answer at all (found by running BFCL's own checker over every choice).
DEFECTIVE = frozenset(
    {"live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0"}
)


def single_turn(categories: Sequence[str] = tasks.SINGLE_TURN, limit: int | None = None) -> list[Trajectory]:
    """One-turn trajectories of the first `limit` usable rows (None: all) of each category.

    The demonstration makes the first admissible call(s) of possible_answer; in irrelevance rows it declines
    in text. The verifier is "bfcl_ast". `excluded` says which rows are left out. Raises InputError when
    bfcl_eval is missing or a category is unknown.
    """
    return [trajectory for category in categories for trajectory in _single(category)[0][:limit]]


def excluded(categories: Sequence[str] = tasks.SINGLE_TURN) -> dict[str, str]:
    """Row id -> why `single_turn` leaves it out."""
    return {id: why for category in categories for id, why in _single(category)[1].items()}


@functools.cache
def _single(category: str) -> tuple[list[Trajectory], dict[str, str]]:
    if category not in tasks.SINGLE_TURN:
        raise InputError(
            f"BFCL category {category!r} is not single-turn; known: {', '.join(tasks.SINGLE_TURN)}"
        )
    trajectories, left_out = [], {}
    for origin, row in tasks.read_category(category):
        why = _unusable(row, category)
        if why:
            left_out[row["id"]] = why
        else:
            trajectories.append(_trajectory(row, category, origin))
    return trajectories, left_out


def _unusable(row: dict, category: str) -> str:
    if row["id"] in DEFECTIVE:
        return "its possible_answer accepts no answer"
    if category == "live_relevance":
        return "BFCL gives no call to demonstrate"
    if any(message["role"] == "assistant" for message in row["question"][0]):
        return "its prompt holds assistant turns that no answer covers"
    return ""


def _trajectory(row: dict, category: str, origin: str) -> Trajectory:
    docs, answer = row["function"], row.get("ground_truth") or []
    calls = tuple(_first_call(expected, docs) for expected in answer)
    action = Action(calls=calls) if calls else Action(content=ABSTAIN_REPLY)
    messages = [*row["question"][0], assistant_message(action, 0)]
    names = ",".join(sorted(doc["name"] for doc in docs))
    return Trajectory(
        id=row["id"],
        messages=messages,
        tools=docs,
        source="bfcl",
        scenario=f"bfcl_functions_{zlib.crc32(names.encode()):08x}",  # a split keeps equal functions together
        verifier="bfcl_ast",
        cases={len(messages) - 1: {"function_docs": docs, "possible_answer": answer, "category": category}},
        origin=origin,
    )


_LEFT_OUT = object()


def _first_call(expected: dict[str, dict[str, list]], docs: list[dict]) -> Call:
    """`{"f": {"a": [1, 2], "b": ["", "x"]}}` -> f(a=1): the first alternative of each; "" omits it."""
    (name, answers), *_ = expected.items()
    parameters = next((doc["parameters"] for doc in docs if doc["name"] == name), {})
    properties, required = parameters.get("properties", {}), parameters.get("required", [])
    arguments = {}
    for parameter, alternatives in answers.items():
        value = _first(alternatives, parameter in required)
        if value is not _LEFT_OUT and parameter in properties:  # in one row a name is undocumented
            arguments[parameter] = _fill(value, properties[parameter])
    return Call(name, arguments)


def _first(alternatives: list, required: bool) -> Any:
    """The first alternative, or _LEFT_OUT where that is "". A required parameter cannot be left out."""
    if not required and (not alternatives or alternatives[0] == ""):
        return _LEFT_OUT
    return next((value for value in alternatives if value != ""), "")


def _fill(value: Any, schema: dict) -> Any:
    """Choose inside dicts and lists of dicts, whose fields BFCL lists with alternatives of their own."""
    if schema.get("type") == "dict" and isinstance(value, dict):
        fields = {key: _first(alternatives, False) for key, alternatives in value.items()}
        return {key: choice for key, choice in fields.items() if choice is not _LEFT_OUT}
    items = schema.get("items") or {}
    if schema.get("type") in ("array", "tuple") and items.get("type") == "dict" and isinstance(value, list):
        return [_fill(item, items) for item in value]
    return value
