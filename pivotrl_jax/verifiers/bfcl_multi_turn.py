"""bfcl_multi_turn: the episode still ends as the expert's when this action is played instead.

A candidate is a point in a task's episode: user turn t, of which the expert has made k calls. R are the
expert's remaining calls of t, and C the calls of the action.

1. If R is empty (the expert talks), the action is accepted iff it makes no call and says something. (BFCL's
   own checker accepts calls here.)
2. Otherwise the action is rejected if C is empty, calls a function not offered at turn t, or gives an
   argument that the function's doc does not name.
3. C is executed on a copy of the world at (t, k). If a call fails, the action is rejected. (BFCL accepts it.)
4. The action is accepted iff some non-empty subset M of R can be left out: C, then R without M in the
   expert's order, then all later expert turns give, at the end of every user turn, the expert's public state
   and working directory, and the expert's outputs of that turn are among all outputs so far (counted). Tried
   as M, largest first, are the calls of R that are also in C (defaults filled in, 5.0 equal to 5), and every
   prefix of R.
5. C may hold at most `max_extra` calls (a field of the case, 1 by default) more than M: reading something
   twice is allowed, trying out many calls is not.

In short: BFCL passes the spliced episode, and the expert has less left to do.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator

from pivotrl_jax.environments.episode import Expert, expert_of
from pivotrl_jax.environments.world import Snapshot, World
from pivotrl_jax.records import Action, Call, Candidate, InputError, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import case_candidate, field
from pivotrl_jax.verifiers.common import problem, says_something, show

NAME = "bfcl_multi_turn"
MAX_EXTRA = 1


@dataclasses.dataclass(frozen=True)
class _Point:
    """What every action at (task, t, k) is compared with. Immutable and cached."""

    expert: Expert
    turn: int
    world: Snapshot  # after k expert calls of the turn
    outputs: Counter[str]  # all outputs so far
    remaining: list[Call]  # R
    keys: list[tuple | None]  # the calls of R in comparable form
    offered: frozenset[str]


@functools.lru_cache(maxsize=1024)
def _point(task_id: str, turn: int, k: int) -> _Point:
    expert = expert_of(task_id)
    if turn >= len(expert.calls) or k > len(expert.calls[turn]):
        calls = [len(c) for c in expert.calls]
        raise InputError(f"case of task {task_id}: no turn {turn}, k {k}; its user turns have {calls} calls")
    world = expert.starts[turn].world()
    for call in expert.calls[turn][:k]:
        world.execute(call)
    remaining = expert.calls[turn][k:]
    return _Point(
        expert=expert,
        turn=turn,
        world=world.snapshot(),
        outputs=Counter(o for outputs in expert.outputs[:turn] for o in outputs)
        + Counter(expert.outputs[turn][:k]),
        remaining=remaining,
        keys=[world.key(call) for call in remaining],
        offered=frozenset(doc["name"] for doc in world.offered(turn)),
    )


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Score an action at the point that `candidate.case` = {"row", "turn", "k", "max_extra"?} names.

    Never raises on an action. Raises InputError for a case that names no task, or no point of its episode.
    """
    task_id, turn, k, max_extra = _case(candidate.case)
    point = _point(task_id, turn, k)
    rejected = problem(action)
    if rejected is not None:
        return rejected
    if not point.remaining:
        if action.calls:
            return Verdict(0.0, "call_when_expert_answers", f"called {show(action.calls[0].name)}")
        if not says_something(action.content):
            return Verdict(0.0, "empty", "no text and no call")
        return Verdict(1.0, "ok", "answers in text, as the expert does")
    if not action.calls:
        return Verdict(0.0, "no_call", f"the expert still has {len(point.remaining)} calls to make")
    return _judge(point, list(action.calls), max_extra)


def _case(case: dict) -> tuple[str, int, int, int]:
    task_id, turn, k = field(case, "row", str), field(case, "turn", int), field(case, "k", int)
    max_extra = MAX_EXTRA if case.get("max_extra") is None else field(case, "max_extra", int)
    if min(turn, k, max_extra) < 0:
        raise InputError(f"case of task {task_id}: turn, k and max_extra must not be negative, got {case}")
    return task_id, turn, k, max_extra


def _judge(point: _Point, calls: list[Call], max_extra: int) -> Verdict:
    world = point.world.world()
    for call in calls:
        if call.name not in point.offered:
            return Verdict(0.0, "not_offered", f"{show(call.name)} is not offered at this user turn")
        if not world.documented(call):
            return Verdict(0.0, "bad_arguments", f"{call.name} does not take {show(list(call.arguments))}")
    keys = [world.key(call) for call in calls]
    outputs = point.outputs.copy()
    for call in calls:
        output, failed = world.execute(call)
        if failed:
            return Verdict(0.0, "call_failed", f"{call.name}: {output[:200]}")
        outputs[output] += 1
    try:
        after = world.snapshot()
    except RecursionError:  # too deeply nested to be copied, so not the expert's state
        return Verdict(0.0, "state", "the state cannot be compared")
    verdict = Verdict(0.0, "state")
    for left_out in _savings(point.keys, keys):
        failure = _continue(point, after.world(), outputs.copy(), left_out)
        if not failure:
            extra = len(calls) - len(left_out)
            if extra > max_extra:
                return Verdict(0.0, "too_many_calls", f"{extra} calls more than needed, {max_extra} allowed")
            return Verdict(1.0, "ok", f"does {len(left_out)} of the expert's {len(point.remaining)} calls")
        verdict = Verdict(0.0, failure[0], failure[1])
    return verdict


def _savings(expert: list[tuple | None], action: list[tuple | None]) -> Iterator[frozenset[int]]:
    """The M to try, as indices into R, largest first: the calls that match, and every prefix."""
    have = Counter(key for key in action if key is not None)
    matched = set()
    for i, key in enumerate(expert):
        if have[key] > 0:
            have[key] -= 1
            matched.add(i)
    sets = {frozenset(matched)} | {frozenset(range(n)) for n in range(1, len(expert) + 1)}
    return iter(sorted((m for m in sets if m), key=lambda m: (-len(m), m != matched)))


def _continue(
    point: _Point, world: World, outputs: Counter[str], left_out: frozenset[int]
) -> tuple[str, str] | None:
    """Why the episode ends differently when the expert goes on without the calls `left_out`, or None."""
    expert = point.expert
    rest = [call for i, call in enumerate(point.remaining) if i not in left_out]
    for turn in range(point.turn, len(expert.calls)):
        for call in rest if turn == point.turn else expert.calls[turn]:
            outputs[world.call(call)] += 1
        if not world.same_state(expert.ends[turn]):
            return "state", f"user turn {turn} would end in another state"
        for output, count in Counter(expert.outputs[turn]).items():
            if outputs[output] < count:
                return "response", f"user turn {turn} would lack the output {output[:200]}"
    return None


def read_case(case: dict) -> tuple[Candidate, Action]:
    """A line {"id": task id, "turn", "k", "candidate": [{name: arguments}, ...], "max_extra"?}.

    An empty `candidate` stands for an answer in text. Raises InputError naming the field that is wrong.
    """
    extra = {"row": field(case, "id", str), "turn": field(case, "turn", int), "k": field(case, "k", int)}
    if case.get("max_extra") is not None:
        extra["max_extra"] = field(case, "max_extra", int)
    calls = []
    for item in field(case, "candidate", list):
        if isinstance(item, dict) and len(item) == 1:
            calls += [Call(name, arguments) for name, arguments in item.items()]
        else:
            calls.append(Call("", item))  # malformed model output, which is not the user's mistake
    candidate = case_candidate(case, NAME, {"role": "assistant", "content": ""}, [], extra)
    return candidate, Action(content="" if calls else "(text)", calls=tuple(calls))


VERIFIERS = (Verifier(NAME, "2", verify, read_case),)
