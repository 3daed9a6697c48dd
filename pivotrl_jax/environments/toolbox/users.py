"""Tasks: scripted users who want things from two services, and the expert who does them.

A task is written turn by turn against live services, so every ground truth is executable by construction.
"""

import dataclasses
import re

from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.environments.toolbox import foreign
from pivotrl_jax.environments.toolbox.docs import DOCS
from pivotrl_jax.environments.toolbox.draft import Draft
from pivotrl_jax.environments.toolbox.intents import INTENTS, Plan
from pivotrl_jax.environments.toolbox.phrases import CONNECTORS, OPENERS, PHRASES, combinations
from pivotrl_jax.environments.toolbox.values import SPLITS
from pivotrl_jax.records import InputError

WORD_LIMITS = (6, 14)  # of a user sentence
MAX_CALLS = 3  # of a user turn
TURNS = (2, 2, 2, 2, 2, 3, 3, 3, 4, 5)  # numbers of user turns to draw from
BUNDLES, DEFAULTS, REVERSED = 0.5, 0.2, 0.2  # shares of experts with these habits
MISSING = 0.3  # share of tasks with a missing parameter
COMPOUND = 0.5  # share of call turns that try for a second wish
TALK = 0.12  # share of later turns that need no call
_SIDES = {split: "test" if split == "test" else "other" for split in SPLITS}

_CLAUSES = {
    (side, intent): combinations(p.verbs, p.frames, side)
    for side in ("test", "other")
    for intent, p in PHRASES.items()
}

_MISSING_CLAUSES = {
    (side, intent): combinations(p.miss_verbs, p.miss_frames, side)
    for side in ("test", "other")
    for intent, p in PHRASES.items()
    if p.ask
}
_SERVICES = tuple(DOCS)


@dataclasses.dataclass(frozen=True)
class Variant:
    """How tasks differ from the usual ones. It is a part of their ids."""

    shared_words: bool = False  # values are words of "pretrain" in every split
    user_turns: tuple[int, int] | None = None  # the fewest and the most; None: mostly 2, up to 5
    foreign: bool = False  # the same tasks, done by an expert of another school

    @property
    def world(self) -> str:
        """The part of the id that says what users want."""
        turns = f"_{self.user_turns[0]}to{self.user_turns[1]}" if self.user_turns else ""
        return ("_shared" if self.shared_words else "") + turns

    @property
    def suffix(self) -> str:
        return self.world + ("_foreign" if self.foreign else "")


USUAL = Variant()


class _Writer:
    """Writes one task."""

    def __init__(self, task_id: str, split: str, variant: Variant):
        vocabulary = "pretrain" if variant.shared_words else split
        self.draft, self.side, self.variant = Draft(task_id, vocabulary), _SIDES[split], variant
        chance = self.draft.chance
        self.style = {"bundle": chance(BUNDLES), "defaults": chance(DEFAULTS), "reversed": chance(REVERSED)}
        self.style["last_first"] = False
        if variant.foreign:
            self.style = {"bundle": False, "defaults": True, "reversed": True, "last_first": True}
        self.replies_of = {name: phrase.reply for name, phrase in PHRASES.items()}
        self.questions_of = {name: phrase.ask for name, phrase in PHRASES.items()}
        if variant.foreign:
            self.replies_of, self.questions_of = foreign.REPLIES, foreign.QUESTIONS
        first = self.draft.pick(_SERVICES)
        self.services = [first, self.draft.pick(_SERVICES, but=first)]
        for service in self.services:
            self.draft.open(service)
        self.wishes = [f for service in self.services for f in INTENTS[service]]
        self.users: list[str] = []
        self.truth: list[list[str]] = []
        self.replies: list[str] = []
        self.bundles: list[list[int]] = []

    def add(self, user: str, reply: str, truth: list[str], groups: list[int]) -> None:
        self.users.append(user)
        self.replies.append(reply)
        self.truth.append(truth)
        self.bundles.append(groups if self.style["bundle"] else [1] * len(truth))

    def sentence(self, clause: str, bare: bool = False) -> str | None:
        """The clause with an opener that brings it within the word limits; None when it is too long."""
        low, high = WORD_LIMITS
        size = clause.count(" ") + 1
        fitting = [o for o in OPENERS[: 1 if bare else None] if low <= size + len(o.split()) <= high]
        if not fitting:
            return None
        opener = self.draft.pick(fitting)
        return f"{opener} {clause}" if opener else clause

    def wish(self, missing: bool = False) -> tuple[str, Plan]:
        """An intent that the state allows, with its plan."""
        while True:
            intent = self.draft.pick(self.wishes)
            name = intent.__name__
            if (not missing or PHRASES[name].ask) and (plan := intent(self.draft)):
                return name, plan

    def clause(self, name: str, plan: Plan, table: dict) -> str:
        return self.draft.pick(table[self.side, name]).format(**plan[0])

    def call_turn(self) -> None:
        """One wish, or two about different things."""
        draft = self.draft
        draft.begin_turn()
        name, plan = self.wish()
        names, plans, text = [name], [plan], self.clause(name, plan, _CLAUSES)
        cost = draft.cost(plan)
        tries = 3 if cost < MAX_CALLS and not draft.solo and draft.chance(COMPOUND) else 0
        draft.first = False
        while tries and len(plans) == 1:
            tries -= 1
            name, plan = self.wish()
            longer = text + draft.pick(CONNECTORS) + self.clause(name, plan, _CLAUSES)
            if longer.count(" ") < WORD_LIMITS[1] and cost + draft.cost(plan) <= MAX_CALLS:
                names, plans, text = [*names, name], [*plans, plan], longer
        self.finish(self.sentence(text), names, plans)

    def finish(self, user: str, names: list[str], plans: list[Plan]) -> None:
        truth, groups, results = self.draft.perform(plans, self.style)
        if "tasks" in results:
            results["found"] = " and ".join(results["tasks"])
        reply = self.replies_of[names[-1]].format(**(results | plans[-1][0]))
        self.add(user, reply, truth, groups)
        self.draft.focus = plans[0][0].get("focus") if len(plans) == 1 else None

    def missing_turns(self) -> None:
        """A wish without one of its values; the expert asks; the user answers."""
        self.draft.begin_turn()
        name, plan = self.wish(missing=True)
        phrase = PHRASES[name]
        if name == "add_event":
            plan = plan[0], [(f, {k: v for k, v in a.items() if k != "hour"}) for f, a in plan[1]]
        elif name == "add_product":
            plan = plan[0], [(f, a | {"count": plan[0]["count"]}) for f, a in plan[1]]
        user = self.sentence(self.clause(name, plan, _MISSING_CLAUSES))
        self.add(user, self.questions_of[name].format(**plan[0]), [], [])
        value = phrase.answer.format(**plan[0])
        answer = self.draft.pick(_CLAUSES[self.side, "answer"]).format(value=value)
        self.finish(self.sentence(answer, bare=True) or answer, [name], [plan])

    def talk_turn(self) -> None:
        name = self.draft.pick(("talk", "wait"))
        text = self.draft.pick(_CLAUSES[self.side, name])
        self.add(text, self.replies_of[name], [], [])
        self.draft.focus = None

    def write(self) -> str:
        """Write all turns. Returns the category."""
        draft = self.draft
        fixed = self.variant.user_turns
        turns = draft.between(*fixed) if fixed else draft.pick(TURNS)
        missing = draft.chance(MISSING)
        at = draft.between(0, turns - 2)
        while len(self.users) < turns:
            if missing and len(self.users) >= at:
                missing, at = False, -1
                self.missing_turns()
            elif self.users and self.truth[-1] and draft.chance(TALK) and not missing:
                self.talk_turn()
            else:
                self.call_turn()
        return "toolbox_miss_param" if at == -1 else "toolbox_base"

    def docs(self) -> list[dict]:
        """The docs of both services in random order, without up to two functions that are not needed."""
        docs = [doc for service in self.services for doc in DOCS[service]]
        self.draft.shuffle(docs)
        needed = {call.split("(", 1)[0] for calls in self.truth for call in calls}
        spare = [doc["name"] for doc in docs if doc["name"] not in needed][: self.draft.between(0, 2)]
        return [doc for doc in docs if doc["name"] not in spare]


def _write(split: str, seed: int, index: int, variant: Variant) -> ScriptedTask:
    name = f"toolbox_{split}_{seed}_{index}"
    scenario = name + variant.world
    writer = _Writer(scenario, split, variant)
    category = writer.write()
    return ScriptedTask(
        id=name + variant.suffix,
        category=category,
        user_turns=[[{"role": "user", "content": text}] for text in writer.users],
        initial_config=writer.draft.config,
        involved_classes=writer.services,
        ground_truth=writer.truth,
        docs=writer.docs(),
        scenario=scenario,
        replies=writer.replies,
        bundles=writer.bundles,
    )


def tasks(split: str, count: int, seed: int, variant: Variant = USUAL) -> list[ScriptedTask]:
    """The first `count` tasks of a split under a seed: the same on every machine.

    Raises InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"toolbox split {split!r} does not exist; use one of {', '.join(SPLITS)}")
    return [_write(split, seed, index, variant) for index in range(count)]


_ID = re.compile(r"toolbox_([a-z]+)_(\d+)_(\d+)(_shared)?(?:_(\d)to(\d))?(_foreign)?")


def find_task(task_id: str) -> ScriptedTask:
    """The task of an id such as "toolbox_train_0_17", generated again. Raises InputError for any other id."""
    match = _ID.fullmatch(task_id)
    turns = (int(match[5]), int(match[6])) if match and match[5] else None
    if not match or match[1] not in SPLITS or (turns and not 2 <= turns[0] <= turns[1]):
        raise InputError(f"task id {task_id!r} is not of the toolbox; ids look like toolbox_train_0_17")
    return _write(match[1], int(match[2]), int(match[3]), Variant(bool(match[4]), turns, bool(match[7])))


def foreign_task(task: ScriptedTask) -> ScriptedTask:
    """The same task, done by an expert of another school."""
    return task if task.id.endswith("_foreign") else find_task(f"{task.id}_foreign")
