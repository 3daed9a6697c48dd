"""bfcl_ast: BFCL's rule, quirks included."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bfcl_reference import ast_checker, need_bfcl
from support.paths import SHARED

from pivotrl_jax.records import InputError
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.compare.literals import JAVA_TYPES, JAVASCRIPT_TYPES, java_value, javascript_value

CONFORMANCE = SHARED / "conformance/bfcl/ast.jsonl"
AST = VERIFIERS["bfcl_ast"]


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason="the conformance data is not here")
def test_all_conformance_cases_agree_java_and_javascript_included():
    cases = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]
    wrong = [c["id"] for c in cases if (AST.verify(*AST.read_case(c)).reward == 1) != c["valid"]]
    assert len(cases) == 333 and wrong == []


def doc(properties, required=(), name="f"):
    return {
        "name": name,
        "parameters": {"type": "dict", "properties": properties, "required": list(required)},
    }


def judge(type_, answers, value, required=True, category="simple_python", **more):
    """The verdict on f(x=value); `...` leaves x out."""
    case = {
        "id": "c",
        "category": category,
        "function_docs": [doc({"x": {"type": type_, **more}}, ["x"] if required else [])],
        "possible_answer": [{"f": {"x": answers}}],
        "candidate": [{"f": {} if value is ... else {"x": value}}],
    }
    return AST.verify(*AST.read_case(case))


STRINGS = {"items": {"type": "string"}}
DICTS = {"items": {"type": "dict"}}


@pytest.mark.parametrize(
    ("type_", "answers", "value", "more", "reason"),
    [
        ("string", ["New York"], "new-york", {}, "ok"),
        ("string", ["it's"], 'IT"S', {}, "ok"),
        ("string", ["a b"], "a\tb", {}, "value"),  # tabs are kept
        ("string", ["a"], "a!", {}, "value"),
        ("integer", [5], 5, {}, "ok"),
        ("integer", [5], 5.0, {}, "type"),
        ("integer", [1], True, {}, "type"),
        ("float", [5.0], 5, {}, "ok"),
        ("float", [5.0], 5.0001, {}, "value"),
        ("float", [5.0], 10**400, {}, "type"),  # larger than any float
        ("boolean", [True], "true", {}, "type"),
        ("any", ["a b"], "AB", {}, "ok"),
        ("integer", ["count"], "count", {}, "ok"),  # a variable: the answers' type rules, exactly
        ("integer", ["count"], "Count", {}, "value"),
        ("array", [["a", "b"]], ["A", "b."], STRINGS, "ok"),
        ("array", [["a", "b"]], ["b", "a"], STRINGS, "value"),
        ("array", [["a"]], [1], STRINGS, "type"),
        ("tuple", [[1, 2]], [1, 2], {"items": {"type": "integer"}}, "ok"),
        ("array", [["a"], ""], [], STRINGS, "ok"),  # "" also accepts the empty list
        ("dict", [{"a": [1, 2], "b": ["", "x"]}], {"a": 2}, {}, "ok"),
        ("dict", [{"a": [1, 2], "b": ["", "x"]}], {"b": "x"}, {}, "value"),
        ("dict", [{"a": [1]}], {"a": 1, "c": 1}, {}, "value"),
        ("array", [[{"a": [1]}, {"a": [2]}]], [{"a": 1}, {"a": 2}], DICTS, "ok"),
        ("array", [[{"a": [1]}, {"a": [2]}]], [{"a": 2}, {"a": 1}], DICTS, "value"),
        (
            "array",
            [[{"a": [1]}], ""],
            [5],
            DICTS,
            "value",
        ),  # "" asks nothing of the items; the values still do
        ("string", ["a"], None, {}, "type"),
    ],
)
def test_types_and_values(type_, answers, value, more, reason):
    assert judge(type_, answers, value, **more).reason == reason


def test_an_argument_is_left_out_only_where_the_answers_list_the_empty_string():
    assert judge("string", ["", "a"], ..., required=False).reward == 1
    assert judge("string", ["a"], ..., required=False).reason == "missing"
    assert judge("string", ["", "a"], ..., required=True).reason == "missing"
    assert judge("string", ["", "a"], "", required=False).reward == 1  # a quirk of BFCL


def case(category, docs, answers, candidate):
    return AST.verify(
        *AST.read_case(
            {
                "id": "c",
                "category": category,
                "function_docs": docs,
                "possible_answer": answers,
                "candidate": candidate,
            }
        )
    )


F, G = doc({"x": {"type": "integer"}}, ["x"]), doc({"x": {"type": "integer"}}, ["x"], "g")


def test_simple_and_multiple_want_one_call():
    answer = [{"g": {"x": [1]}}]
    assert case("multiple", [F, G], answer, [{"g": {"x": 1}}]).reward == 1
    assert case("live_multiple", [F, G], answer, [{"f": {"x": 1}}]).reason == "name"
    assert case("multiple", [F, G], answer, [{"g": {"x": 1}}] * 2).reason == "count"
    assert case("simple_python", [G], answer, []).reason == "no_call"
    assert case("simple_python", [G], answer, [{"g": {"x": 1, "y": 1}}]).reason == "unexpected"


def test_parallel_matches_one_to_one_in_any_order_and_greedily():
    answers = [{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]
    assert case("parallel", [F], answers, [{"f": {"x": 2}}, {"f": {"x": 1}}]).reward == 1
    # the first answer takes x=1, though x=2 would have left it for the second: BFCL does not go back
    assert case("parallel", [F], answers, [{"f": {"x": 1}}, {"f": {"x": 2}}]).reason == "no_match"
    mixed = [{"f": {"x": [1]}}, {"g": {"x": [1]}}]
    assert case("parallel_multiple", [F, G], mixed, [{"g": {"x": 1}}, {"f": {"x": 1}}]).reward == 1
    assert case("parallel_multiple", [F, G], mixed, [{"g": {"x": 1}}]).reason == "count"


def test_irrelevance_wants_no_call_and_relevance_any():
    assert case("live_irrelevance", [F], [], []).reward == 1
    assert case("irrelevance", [F], [], [{"f": {"x": 1}}]).reason == "called"
    assert case("live_relevance", [F], [], [{"f": {"x": 7}}]).reward == 1
    assert case("live_relevance", [F], [], []).reason == "no_call"


@pytest.mark.parametrize("candidate", ["f(x=1)", 3, {"f": 1, "g": 2}, {}, {"f": None}, {"f": [1]}])
def test_undecodable_calls_are_malformed(candidate):
    assert case("simple_python", [F], [{"f": {"x": [1]}}], [candidate]).reason == "malformed"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"category": None}, '"category"'),
        ({"function_docs": []}, '"function_docs"'),
        ({"function_docs": [{"name": "f"}]}, "parameters.properties"),
        ({"possible_answer": []}, '"possible_answer"'),
        ({"possible_answer": [{"f": {"x": 1}}]}, "possible_answer"),
        ({"category": "multiple", "possible_answer": [{"h": {"x": [1]}}]}, "has no function 'h'"),
        ({"candidate": {}}, '"candidate"'),
    ],
)
def test_an_unusable_case_is_named(broken, words):
    good = {
        "id": "c",
        "category": "simple_python",
        "function_docs": [F],
        "possible_answer": [{"f": {"x": [1]}}],
        "candidate": [{"f": {"x": 1}}],
    }
    assert AST.verify(*AST.read_case(good)).reward == 1
    with pytest.raises(InputError, match=words):
        AST.verify(*AST.read_case({**good, **broken}))


@pytest.mark.parametrize(
    ("text", "kind", "inner", "value"),
    [
        ("12", "integer", None, 12),
        ("12.5", "integer", None, "12.5"),
        ("12L", "long", None, 12),
        ("12", "long", None, "12"),
        ("1.5f", "float", None, 1.5),
        ("1e-3", "double", None, 0.001),
        ("true", "boolean", None, True),
        ('new String[]{"a", "b"}', "Array", "String", ['"a"', '"b"']),
        ("new int[]{1, 2}", "Array", None, [1, 2]),
        ('new ArrayList<String>(Arrays.asList("a", "b"))', "ArrayList", "String", ["a", "b"]),
        ("new ArrayList<Integer>() {{ add(1); add(2); }}", "ArrayList", "integer", [1, 2]),
        ("new ArrayList<>()", "ArrayList", None, []),
        (
            'new HashMap<String, Object>() {{ put("a", 1L); put("b", "x"); }}',
            "HashMap",
            None,
            {"a": 1, "b": "x"},
        ),
        ("new HashMap<>()", "HashMap", None, {}),
        ("anything", "any", None, "anything"),
    ],
)
def test_java_literals(text, kind, inner, value):
    assert java_value(text, kind, inner) == value


@pytest.mark.parametrize(
    ("text", "kind", "inner", "value"),
    [
        ("'a'", "String", None, "a"),
        ("a", "String", None, "a"),
        ("12n", "Bigint", None, 12),
        ("3.0", "float", None, 3.0),
        ("false", "Boolean", None, False),
        ("[1, 'two', true]", "array", None, [1, "two", True]),
        ("new Array(1, 2)", "array", "integer", [1, 2]),
        ("[ [ 1, 2 ], [ 3,   4]]", "array", "array", [[1, 2], [3, 4]]),
        ("[]", "array", None, []),
        ("{'a': 1, \"b\": ['x', 2]}", "dict", None, {"a": 1, "b": ["x", 2]}),
        ("{}", "dict", None, {}),
    ],
)
def test_javascript_literals(text, kind, inner, value):
    assert javascript_value(text, kind, inner) == value


def test_java_wants_strings():
    assert judge("integer", [5], "5", category="simple_java").reward == 1
    assert judge("integer", [5], 5, category="simple_java").reason == "type"
    assert judge("Boolean", [True], "true", category="simple_javascript").reward == 1
    assert judge("Boolean", [True], True, category="simple_javascript").reason == "type"


LITERALS = st.one_of(
    st.text(alphabet="[]{}()<>,:'\"new ArrayListHashMpuditscf01.-+eEL\n", max_size=80),
    st.sampled_from(["[[a]" + ",[a]" * 400, "{a:" * 600, "new ArrayList<>() {{" + " " * 1900, "[" * 5000]),
    st.sampled_from(["new HashMap<>() {" + "put(" * 450, "9" * 1999, "1e999f", "-" * 2000]),
)


@settings(max_examples=300, deadline=2000)
@given(
    LITERALS,
    st.sampled_from([*JAVA_TYPES, *JAVASCRIPT_TYPES]),
    st.sampled_from([None, "String", "integer", "any"]),
)
def test_no_literal_raises_or_takes_long(text, kind, inner):
    java_value(text, kind, inner)
    javascript_value(text, kind, inner)


# ---- against BFCL's own checker


def concrete(answer, rng):
    if isinstance(answer, dict):
        return {
            k: concrete(rng.choice(v) if isinstance(v, list) and v else v, rng) for k, v in answer.items()
        }
    return [concrete(v, rng) for v in answer] if isinstance(answer, list) else answer


def mutated(value, rng):
    if value is None or rng.random() < 0.1:
        return rng.choice([None, "x"])
    if isinstance(value, bool):
        return rng.choice([not value, int(value), str(value)])
    if isinstance(value, (int, float)):
        return rng.choice([value + 1, float(value), int(value), str(value), bool(value)])
    if isinstance(value, str):
        other = [value.upper(), value + ".", value + "!", value[:-1], f'"{value}"', "", [value], value + "L"]
        return rng.choice([*other, value.replace(" ", ""), value + "\t", value.replace("'", '"')])
    if isinstance(value, list):
        first = [mutated(v, rng) for v in value[:1]]
        return rng.choice([value[::-1], value[1:], first + value[1:], [*value, ""], json.dumps(value)])
    key = rng.choice(list(value)) if value else "new"
    smaller = {k: v for k, v in value.items() if k != key}
    return rng.choice([smaller, {**value, key: mutated(value.get(key), rng)}, {**value, "new": 1}])


def mutated_calls(answers, is_python, rng):
    calls = []
    for answer in answers:
        ((name, arguments),) = answer.items()
        given = {k: concrete(rng.choice(v), rng) for k, v in arguments.items() if v}
        given = {k: v for k, v in given.items() if v != "" or rng.random() < 0.1}
        if not is_python:
            given = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
        if given and rng.random() < 0.5:
            key = rng.choice(list(given))
            given[key] = mutated(given[key], rng)
        calls.append({name: given})
    if rng.random() < 0.1:
        rng.shuffle(calls)
    return calls + calls[:1] if rng.random() < 0.05 else calls


CATEGORIES = [
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
]
CATEGORIES += ["live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"]


@pytest.mark.parametrize("category", CATEGORIES)
def test_verdicts_equal_bfcls_on_mutated_answers_of_every_row(category):
    need_bfcl()
    valid, rng = ast_checker(), random.Random(category)
    import bfcl_eval

    data = Path(bfcl_eval.__path__[0]) / "data"
    name = f"BFCL_v4_{category}.json"
    rows = {row["id"]: row for row in map(json.loads, (data / name).read_text().splitlines())}
    accepted = rejected = 0
    for line in map(json.loads, (data / "possible_answer" / name).read_text().splitlines()):
        docs, answers = rows[line["id"]]["function"], line["ground_truth"]
        for _ in range(8):
            calls = mutated_calls(answers, "java" not in category, rng)
            verdict = case(category, docs, answers, calls)
            assert (verdict.reward == 1) == valid(docs, calls, answers, category), (
                line["id"],
                calls,
                verdict,
            )
            accepted += verdict.reward == 1
            rejected += verdict.reward == 0
    assert accepted > 10 and rejected > 10
