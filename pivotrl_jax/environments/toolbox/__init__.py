"""The toolbox world: six small services, scripted users and an expert, in BFCL's task format.

`tasks("train", 200, seed=0)` generates tasks; `find_task(id)` generates one again from its id. The splits
"pretrain", "train" and "test" share functions and closed sets (days, rooms) but no value words, and "test"
combines verb phrases and sentence frames that the others never combine. A `Variant` of the tasks shares the
words, too, or has longer episodes.
"""

import re
from typing import Any

from pivotrl_jax.environments.base import Environment
from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.environments.toolbox import phrases, values
from pivotrl_jax.environments.toolbox.demonstrations import STYLES, demonstrate
from pivotrl_jax.environments.toolbox.docs import DOCS
from pivotrl_jax.environments.toolbox.services import BACKENDS
from pivotrl_jax.environments.toolbox.users import Variant, find_task, tasks
from pivotrl_jax.records import InputError, Trajectory


class Toolbox(Environment):
    """Trains on tasks of the "train" split; evaluates and validates on tasks of the "test" split.

    The test tasks do not depend on the run's seed, so runs with different seeds are compared on the same
    tasks.
    """

    name, prefixes, backends = "toolbox", ("toolbox_",), BACKENDS

    def train_tasks(self, data: Any, seed: int) -> list[ScriptedTask]:
        count = min(data.demonstrations, data.limit) if data.limit else data.demonstrations
        return tasks("train", count, seed, _variant(data))

    def held_out_tasks(self, data: Any, seed: int) -> list[ScriptedTask]:
        return tasks("test", data.held_out_tasks, data.held_out_seed, _variant(data))

    def validation_tasks(self, validation: Any, data: Any) -> list[ScriptedTask]:
        return tasks("test", validation.tasks, validation.seed, _variant(data))

    def find_task(self, task_id: str) -> ScriptedTask:
        return find_task(task_id)

    def demonstrate(self, task: ScriptedTask, data: Any = None) -> Trajectory:
        return demonstrate(task) if data is None else demonstrate(task, data.style, data.detours)

    def check_config(self, config: Any) -> None:
        data, validation = config.data, config.validation
        if data.style not in STYLES:
            raise InputError(f"config.data.style is {data.style!r}; want {' or '.join(map(repr, STYLES))}")
        if validation.every and validation.seed == data.held_out_seed:
            raise InputError(
                f"config.validation.seed is {validation.seed}, the same as config.data.held_out_seed, so "
                "validation would use the held-out tasks; take another number"
            )


def _variant(data: Any) -> Variant:
    return Variant(data.words == "shared", tuple(data.user_turns) or None)


environment = Toolbox()


# Words that occur only in results and errors.
_RESULT_WORDS = """
    error no such exists wrong value event file item product person phone message room board task tasks moved
    removed guest locked total paid sent saved muted degrees song alarm done text name price hour day folder
    true false"""


def all_words() -> list[str]:
    """Every word of the tasks, sorted: templates, functions, parameters, results, values of all splits."""
    texts = [_RESULT_WORDS, *phrases.OPENERS, *phrases.CONNECTORS]
    for phrase in phrases.PHRASES.values():
        texts += [*phrase.verbs, *phrase.frames, *phrase.miss_verbs, *phrase.miss_frames]
        texts += [phrase.reply, phrase.ask, phrase.answer]
    texts = [re.sub(r"\{\w+\}", " ", text) for text in texts]
    texts += [" in folder on board with the card for hours at it and"]  # with optional values; names
    for doc in (doc for docs in DOCS.values() for doc in docs):
        properties = doc["parameters"]["properties"]
        texts += [doc["name"].replace("_", " "), doc["description"]]
        texts += [f"{key} {value['type']}" for key, value in properties.items()]
    texts += [word for splits in values.WORDS.values() for words in splits.values() for word in words]
    texts += [*values.DAYS, *values.ROOMS, *values.PLACES, *values.CARDS]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text)})
