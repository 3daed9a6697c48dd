"""A backend small enough to check by eye, for tests of tasks, worlds, episodes and their verifier.

A test registers it with `environments.find("support.tiny_world:environment")`, as a config would.
"""

import copy

from pivotrl_jax.environments.base import Environment
from pivotrl_jax.environments.episode import replay
from pivotrl_jax.environments.tasks import ScriptedTask, task_from_dict

SHARED = {"total": 0}  # module-level state that instances alias, as BFCL's long_context TravelAPI does


class Folder:
    def __init__(self, name, parent=None):
        self.name, self.parent = name, parent


class Notes:
    """Notes in folders, with the traps that BFCL's backends set."""

    def _load_scenario(self, config, long_context=False):
        self.notes = config.get("notes", [])
        self.shared = SHARED
        self.long_context = long_context
        self._root = Folder("home")
        self._current_dir = self._root
        self._secret = 0

    def add_note(self, text: str, tags: list = [], pinned: bool = False):  # noqa: B006
        if not isinstance(text, str):
            raise TypeError("text must be a string")
        if any(note["text"] == text for note in self.notes):
            return {"error": f"{text} exists"}
        tags.append("new")
        self.notes.append({"text": text, "tags": tags, "pinned": pinned})
        self.shared["total"] += 1
        return {"id": len(self.notes) - 1}

    def list_notes(self, limit: int = 10):
        return {"notes": [note["text"] for note in self.notes[: int(limit)]]}

    def open_folder(self, folder: str):
        self._current_dir = Folder(folder, self._current_dir)
        return None

    def power(self, base: float, exponent: float):
        return {"result": base**exponent}

    def describe(self):
        return "some notes"

    def wipe(self):  # public, but without a doc: nobody may call it
        self.notes.clear()


BACKENDS = {"Notes": Notes}


def doc(name, required=(), **properties):
    """A function doc in BFCL's form; properties are name=type."""
    kinds = {key: {"type": kind, "description": key} for key, kind in properties.items()}
    return {
        "name": name,
        "description": f"{name}.",
        "parameters": {"type": "dict", "properties": kinds, "required": list(required)},
    }


DOCS = [
    doc("add_note", ["text"], text="string", tags="array", pinned="boolean"),
    doc("list_notes", limit="integer"),
    doc("open_folder", ["folder"], folder="string"),
    doc("power", ["base", "exponent"], base="float", exponent="float"),
    doc("describe"),
]

TASK = {
    "id": "tiny_0",
    "category": "tiny_base",
    "question": [
        [{"role": "user", "content": "Note milk and eggs, then show my notes."}],
        [{"role": "user", "content": "Do something impossible."}],
        [{"role": "user", "content": "Open the work folder."}],
    ],
    "initial_config": {"Notes": {"notes": [{"text": "tea", "tags": [], "pinned": False}]}},
    "involved_classes": ["Notes"],
    "ground_truth": [
        ["add_note('milk')", "add_note(text='eggs', pinned=True)", "list_notes()"],
        [],
        ["open_folder(folder='work')"],
    ],
    "function": DOCS,
}


# The same world, but `open_folder` is first offered at user turn 1, where the user has nothing else to say.
LATE = {
    **TASK,
    "id": "tiny_late_1",
    "question": [TASK["question"][0], [], TASK["question"][2]],
    "missed_function": {"1": ["open_folder"]},
}


def make_task(**changes) -> ScriptedTask:
    return task_from_dict({**copy.deepcopy(TASK), **changes}, "rows.jsonl:7")


class TinyWorld(Environment):
    """Two scripted tasks in Notes; neither is trained on."""

    name, prefixes, backends = "tiny", ("tiny_",), BACKENDS

    def train_tasks(self, data, seed):
        return []

    def find_task(self, task_id: str) -> ScriptedTask:
        tasks = {"tiny_0": make_task(), "tiny_late_1": task_from_dict(copy.deepcopy(LATE), "late")}
        return tasks[task_id]

    def demonstrate(self, task, data=None):
        return replay(task, self.name)


environment = TinyWorld()


def task_to_dict(task: ScriptedTask) -> dict:
    """The JSON object that `task_from_dict` reads back to an equal task."""
    return {
        "id": task.id,
        "category": task.category,
        "question": task.user_turns,
        "initial_config": task.initial_config,
        "involved_classes": task.involved_classes,
        "ground_truth": task.ground_truth,
        "function": task.docs,
        "missed_function": {str(turn): names for turn, names in task.missed_function.items()},
        "scenario": task.scenario,
        "replies": task.replies,
        "bundles": task.bundles,
    }
