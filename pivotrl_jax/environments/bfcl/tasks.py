"""BFCL's tasks and backends, from `bfcl-eval`, wherever it is. Nothing is downloaded and no vendor SDK is
imported.

bfcl-eval pins numpy 1.26, so it and its dependencies cannot be installed beside jax. It is looked for as an
installed package, then under the folder BFCL_ROOT: a `pip --target` folder, or gorilla's
`berkeley-function-call-leaderboard`.
"""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pivotrl_jax.environments.tasks import ScriptedTask, task_from_dict
from pivotrl_jax.records import InputError, read_jsonl

INSTALL = "pip install --no-deps bfcl-eval==2026.3.23 mpmath==1.3.0"
MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
SINGLE_TURN = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "irrelevance",
    "live_irrelevance",
    "live_relevance",
)

# Class -> module and docs file of the same name. Only these are ever imported: the other backends need the
# network.
_MODULES = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
_BACKENDS = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"


@functools.cache
def root() -> Path:
    """The `bfcl_eval` folder. Raises InputError that quotes the command to install it."""
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None and os.environ.get("BFCL_ROOT"):
        folder = Path(os.environ["BFCL_ROOT"]).resolve()
        if (folder / "bfcl_eval").is_dir():
            sys.path.append(str(folder))  # at the end: it must not shadow installed packages
            importlib.invalidate_caches()
            spec = importlib.util.find_spec("bfcl_eval")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        tried = os.environ.get("BFCL_ROOT") or "not set"
        raise InputError(
            f"bfcl_eval is not installed and BFCL_ROOT ({tried}) does not hold it; get it with: {INSTALL}"
        )
    return Path(locations[0])


class _Backends(Mapping):
    """Class name -> class, imported only when needed: MathAPI alone needs mpmath."""

    def __getitem__(self, name: str) -> type:
        module = _MODULES[name]
        root()
        try:
            return getattr(importlib.import_module(f"{_BACKENDS}.{module}"), name)
        except ImportError as e:
            raise InputError(f"BFCL backend {name} does not import ({e}); get it with: {INSTALL}") from e

    def __contains__(self, name: object) -> bool:
        return name in _MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


BACKENDS: Mapping[str, type] = _Backends()


@functools.cache
def _docs(class_name: str) -> list[dict]:
    path = root() / "data" / "multi_turn_func_doc" / f"{_MODULES[class_name]}.json"
    # Response schemas are left out: with them, whole episodes outgrow 8,192 tokens.
    return [{k: v for k, v in doc.items() if k != "response"} for _, doc in read_jsonl(path)]


def read_category(category: str) -> list[tuple[str, dict]]:
    """("file:line", row) of one BFCL category, with `ground_truth` added where BFCL has one.

    Raises InputError for an unknown category, a missing or broken file, or an answer that is missing.
    """
    if category not in MULTI_TURN + SINGLE_TURN:
        raise InputError(
            f"BFCL category {category!r} is unknown; known: {', '.join(MULTI_TURN + SINGLE_TURN)}"
        )
    path = root() / "data" / f"BFCL_v4_{category}.json"
    answers = root() / "data" / "possible_answer" / path.name
    truths = {}
    # (ir)relevance rows have no answer: it only counts whether a call is made
    if not category.endswith("relevance"):
        truths = {answer.get("id"): answer.get("ground_truth") for _, answer in read_jsonl(answers)}
    rows = []
    for number, row in read_jsonl(path):
        origin = f"{path}:{number}"
        if "id" not in row or (truths and row["id"] not in truths):
            raise InputError(
                f"{origin}: row {row.get('id')!r} has no answer in {answers}; reinstall bfcl-eval"
            )
        rows.append((origin, {**row, "ground_truth": truths[row["id"]]} if truths else row))
    return rows


@functools.cache
def tasks(category: str) -> tuple[ScriptedTask, ...]:
    """All tasks of one multi-turn category, with docs. Raises InputError as `read_category` and
    `task_from_dict` do.
    """
    if category not in MULTI_TURN:
        raise InputError(
            f"BFCL category {category!r} has no multi-turn tasks; known: {', '.join(MULTI_TURN)}"
        )
    result = []
    for origin, row in read_category(category):
        classes = [name for name in row.get("involved_classes", []) if name in _MODULES]
        docs = [doc for name in classes for doc in _docs(name)]
        result.append(task_from_dict({**row, "category": category, "function": docs}, origin))
    return tuple(result)


@functools.cache
def _by_id(category: str) -> dict[str, ScriptedTask]:
    return {task.id: task for task in tasks(category)}


def find_task(task_id: str) -> ScriptedTask:
    """One multi-turn task by its id. Raises InputError for an id that BFCL does not have."""
    category = task_id.rsplit("_", 1)[0]
    task = _by_id(category).get(task_id) if category in MULTI_TURN else None
    if task is None:
        raise InputError(
            f"task id {task_id!r}: BFCL has no such multi-turn task; ids look like multi_turn_base_0"
        )
    return task
