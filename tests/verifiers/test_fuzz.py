"""Random calls: the demonstration and what is documented as its equal get 1, one meaningful change gets 0.

`PIVOTRL_FUZZ=100000 pytest tests/verifiers/test_fuzz.py` tries so many actions per verifier.
"""

import random

import pytest
from support import call_fuzz
from support.call_fuzz import alike, apart, fields, given, tool
from support.fuzzing import cases
from support.hostile_actions import act

from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.cases import calls_message

COUNT = cases(600) // 3  # each case tries three actions
SEED = 15
ROLES = ("query", "q", "url", "pattern")  # arguments that `search` compares by rules of its own


def candidate(name, calls, tools, case=None, messages=()):
    message = calls_message(calls) if calls else {"role": "assistant", "content": "Done."}
    return Candidate("t@1", "t", 0, list(messages), tools, message, name, case or {}, "t")


def tried(name, state, *actions):
    """The verdicts on actions; every action also as one of two calls."""
    return [VERIFIERS[name].verify(state, action) for action in actions]


def rewards(name, state, *actions):
    verdicts = tried(name, state, *actions)
    assert all(v.reason and (v.reward == 1) == (v.reason in ("ok", "task_action")) for v in verdicts)
    return [v.reward for v in verdicts]


def calls_of(rng, names=("book", "send_message", "notify")):
    of = fields(rng)
    other = ("other", {"id": rng.randint(0, 9)})
    beside = [other] if rng.random() < 0.2 else []
    name = rng.choice(names)
    return of, [tool(name, of)], [(name, given(of)), *beside], name, beside


LOOK_UPS = {"tau2": [("find_room", "search_guests", "get_note")]}  # writes are exact


@pytest.mark.parametrize("name", ["tool_call", "tau2", "search"])
def test_calls_of_any_tool(name):
    for rng in call_fuzz.generators(SEED, COUNT):
        of, tools, gold, called, beside = calls_of(rng, *LOOK_UPS.get(name, ()))
        same, other = (called, alike(of, rng)), (called, apart(of, rng))
        state = candidate(name, gold, tools)
        if name == "search" and any(f.name in ROLES for f in of):  # test_steps_of_a_search has these
            continue
        got = rewards(name, state, act(*gold), act(*beside, same), act(*beside, other))
        assert got == [1, 1, 0], (gold, same, other)


def test_exact_takes_nothing_but_the_order_of_keys():
    for rng in call_fuzz.generators(SEED + 1, COUNT):
        of, tools, gold, called, beside = calls_of(rng)
        same = dict(rng.sample(list(given(of).items()), len(of))) | rng.choice([{}, {"arrow": None}])
        other = rng.choice([apart(of, rng), {**given(of), "limit": 5}])
        state = candidate("exact", gold, tools)
        got = rewards("exact", state, act(*gold), act((called, same), *beside), act((called, other), *beside))
        assert got == [1, 1, 0], (gold, same, other)


# ---- tau2: expected actions


def test_expected_writes_are_compared_exactly():
    for rng in call_fuzz.generators(SEED + 2, COUNT):
        of, tools, [(called, arguments), *_], _, _ = calls_of(rng)
        state = candidate(
            "tau2",
            [("get_user", {"user_id": "ann"})],
            tools,
            {"task_actions": [{"name": called, "arguments": arguments}]},
        )
        exact = (called, {**arguments, **rng.choice([{}, {"limit": 5}, {"arrow": None}])})
        other = (called, apart(of, rng))
        got = rewards("tau2", state, act((called, arguments)), act(exact), act(other))
        assert got == [1, 1, 0], (arguments, exact, other)


# ---- search: roles

TOPICS = "lagos population mayor river bridge museum census harbour stadium opera".split()


def search_pair(rng):
    """(demonstrated arguments, arguments of the same step, arguments of another step)."""
    topic = rng.sample(TOPICS, 4)
    year, limit = rng.randint(1900, 2030), rng.choice(["C++", "< 5", "10%", "-3", "€40", "a/b 1/2"])
    kind = rng.choice(["query", "page", "quote"])
    if kind == "query":
        query = " ".join([*topic, str(year), limit])
        words = [w.upper() if rng.random() < 0.5 else w for w in topic]
        words = rng.choice([words, [*words[-1:], "of", *words[:-1]]])
        same = f"the {'  '.join(words)}, {year} {limit}"
        other = rng.choice(
            [
                query.replace(str(year), str(year + rng.choice([1, -1, 10]))),
                query.replace(topic[1], "airport"),
                f"{query} not",
                query.replace(
                    topic[1], f"{rng.choice(['before', 'without', 'or', 'who', 'from'])} {topic[1]}"
                ),
                " ".join([topic[1], topic[0], *topic[2:], str(year), limit]),
                query.replace(
                    limit, {"C++": "C", "< 5": "> 5", "10%": "10", "-3": "3", "€40": "$40"}.get(limit, "1")
                ),
                f'{query} "{topic[0]} {topic[1]}"',
                f"{query} -{topic[2]}",
            ]
        )
        return {"query": query}, {"query": same}, {"query": other}
    if kind == "page":
        page = f"example.com/{topic[0]}/{topic[1].title()}?p={year}"
        same = rng.choice(["http://", "https://www.", ""]) + page + rng.choice(["", "#top", "&utm_source=x"])
        other = rng.choice(
            [page.replace(topic[0], topic[2]), page + "1", page.replace(".com", ".org"), page.lower()]
        )
        return {"url": f"https://{page}"}, {"url": same}, {"url": f"https://{other}"}
    quote = f"the {' '.join(topic)} of {year} has {limit}"
    same = quote.replace(" has", ", has").title() if limit != "a/b 1/2" else quote + "."
    other = rng.choice(
        [quote.replace(topic[0], "airport"), quote.replace(str(year), str(year + 1)), topic[0]]
    )
    return {"pattern": quote}, {"pattern": same}, {"pattern": other}


def test_steps_of_a_search():
    for rng in call_fuzz.generators(SEED + 3, COUNT):
        want, same, other = (("look", arguments) for arguments in search_pair(rng))
        got = rewards("search", candidate("search", [want], []), act(want), act(same), act(other))
        assert got == [1, 1, 0], (want, same, other)


# ---- bfcl_ast

DOC = {
    "name": "plan",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "price": {"type": "float"},
            "direct": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city", "days"],
    },
}


def bfcl_pair(rng):
    city = rng.choice(["New York", "Oslo", "San Juan 7"])
    days, price = rng.randint(1, 30), rng.randint(1, 99) + 0.5
    stops = rng.sample(["Rome", "Bern", "Ghent"], 2)
    answers = {
        "city": [city, f"{city}, X"],
        "days": [days],
        "price": [price, ""],
        "direct": [True],
        "stops": [stops, ""],
    }
    gold = {"city": city, "days": days, "price": price, "direct": True, "stops": stops}
    same = {**gold, "city": rng.choice([city.upper(), f"{city}, X", city.replace(" ", "-")])}
    for name in ("price", "stops"):
        if rng.random() < 0.3:
            del same[name]
    other = rng.choice(
        [
            {**gold, "city": f"{city}z"},
            {**gold, "days": days + 1},
            {**gold, "days": float(days)},
            {**gold, "days": str(days)},
            {**gold, "price": price + 1},
            {**gold, "direct": False},
            {**gold, "direct": 1},
            {**gold, "stops": stops[::-1]},
            {**gold, "stops": stops[:1]},
            {**gold, "more": 1},
            {k: v for k, v in gold.items() if k != "city"},
            {k: v for k, v in gold.items() if k != "direct"},
        ]
    )
    return answers, gold, same, other


def test_possible_answers_of_bfcl():
    for rng in call_fuzz.generators(SEED + 4, COUNT):
        answers, *calls = bfcl_pair(rng)
        case = {"category": "simple", "function_docs": [DOC], "possible_answer": [{"plan": answers}]}
        state = candidate("bfcl_ast", [], [DOC], case)
        got = rewards("bfcl_ast", state, *(act(("plan", arguments)) for arguments in calls))
        assert got == [1, 1, 0], (answers, calls)


# ---- any text in any argument


@pytest.mark.parametrize("name", ["tool_call", "tau2", "search", "exact", "exact_string"])
def test_no_text_raises_and_each_equals_itself(name):
    signs = [
        *"aB7 _-/\\'\"`$(){}[]<>=&|;:.,!?%#@*+~^\n\t\u00a0“’é\u0301ß\u2028\x00\ud800",
        "  ",
        "AND",
        "not",
    ]
    places = [*call_fuzz.CODE_PLACES, *call_fuzz.PROSE_PLACES]
    for rng in call_fuzz.generators(SEED + 5, COUNT):
        (argument, facets), text = rng.choice(places), "".join(rng.choices(signs, k=rng.randint(0, 12)))
        i = rng.randrange(len(text) + 1)
        digit = text[:i] + str(rng.randint(0, 9)) + text[i:]
        schema = {"properties": {argument: {"type": "string", **facets}}, "required": [argument]}
        state = candidate(name, [("say", {argument: text})], [{"name": "say", "parameters": schema}])
        got = rewards(name, state, *(act(("say", {argument: t})) for t in (text, digit, text[::-1])))
        assert got[0] == 1, (argument, text)
        # repeated numbers of a query count once, and a longer quote may be of the same passage
        assert got[1] == 0 or (name == "search" and argument in ROLES), (argument, text, digit)


def test_the_cases_depend_on_the_seed_alone():
    first, second = (fields(random.Random("15:0")) for _ in range(2))
    assert [f.value for f in first] == [f.value for f in second]
