"""swe: tables of actions that do what was demonstrated and of others; actions of any kind, in both modes."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile_actions import actions, check, completions, few, hostile, many
from support.paths import SHARED
from support.swe_cases import (
    ACCEPTED,
    CREATE,
    FIX,
    GREP,
    GTE,
    HEREDOC,
    INSERT,
    LINES,
    OPENCODE,
    PATCH,
    PYTEST,
    READ,
    REJECTED,
    VIEW,
    act,
    bash,
    candidate,
    edit,
)

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Action, Call, InputError
from pivotrl_jax.verifiers import get
from pivotrl_jax.verifiers.cases import calls_message

STRICT, NEMO = get("swe"), get("swe", "nemo_gym")
CONFORMANCE = SHARED / "conformance/nemo_gym/swe_pivot.jsonl"


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case):
    gold, actual = ACCEPTED[case]
    verdict = STRICT.verify(candidate(gold), act(actual))
    assert (verdict.reward, verdict.reason) == (1, "ok"), verdict
    for call in (gold, actual):  # and everything is itself
        assert STRICT.verify(candidate(call), act(call)).reward == 1


@pytest.mark.parametrize("case", REJECTED)
def test_rejected(case):
    gold, actual, reason = REJECTED[case]
    verdict = STRICT.verify(candidate(gold), act(actual))
    assert (verdict.reward, verdict.reason) == (0, reason), verdict
    assert STRICT.verify(candidate(gold), act(gold)).reward == 1


def test_calls_are_counted_and_matched_one_to_one():
    both = candidate(FIX, PYTEST)
    assert STRICT.verify(both, act(FIX, PYTEST)).reward == 1
    assert STRICT.verify(both, act(PYTEST, FIX)).reason == "name"  # tests before the fix
    assert STRICT.verify(candidate(VIEW, GREP), act(GREP, VIEW)).reward == 1
    assert STRICT.verify(candidate(VIEW, GREP), act(GREP, GREP)).reason in ("name", "operation")
    assert STRICT.verify(both, act(FIX, FIX)).reason == "name"
    assert STRICT.verify(candidate(FIX), act(FIX, bash("rm -rf /"))).reason == "count"
    assert STRICT.verify(both, act(FIX)).reason == "count"
    assert STRICT.verify(candidate(FIX), act(content="done")).reason == "no_call"
    assert STRICT.verify(candidate(content="Done."), act(content="All done.")).reward == 1
    assert STRICT.verify(candidate(content="Done."), act(FIX)).reason == "called"
    malformed = Action(calls=(Call(*FIX),), malformed="cut off")
    assert STRICT.verify(candidate(FIX), malformed).reason == "malformed"


def test_a_cd_of_one_side_leads_to_where_the_agent_works():
    history = [{"role": "user", "content": "The repository is at /w/proj."}]
    gold = dataclasses.replace(candidate(bash("python a.py")), messages=history)
    assert STRICT.verify(gold, act(bash("cd /w/proj && python a.py"))).reward == 1
    assert STRICT.verify(gold, act(bash("python a.py", workdir="/w/proj"))).reward == 1
    for place in ("/w/other", "src", "/", "/w"):
        assert STRICT.verify(gold, act(bash(f"cd {place} && python a.py"))).reason == "head"
    assert STRICT.verify(gold, act(bash("python a.py", workdir="/w/other"))).reason == "head"
    # what the environment said last, and what the agent's own commands changed to, counts more
    said = [*history, {"role": "tool", "content": "ok\n[Current working directory: /w/other]"}]
    gold = dataclasses.replace(gold, messages=said)
    assert STRICT.verify(gold, act(bash("cd /w/other && python a.py"))).reward == 1
    assert STRICT.verify(gold, act(bash("cd /w/proj && python a.py"))).reason == "head"
    assert STRICT.verify(gold, act(bash("python /w/other/a.py"))).reward == 1
    assert STRICT.verify(gold, act(bash("python /w/proj/a.py"))).reason == "operands"
    moved = calls_message([bash("cd /w/app && make")])
    for said, reward in (("The repository is /w.", 0), ("Fix /w/app/a.py.", 1), ("See /usr/bin/env.", 1)):
        gold = dataclasses.replace(gold, messages=[{"role": "user", "content": said}, moved])
        assert STRICT.verify(gold, act(bash("cd /w/app && python a.py"))).reward == reward
        assert STRICT.verify(gold, act(bash("cd /w && python a.py"))).reason == "head"
    named = [{"role": "user", "content": "Work in /w/proj, but see /w/other/b.py"}]
    gold = dataclasses.replace(gold, messages=named)
    assert STRICT.verify(gold, act(bash("cd /w/proj && python a.py"))).reason == "head"


def test_each_level_asks_for_more():
    steps = {
        "name": edit("view", "/w/other.py"),
        "file": edit("view", view_range=[1, 5]),
        "target": (VIEW[0], {**VIEW[1], "concise": True}),
        "all": VIEW,
    }
    for i, level in enumerate(steps):
        rewards = [STRICT.verify(candidate(VIEW, level=level), act(step)).reward for step in steps.values()]
        assert rewards == [0] * i + [1] * (4 - i)
    off = {"enable_target_match": False, "enable_argument_similarity": False}
    assert STRICT.verify(candidate(PYTEST, config=off), act(bash("rm -rf /"))).reward == 1


def test_declared_tools_bound_names_and_arguments():
    tools = [
        {
            "name": "bash",
            "parameters": {"properties": {"command": {}, "timeout": {}}, "required": ["command"]},
        }
    ]
    gold = candidate(bash("ls src"), tools=tools)
    assert STRICT.verify(gold, act(bash("ls src", timeout=5))).reward == 1
    assert STRICT.verify(gold, act(("shell", {"command": "ls src"}))).reason == "name"
    assert STRICT.verify(gold, act(bash("ls src", force=True))).reason == "schema"
    assert STRICT.verify(gold, act(("bash", {"cmd": "ls src"}))).reason == "schema"


@pytest.mark.parametrize(
    "case", [{"level": "deep"}, {"level": 3}, {"similarity": 0.8}, {"config": {"reward_mode": 3}}]
)
def test_a_case_that_cannot_be_used_is_named(case):
    with pytest.raises(InputError):
        STRICT.verify(candidate(FIX, **case), act(FIX))


def test_demonstrations_pass_the_self_check():
    golds = [gold for gold, *_ in (*ACCEPTED.values(), *REJECTED.values())]
    assert self_check([candidate(gold) for gold in golds]).left_out == {}


# ---- conformance


def rows():
    if not CONFORMANCE.exists():
        pytest.skip("../shared, with NeMo Gym's conformance cases, is not here")
    return [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]


# nearly the same file is another file
STRICT_DIFFERS = {"swe_pivot/sim/autojunk_shift": 0}


def test_strict_closes_what_is_tagged_a_defect():
    for row in rows():
        verdict = STRICT.verify(*STRICT.read_case(row))
        want = {"false_accept": 0, "false_reject": 1}.get(row.get("defect"))
        want = STRICT_DIFFERS.get(row["id"], want)
        want = 1 if row["id"].endswith("/gold") else want
        assert want in (None, verdict.reward), (row["id"], verdict)


# ---- actions of any kind

GOLDS = [FIX, GTE, VIEW, INSERT, CREATE, GREP, READ, OPENCODE, PATCH, PYTEST, HEREDOC, LINES]
CANDIDATES = [candidate(gold) for gold in GOLDS] + [
    candidate(content="Done."),
    candidate(FIX, PYTEST),
    candidate(FIX, config={"reward_mode": "continuous"}),
    candidate(PYTEST, level="target"),
]
KEYS = sorted(
    {key for _, arguments in GOLDS for key in arguments} | {"cmd", "patch", "content", "limit", "workdir"}
)
TEXTS = [value for _, arguments in GOLDS for value in arguments.values() if isinstance(value, str)]
TEXTS += [
    "cd /w &&",
    "<<'EOF'\n",
    "\nEOF\n",
    "| head -5",
    "$(",
    "`",
    "[1, -1]",
    "edit 1:2\n",
    "for",
    "[[",
    "sudo -u",
]
ANY = actions([name for name, _ in GOLDS] + ["shell", "view", "browser"], KEYS, TEXTS)


@st.composite
def mutated(draw):
    """A demonstration with one argument cut, joined to another or gone."""
    name, given = draw(st.sampled_from(GOLDS))
    key = draw(st.sampled_from(sorted(given)))
    value = str(given[key])
    text = draw(
        st.sampled_from(
            [value, value[: draw(st.integers(0, len(value)))], value + draw(st.sampled_from(TEXTS))]
        )
        | st.sampled_from(TEXTS).map(lambda more: value.replace(value[:2], more))
    )
    arguments = {**given, key: text} if draw(st.booleans()) else {k: v for k, v in given.items() if k != key}
    return act((name, json.dumps(arguments) if draw(st.booleans()) else arguments))


def check_all(gold, action):
    check(STRICT, gold, action)
    check(NEMO, gold, action)


@few()
@given(st.sampled_from(CANDIDATES), st.one_of(ANY, mutated()))
def test_no_action_harms(gold, action):
    check_all(gold, action)


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [STRICT, NEMO], ids=lambda verifier: verifier.name)
def test_no_action_of_very_many_harms(verifier):
    @many()
    @given(st.sampled_from(CANDIDATES), st.one_of(ANY, mutated()))
    def run(gold, action):
        check(verifier, gold, action)

    run()


@few()
@given(completions([*TEXTS, *(json.dumps(given) for _, given in GOLDS)]))
def test_no_completion_harms(text):
    check_all(CANDIDATES[0], parse_action(text))


@few()
@given(
    st.lists(st.sampled_from([*TEXTS, "(", ")", "'", '"', "&&", "\\", "{", "}", "<(", ";;"]), max_size=8).map(
        " ".join
    )
)
def test_every_text_is_read_as_commands(text):
    assert STRICT.verify(candidate(bash(text)), act(bash(text))).reward == 1


HOSTILE = {
    **hostile("bash", "command", {"command": "ls"}),
    **{f"edit: {k}": v for k, v in hostile("str_replace_editor", "new_str", FIX[1]).items()},
    **{f"patch: {k}": v for k, v in hostile("apply_patch", "input", {}).items()},
    **{f"path: {k}": v for k, v in hostile("str_replace_editor", "path", FIX[1]).items()},
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_harms(trick):
    action = HOSTILE[trick]
    name = action.calls[0].name if action.calls else ""
    golds = {"bash": PYTEST, "apply_patch": PATCH}
    gold = candidate(golds.get(name, FIX) if isinstance(name, str) else FIX)
    assert check(STRICT, gold, action) == 0
    check(NEMO, gold, action)


@pytest.mark.parametrize(
    "text", ["<<A\n" * 200_000, "$(" * 400_000, "a;" * 400_000, "edit 1:2\n" + "\n" * 900_000 + "x"]
)
def test_a_demonstration_of_a_megabyte_is_compared_in_time(text):
    for gold, other in (
        (bash(text), bash(text + "x")),
        (edit("create", file_text=text), edit("create", file_text=text[1:])),
    ):
        check_all(candidate(gold), act(gold))
        check_all(candidate(gold), act(other))


OTHER_CALLS = {
    "another kind of search": (
        "grep",
        {"pattern": "config", "path": "src"},
        "glob",
        {"pattern": "config", "path": "src"},
    ),
    "reading the plan": ("todo_write", {"todos": []}, "todo_read", {}),
    "every place of a longer text": (
        "edit",
        {"path": "a.py", "old_string": "timeout = 10", "new_string": "timeout = 30", "replace_all": True},
        "edit",
        {
            "path": "a.py",
            "old_string": "x\ntimeout = 10",
            "new_string": "x\ntimeout = 30",
            "replace_all": True,
        },
    ),
    "a switch of an unknown tool": ("toggle", {"enabled": False}, "toggle", {}),
}


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_calls_that_do_something_else(name):
    tool, arguments, other, others = OTHER_CALLS[name]
    action = Action(calls=(Call(other, others),))
    assert STRICT.verify(candidate((tool, arguments)), action).reward == 0


def test_arguments_that_are_no_object_are_compared_and_never_raise():
    gold = candidate(("bash", {"command": "ls", "timeout": float("nan")}))
    assert STRICT.verify(gold, Action(calls=(Call("bash", "x"),))).reward == 0
