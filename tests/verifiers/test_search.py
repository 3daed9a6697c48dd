"""search: tables of steps that are the demonstrated one and steps that are not; and actions of any kind."""

import pytest
from support.hostile_actions import LONG, act, actions, check, fast_and_slow, hostile

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Candidate, InputError, Question
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.cases import calls_message

SEARCH, RELEASED = VERIFIERS["search"], VERIFIERS["search:nemo_gym"]
TOOLS = [
    {
        "name": "search",
        "parameters": {
            "properties": {"query": {"type": "string"}, "topn": {"type": "integer", "default": 10}},
            "required": ["query"],
        },
    },
    {"name": "open", "parameters": {"properties": {"id": {}, "cursor": {"type": "integer"}}}},
]
HISTORY = [
    {"role": "user", "content": "Which city holds the most people in Nigeria?"},
    {"role": "tool", "content": "Lagos is the largest city in Nigeria, with 15 million people by 2020."},
]


def candidate(*calls, content="", case=None, messages=HISTORY):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate("t@1", "t", 0, messages, TOOLS, message, "search", case or {}, "t")


# ---- steps

FIND = ("search", {"query": "Lagos population 2020"})
OPEN = ("open", {"id": 3, "cursor": 0})
ADDRESS = ("open", {"id": "https://www.example.com/a/"})
VISIT = ("visit", {"url": ["https://a.com/x", "https://b.com/y"], "goal": "find the mayor"})
QUERIES = ("search", {"query": ["Lagos mayor", "Lagos area"]})
QUOTE = ("find", {"pattern": "largest city in Nigeria", "cursor": 2})
STEPS = [
    (FIND, ("search", {"query": "population of lagos, 2020"}), "ok"),
    (FIND, ("search", {"query": "2020 Lagos population", "topn": 10}), "ok"),
    (FIND, ("search", {"query": "2020 Lagos population", "topn": 5}), "arguments"),
    (FIND, ("search", {"query": "Lagos population 2021"}), "query"),
    (FIND, ("search", {"query": ["Lagos population 2020"]}), "query"),
    (FIND, ("search", {}), "query"),
    (FIND, ("search", {"query": "Lagos population 2020", "site": "x"}), "arguments"),
    (FIND, ("web_search", {"query": "Lagos population 2020"}), "name"),
    (OPEN, ("open", {"id": 3.0, "cursor": 0}), "ok"),
    (OPEN, ("open", {"id": 4, "cursor": 0}), "arguments"),
    (OPEN, ("open", {"id": 3, "cursor": 1}), "arguments"),
    (OPEN, ("open", {"id": True, "cursor": 0}), "arguments"),
    (ADDRESS, ("open", {"id": "http://example.com/a"}), "ok"),
    (ADDRESS, ("open", {"id": "http://example.com/b"}), "page"),
    (ADDRESS, ("open", {"id": 3}), "page"),
    (VISIT, ("visit", {"url": ["b.com/y", "a.com/x"], "goal": "the mayor's name"}), "ok"),
    (VISIT, ("visit", {"url": ["b.com/y", "a.com/x"]}), "ok"),
    (VISIT, ("visit", {"url": ["b.com/y", "b.com/y"], "goal": "find the mayor"}), "page"),
    (VISIT, ("visit", {"url": ["b.com/y"], "goal": "find the mayor"}), "page"),
    (QUERIES, ("search", {"query": ["area of Lagos", "mayor of Lagos"]}), "ok"),
    (QUERIES, ("search", {"query": ["area of Lagos", "area Lagos"]}), "query"),
    (QUERIES, ("search", {"query": ["area of Lagos", 3]}), "query"),
    (QUOTE, ("find", {"pattern": "Largest city in Nigeria", "cursor": 2}), "ok"),
    (QUOTE, ("find", {"pattern": "the largest city in Nigeria", "cursor": 2}), "ok"),
    (QUOTE, ("find", {"pattern": "a largest city in Nigeria", "cursor": 2}), "evidence"),
    (QUOTE, ("find", {"pattern": "largest city in Nigeria", "cursor": 3}), "arguments"),
]


@pytest.mark.parametrize(("want", "got", "reason"), STEPS)
def test_steps(want, got, reason):
    verdict = SEARCH.verify(candidate(want), act(got))
    assert (verdict.reward, verdict.reason) == (reason == "ok", reason)
    assert SEARCH.verify(candidate(want), act(want)).reward == 1


def test_several_steps_pair_up_one_to_one():
    pair = candidate(("search", {"query": "Lagos city area"}), ("search", {"query": "Lagos area"}))
    # the first could stand for both, the second for one of them only
    made = [("search", {"query": "Lagos area"}), ("search", {"query": "area of Lagos city"})]
    assert SEARCH.verify(pair, act(*made)).reward == 1
    assert SEARCH.verify(pair, act(made[0])).reason == "count"
    assert SEARCH.verify(pair, act(*made, made[0])).reason == "count"
    assert SEARCH.verify(candidate(FIND), act(*[FIND] * 8)).reason == "count"


def test_the_case_names_roles_and_the_threshold():
    wordy, short = ("ask", {"words": "Lagos mayor name"}), ("ask", {"words": "Lagos name"})
    assert SEARCH.verify(candidate(wordy), act(short)).reason == "arguments"
    roles = {"roles": {"words": "query"}}
    assert SEARCH.verify(candidate(wordy, case=roles), act(short)).reward == 1
    assert SEARCH.verify(candidate(wordy, case={**roles, "query_similarity": 0.9}), act(short)).reward == 0
    exact = {"roles": {"search.query": "exact"}}
    assert (
        SEARCH.verify(candidate(FIND, case=exact), act(("search", {"query": "2020 Lagos population"}))).reward
        == 0
    )
    for bad in ({"roles": {"words": "poem"}}, {"roles": []}, {"query_similarity": "x"}):
        with pytest.raises(InputError):
            SEARCH.verify(candidate(FIND, case=bad), act(FIND))


def test_a_final_answer_that_rules_do_not_decide_is_a_question():
    state = candidate(content="Exact Answer: Lagos")
    assert SEARCH.verify(state, act(content="I looked.\nExact Answer: lagos.")).reward == 1
    assert SEARCH.verify(state, act(content="Lagos")).reward == 1
    verdict = SEARCH.verify(state, act(content="Exact Answer: Lagos State"))
    assert (verdict.reward, verdict.reason) == (0, "answer")
    assert verdict.question == Question("answer", HISTORY[0]["content"], "Lagos", "Lagos State")
    assert SEARCH.verify(state, act(content=" ")).reason == "empty"
    assert SEARCH.verify(state, act(content=" ")).question is None
    assert SEARCH.verify(state, act(FIND, content="Lagos")).reason == "called"
    known = candidate(
        content="It is Lagos, I think.", case={"answer": ["Lagos", "Eko"], "question": "Which?"}
    )
    assert SEARCH.verify(known, act(content="Answer: Eko")).reward == 1
    assert SEARCH.verify(known, act(content="Abuja")).question == Question(
        "answer", "Which?", "Lagos", "Abuja"
    )
    assert len(SEARCH.verify(known, act(content="x" * 10**6)).question.actual) <= 20_000


@pytest.mark.parametrize("gold", [r"$\boxed{42}$", r"The answer is \boxed{42}", "Exact Answer: 42"])
def test_a_boxed_answer_is_marked(gold):
    assert SEARCH.verify(candidate(content=gold), act(content=r"So it is \boxed{42}.")).reward == 1
    verdict = SEARCH.verify(candidate(content=gold), act(content=r"It is \boxed{41}, not 42."))
    assert (verdict.reward, verdict.question.actual) == (0, "41")


def test_an_answer_given_by_a_tool():
    gold = candidate(("submit", {"answer": "May 1, 2024", "confidence": 90}))
    assert SEARCH.verify(gold, act(("submit", {"answer": "2024-05-01", "confidence": 90}))).reward == 1
    unsure = SEARCH.verify(gold, act(("submit", {"answer": "spring 2024", "confidence": 90})))
    assert (unsure.reward, unsure.reason, unsure.question.actual) == (0, "answer", "spring 2024")
    other = SEARCH.verify(gold, act(("submit", {"answer": "spring 2024", "confidence": 10})))
    assert (other.reason, other.question) == ("arguments", None)


@pytest.mark.parametrize("mode", [SEARCH, RELEASED])
def test_rows_of_tool_use_are_read(mode):
    call = {
        "type": "function_call",
        "name": "search",
        "arguments": '{"query": "population of Lagos 2020 census"}',
    }
    made = {**call, "arguments": '{"query": "Lagos population census 2020"}'}
    half = {**call, "arguments": '{"query": "Lagos population growth statistics Nigeria"}'}
    row = {"id": "r", "expected_action": call, "candidate": [made], "tools": TOOLS, "messages": HISTORY}
    assert mode.verify(*mode.read_case(row)).reward == 1
    assert mode.verify(*mode.read_case({**row, "candidate": [half]})).reward == 0


def test_the_released_threshold_of_search_is_its_own():
    want, got = ("f", {"s": "a b c d"}), ("f", {"s": "a b x y"})  # 2 / 8
    assert VERIFIERS["tool_call:nemo_gym"].verify(candidate(want), act(got)).reward == 1
    assert RELEASED.verify(candidate(want), act(got)).reward == 0


# ---- any action at all

ARGUMENTS = {
    "query": "Lagos",
    "url": "https://a.com/x",
    "pattern": "largest city",
    "answer": "5 May 2024",
    "id": 1,
}
STATES = [
    candidate(("search", ARGUMENTS)),
    candidate(QUERIES, VISIT),
    candidate(ADDRESS, case={"calls": "superset"}),
    candidate(content="Exact Answer: May 1, 2024"),
]
TEXTS = [
    "Lagos",
    "https://a.com/x?utm_a=1",
    "largest city",
    "Answer: 5 May 2024",
    '"',
    "%",
    "1,2",
    "site:a",
    "from",
]
ACTIONS = actions(["search", "open", "visit"], [*ARGUMENTS, "goal", "queries"], TEXTS)


def any_action(action):
    for verifier in (SEARCH, RELEASED):
        for state in STATES:
            check(verifier, state, action)


test_any_action_gets_a_verdict, test_any_action_gets_a_verdict_slow = fast_and_slow(ACTIONS, any_action)


HOSTILE = {
    f"{trick}, {argument}": action
    for argument in ("query", "url", "pattern", "answer")
    for trick, action in hostile("search", argument, ARGUMENTS).items()
    if argument == "query" or "in an argument" in trick
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_makes_a_verifier_raise_or_take_long(trick):
    for verifier in (SEARCH, RELEASED):
        for state in (STATES[0], STATES[3]):
            check(verifier, state, HOSTILE[trick])


def test_a_long_page_in_the_history_is_no_trouble():
    for text in (LONG["words"], LONG["digits"], LONG["accents"]):
        state = candidate(QUOTE, messages=[{"role": "tool", "content": text}])
        check(SEARCH, state, act(("find", {"pattern": "the largest city in Nigeria", "cursor": 2})))


def test_a_sampled_completion_goes_all_the_way():
    text = '<think>hm</think><tool_call>{"name": "search", "arguments": {"query": "lagos"}}</tool_call>'
    assert SEARCH.verify(candidate(("search", {"query": "Lagos"})), parse_action(text)).reward == 1
