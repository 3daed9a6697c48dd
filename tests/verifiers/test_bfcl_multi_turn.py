"""The functional per-turn verifier: rules on a tiny world, then BFCL and the conformance set."""

import json

import pytest
from support.bfcl_reference import bfcl_passes, need_bfcl
from support.paths import SHARED

from pivotrl_jax import environments
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.environments.bfcl import tasks
from pivotrl_jax.environments.episode import expert_of, replay
from pivotrl_jax.records import Action, Call, Candidate, InputError
from pivotrl_jax.verifiers import bfcl_multi_turn, get

VERIFIER = get("bfcl_multi_turn")

CASES = SHARED / "conformance/bfcl/multi_turn_verify.jsonl"
MILK = Call("add_note", {"text": "milk"})
EGGS = Call("add_note", {"text": "eggs", "pinned": True})
LIST = Call("list_notes", {})
WORK = Call("open_folder", {"folder": "work"})


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(environments, "_named", {})
    environments.find("support.tiny_world:environment")


def candidate(row, turn, k, **case):
    case = {"row": row, "turn": turn, "k": k, **case}
    return Candidate("c", row, 0, [], [], {"role": "assistant", "content": ""}, VERIFIER.name, case, row)


def score(turn, k, *calls, row="tiny_0", content="", **case):
    verdict = VERIFIER.verify(candidate(row, turn, k, **case), Action(content=content, calls=calls))
    assert verdict.reward == (1.0 if verdict.reason == "ok" else 0.0)
    return verdict.reason


@pytest.mark.parametrize(
    ("turn", "k", "calls"),
    [
        (0, 0, [MILK]),
        (0, 0, [MILK, EGGS]),
        (0, 0, [MILK, EGGS, LIST]),
        (0, 0, [Call("add_note", {"text": "milk", "tags": [], "pinned": False})]),  # defaults spelt out
        (0, 2, [Call("list_notes", {"limit": 10.0})]),
        (0, 2, [Call("list_notes", {"limit": 99})]),  # same output, so the same deed
        (0, 0, [LIST, MILK]),  # one harmless read
        (2, 0, [WORK]),
    ],
)
def test_calls_that_leave_the_expert_less_to_do_are_accepted(tiny, turn, k, calls):
    assert score(turn, k, *calls) == "ok"


@pytest.mark.parametrize(
    ("turn", "k", "calls", "reason"),
    [
        (0, 0, [], "no_call"),
        (0, 0, [LIST], "state"),  # a useless read
        (0, 0, [EGGS], "state"),  # the notes would be in another order
        (0, 0, [Call("add_note", {"text": "milk."})], "state"),
        (0, 2, [Call("list_notes", {"limit": 1})], "response"),
        (0, 1, [MILK], "call_failed"),  # it exists already
        (0, 0, [Call("add_note", {})], "call_failed"),
        (0, 0, [Call("add_note", {"txt": "milk"})], "bad_arguments"),
        (0, 0, [Call("wipe", {})], "not_offered"),
        (0, 0, [MILK, Call("fly", {})], "not_offered"),
        (2, 0, [Call("open_folder", {"folder": "play"})], "state"),  # cwd, which BFCL ignores
        (2, 0, [WORK, WORK], "state"),
        (0, 3, [LIST], "call_when_expert_answers"),
        (1, 0, [LIST], "call_when_expert_answers"),
    ],
)
def test_rejections_say_why(tiny, turn, k, calls, reason):
    assert score(turn, k, *calls) == reason


def test_where_the_expert_talks_any_text_passes_but_not_silence(tiny):
    assert score(0, 3, content="Done.") == score(1, 0, content="I cannot.") == "ok"
    assert score(0, 3) == score(1, 0, content=" \n") == "empty"


def test_call_spam_is_bounded_by_max_extra(tiny):
    assert score(0, 0, LIST, MILK) == "ok"
    assert score(0, 0, LIST, LIST, MILK) == "too_many_calls"
    assert score(0, 0, LIST, LIST, MILK, max_extra=2) == "ok"
    assert score(0, 0, LIST, MILK, max_extra=0) == "too_many_calls"


def test_a_function_counts_as_offered_from_its_turn_on(tiny):
    assert score(0, 0, MILK, WORK, row="tiny_late_1") == "not_offered"
    assert score(2, 0, WORK, row="tiny_late_1") == "ok"


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "call",
    [
        Call("add_note", None), Call("add_note", "milk"), Call("add_note", {"text": _nested(100_000)}),
        Call("add_note", {"text": "milk", "tags": _nested(60)}), Call("add_note", {3: 4}), Call(None, {}),
        Call(["x"], {}), Call("\ud800", {"\ud800": "\ud800"}), Call("power", {"base": 9, "exponent": 10**12}),
        Call("power", {"base": float("nan"), "exponent": 10**5000}), Call("__import__('os').getpid", {}),
        Call("__class__", {}), Call("list_notes", {"limit": float("inf")}), Call("add_note", {"self": 1}),
    ],
)  # fmt: skip
def test_nothing_that_a_model_writes_raises_or_passes(tiny, call):
    for turn, k in ((0, 0), (0, 3), (2, 0)):
        assert score(turn, k, call) != "ok"
        VERIFIER.verify(candidate("tiny_0", turn, k), Action(calls=(MILK, call, call)))


def test_a_malformed_action_is_rejected_even_beside_the_right_call(tiny):
    action = Action(content="x", calls=(MILK,), malformed="the JSON is cut off")
    assert VERIFIER.verify(candidate("tiny_0", 0, 0), action).reason == "malformed"


def test_verdicts_do_not_depend_on_what_was_asked_before(tiny):
    first = [score(0, 0, *calls) for calls in ([MILK], [LIST], [MILK, EGGS], [EGGS])]
    again = [score(0, 0, *calls) for calls in ([MILK], [LIST], [MILK, EGGS], [EGGS])]
    assert first == again == ["ok", "state", "ok", "state"]


@pytest.mark.parametrize(
    "case",
    [{}, {"row": "tiny_0", "turn": 9, "k": 0}, {"row": "tiny_0", "turn": 0, "k": 4},
     {"row": "tiny_0", "turn": -1, "k": 0}, {"row": 3, "turn": 0, "k": 0}, {"row": "x", "turn": 0, "k": 0}],
)  # fmt: skip
def test_a_case_that_names_no_point_is_the_users_mistake(tiny, case):
    wrong = Candidate("c", "t", 0, [], [], {}, VERIFIER.name, case, "")
    with pytest.raises(InputError):
        VERIFIER.verify(wrong, Action(content="hi"))


def test_conformance():
    need_bfcl()
    if not CASES.is_file():
        pytest.skip(f"{CASES} is not there")
    lines = [json.loads(line) for line in CASES.read_text().splitlines()]
    wrong = []
    for case in lines:
        verdict = VERIFIER.verify(*VERIFIER.read_case(case))
        if (bool(verdict.reward), verdict.reason) != (case["verifier_ok"], case["verifier_reason"]):
            wrong.append((case["id"], case["turn"], case["k"], case["kind"], verdict))
    assert len(lines) == 1026 and wrong == []


def _accepted_and_bfcl(step: int) -> tuple[int, int]:
    """Actions accepted here, and for how many of them BFCL passes the spliced episode (for some M)."""
    accepted = passed = 0
    for category in tasks.MULTI_TURN:
        for row in tasks.tasks(category)[::step]:
            expert = expert_of(row.id)
            for turn, calls in enumerate(expert.calls):
                for k in range(len(calls)):
                    rest = calls[k:]
                    for made in (rest[:1], rest, rest[1:2], rest[:1] * 2, rest[1::-1], rest[-1:]):
                        action = Action(calls=tuple(made))
                        if not VERIFIER.verify(candidate(row.id, turn, k), action).reward:
                            continue
                        accepted += 1
                        passed += _some_splice_passes(row, expert, turn, k, made)
    return accepted, passed


def _some_splice_passes(row, expert, turn, k, made) -> bool:
    world = expert.starts[0].world()
    rest = expert.calls[turn][k:]
    for left_out in bfcl_multi_turn._savings([world.key(c) for c in rest], [world.key(c) for c in made]):
        turns = [[[call] for call in calls] for calls in expert.calls]
        after = [[call] for i, call in enumerate(rest) if i not in left_out]
        turns[turn] = [*turns[turn][:k], list(made), *after]
        if bfcl_passes(row, turns):
            return True
    return False


def test_bfcl_passes_every_accepted_splice_of_a_sample():
    need_bfcl()
    accepted, passed = _accepted_and_bfcl(50)
    assert accepted == passed > 100


@pytest.mark.slow
def test_bfcl_passes_every_accepted_splice_of_many_rows():
    need_bfcl()
    accepted, passed = _accepted_and_bfcl(8)
    assert accepted == passed > 1000


@pytest.mark.slow
def test_the_expert_is_accepted_at_every_pivot_but_the_known_one():
    need_bfcl()
    total, rejected = 0, []
    for category in tasks.MULTI_TURN:
        for trajectory in map(replay, tasks.tasks(category)):
            for i, case in trajectory.cases.items():
                message = trajectory.messages[i]
                verdict = VERIFIER.verify(candidate(**case), message_to_action(message))
                total += 1
                if not verdict.reward:
                    rejected.append((case["row"], case["turn"], case["k"], verdict.reason))
    assert total == 7961
    assert rejected == [("multi_turn_miss_func_49", 1, 1, "not_offered")]
