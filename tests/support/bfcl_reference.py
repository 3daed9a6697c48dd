"""BFCL's own multi-turn checker and executor, for comparison. They `eval`: feed them our own calls."""

import copy
import functools
import itertools
import sys
import types

import pytest

from pivotrl_jax.environments.bfcl import tasks
from pivotrl_jax.records import Call, InputError

_RUN = (
    itertools.count()
)  # BFCL keeps instances in module globals by model name: every check needs a fresh one


@functools.cache
def _missing() -> str:
    try:
        tasks.root()
        list(tasks.BACKENDS.values())
    except InputError as e:
        return str(e)
    return ""


def need_bfcl():
    """Skip the test when bfcl_eval or mpmath is not there. Never downloads."""
    if _missing():
        pytest.skip(_missing())


def call_text(call: Call) -> str:
    return f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})"


def _utils():
    tasks.root()
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker, multi_turn_utils

    return multi_turn_checker, multi_turn_utils


def bfcl_passes(task, turns: list[list[list[Call]]]) -> bool:
    """BFCL's verdict on an episode: per user turn, per action, calls."""
    checker, utils = _utils()
    texts = [[[call_text(call) for call in action] for action in turn] for turn in turns]
    entry = {"id": task.id, "initial_config": task.initial_config, "involved_classes": task.involved_classes}
    try:
        result = checker.multi_turn_checker(texts, task.ground_truth, entry, task.category, f"m{next(_RUN)}")
    finally:
        _forget(utils)
    return result["valid"]


def bfcl_outputs(task) -> list[list[str]]:
    """What BFCL's executor prints for the ground truth, per user turn."""
    _, utils = _utils()
    name = f"m{next(_RUN)}"
    outputs = [
        utils.execute_multi_turn_func_call(
            calls, task.initial_config, task.involved_classes, name, task.id, "long_context" in task.category
        )[0]
        for calls in task.ground_truth
    ]
    _forget(utils)
    return outputs


def _forget(utils):
    for name in [name for name in vars(utils) if name.endswith("_instance")]:
        del vars(utils)[name]


class _NoDots(dict):
    """BFCL's table of models, in which none of them writes "_" for the dots of a name."""

    def __missing__(self, key):
        return types.SimpleNamespace(underscore_to_dot=False)


def ast_checker():
    """BFCL's single-turn checker as f(docs, calls, possible_answer, category) -> bool."""
    tasks.root()
    models = types.ModuleType("bfcl_eval.constants.model_config")  # the real one imports every vendor's SDK
    models.MODEL_CONFIG_MAPPING = _NoDots()
    sys.modules.setdefault(models.__name__, models)
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval import ast_checker as checker

    checker.MODEL_CONFIG_MAPPING = _NoDots()  # it may be imported already, with another's table

    def valid(docs, calls, answer, category):
        language = next((k for k in ("javascript", "java") if k in category), "python")
        given = copy.deepcopy((docs, calls, answer))
        return checker.ast_checker(*given, Language[language.upper()], category, "any")["valid"]

    return valid
