"""What is prose in a call and what is code: by the argument's name, the schema, the tool, and the look."""

import time

import pytest
from support.hostile_actions import LONG, act

from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.cases import calls_message
from pivotrl_jax.verifiers.compare import prose

TWO_WAYS = ("Blue Horse Riding", "blue  horse riding")  # equal as prose, and only as prose
TEXT = {"type": "string"}


def reward(name, schema, want, got, tool="send", about="", verifier="tool_call", rest=None):
    parameters = {"properties": {name: schema}, "required": [name]} if schema is not None else None
    doc = {"name": tool, "description": about, "parameters": {**(parameters or {}), **(rest or {})}}
    tools = [doc] if schema is not None else []
    message = calls_message([(tool, {name: want})])
    state = Candidate("t@1", "t", 0, [], tools, message, verifier, {}, "t")
    assert VERIFIERS[verifier].verify(state, act((tool, {name: want}))).reward == 1
    return VERIFIERS[verifier].verify(state, act((tool, {name: got}))).reward


PROSE = [
    ("message", TEXT, "send"),
    ("message", None, "send"),
    ("reviewComment", TEXT, "send"),
    ("search_queries", {"type": "array", "items": TEXT}, "search"),
    ("guest_name", TEXT, "book"),
    ("city", {"anyOf": [TEXT, {"type": "null"}]}, "weather"),
    ("content", TEXT, "send_message"),
    ("body", TEXT, "sendEmail"),
    ("q", {"type": "string", "description": "A question in natural language."}, "ask"),
    (
        "title",
        {"type": "string", "enum": None, "format": None, "pattern": None},
        "post",
    ),  # as Arrow writes it
    ("section", None, "book"),
    ("text", TEXT, "addReminder"),
]


@pytest.mark.parametrize(("name", "schema", "tool"), PROSE)
def test_prose_has_evidence(name, schema, tool):
    values = TWO_WAYS if not (schema or {}).get("items") else ([text] for text in TWO_WAYS)
    assert reward(name, schema, *values, tool=tool) == 1


EXACT = [
    *((name, TEXT, "send") for name in "command code sql regex glob file_path url password id date".split()),
    *((name, TEXT, "send") for name in "x value input text content body name args env".split()),
    *((name, None, "send") for name in "command path password payload token".split()),
    *((name, TEXT, "send") for name in "message_id sqlQuery title_pattern scriptTitle noteJson".split()),
    *(("message", {"type": "string", **facet}, "send") for facet in (
        {"format": "password"}, {"pattern": ".*"}, {"enum": list(TWO_WAYS)}, {"const": TWO_WAYS[0]},
        {"contentMediaType": "application/json"}, {"writeOnly": True}, {"title": "Shell Command"},
        {"examples": ["ls -la"]}, {"default": "SELECT a FROM b"}, {"description": "The SQL to run"},
        {"description": "An absolute path"}, {"description": "Identifier"}, {"description": "Glob pattern"},
        {"anyOf": [{"type": "string", "format": "uri"}, {"type": "string", "maxLength": 9}]},
    )),
    *(("query", TEXT, tool) for tool in "run_sql execute_query grep search_code query_db".split()),
    *(("description", TEXT, tool) for tool in "bash execute_python write_file git_commit".split()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "schema", "tool"), EXACT)
def test_without_evidence_or_with_evidence_of_code_strings_are_exact(name, schema, tool):
    assert reward(name, schema, *TWO_WAYS, tool=tool) == 0


def test_a_tools_description_counts():
    assert reward("query", TEXT, *TWO_WAYS, about="Finds pages of the web.") == 1
    assert reward("query", TEXT, *TWO_WAYS, about="Runs a read-only SQL query.") == 0


def test_what_holds_code_holds_it_at_any_depth():
    inner = {"type": "object", "properties": {"title": TEXT}}
    want, got = ({"title": text} for text in TWO_WAYS)
    assert reward("details", inner, want, got) == 1
    assert reward("env", inner, want, got) == 0
    assert reward("details", {**inner, "description": "A JSON filter"}, want, got) == 0
    listed = {"type": "array", "items": inner, "description": "shell commands"}
    assert reward("details", listed, [want], [got]) == 0


def test_what_any_branch_of_a_union_says_counts():
    plain, exact = {"properties": {"title": TEXT}}, {"properties": {"title": {**TEXT, "format": "uri"}}}
    want, got = ({"title": text} for text in TWO_WAYS)
    for union in ({"anyOf": [plain, exact]}, {"allOf": [exact, {"properties": {"n": {}}}]}):
        assert reward("details", union, want, got) == 0
        listed = {"oneOf": [{"type": "array", "items": union}, {"type": "array", "items": plain}]}
        assert reward("details", listed, [want], [got]) == 0
    assert reward("details", {"anyOf": [plain, plain]}, want, got) == 1


def test_a_recursive_schema_is_no_trouble():
    child = {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}
    node = {"properties": {"child": child, "title": TEXT}}
    want, got = ({"title": text} for text in TWO_WAYS)
    for _ in range(50):
        want, got = {"child": want}, {"child": got}
    start = time.process_time()
    assert reward("child", child, want, got, rest={"$defs": {"A": node, "B": node}}) == 0  # a path too long
    assert time.process_time() - start < 5


CODE = [
    ("ls -R src", "ls -r src"),
    ("tar -C out", "tar -c out"),
    ("SELECT Name FROM t", "SELECT name FROM t"),
    ("drop table Users", "drop table users"),
    ("UPDATE t SET A", "UPDATE t SET a"),
    ("MATCH (N) RETURN N", "MATCH (n) RETURN n"),
    ("git checkout Main", "git checkout main"),
    ("/data/My File", "/data/my file"),
    ("My Docs/Big File", "my docs/big file"),
    ("C:\\My Files", "C:\\my files"),
    ("report Final.txt", "report final.txt"),
    ("^Foo bar", "^foo bar"),
    ("Foo.+ bar", "foo.+ bar"),
    ("Foo|Bar baz", "foo|bar baz"),
    ("src/**/A b", "src/**/a b"),
    ("a && B", "a && b"),
    ("x = Y", "x = y"),
    ("x - Y", "x - y"),
    ("A  <= b", "A <= b"),
    ("f(X) twice", "f(x) twice"),
    ("status:Open label", "status:open label"),
    ("cats AND dogs", "cats and dogs"),
    ("echo $Home x", "echo $home x"),
    ('{"A": 1, "b": 2}', '{"a": 1, "b": 2}'),
    ("<b>Hi</b> you", "<b>hi</b> you"),
    ("name is 'Bob' x", "name is 'bob' x"),
    ('the "Blue Horse" x', 'the "blue horse" x'),
    ("https://a.b/C d", "https://a.b/c d"),
    ("# TODO Fix", "# todo fix"),
    ("The password is Blue Horse", "the password is blue horse"),
    ("see W12b now", "see w12b now"),
    ("use getUserName now", "use getusername now"),
    ("a\tB c", "a\tb c"),
    ("a  b\nc", "a b\nc"),
    ("import Os now", "import os now"),
]


@pytest.mark.parametrize(("want", "got"), CODE)
@pytest.mark.parametrize("name", ["message", "query"])
def test_the_look_of_code_is_enough(name, want, got):
    assert reward(name, TEXT, want, got) == reward(name, TEXT, got, want) == 0


SAME_PROSE = [
    ("Bring the chairs", "bring  the Chairs."),
    ("I don't know", "I don’t know"),
    ("He said \"Hi there\" to me", "he said “Hi there” to me"),
    ("São Paulo hotels", "Sa\u0303o paulo hotels"),
    ("Costs $5, or 50% less", "costs $5,  or 50% less"),
    ("Re: All Hands", " re: all hands "),
    ("Jean-Luc O'Brien", "jean-luc o'brien"),
    ("Hello\u00a0there you", "hello there you"),
]  # fmt: skip
OTHER_PROSE = [
    ("Bring 30 chairs", "Bring 31 chairs"),
    ("Bring 30 chairs", "Bring 3 0 chairs"),
    ("Bring the chairs", "Do not bring the chairs"),
    ("Ann calls Bob", "Bob calls Ann"),
    ("Bring the chairs", "Bring the chair"),
    ("Bring the chairs", "Bring the chairs?"),
    ("You may go.", "You may go..."),
    ("Costs $5 now", "Costs €5 now"),
    ("Costs 5 now", "Costs -5 now"),
    ("A, b and c", "A b and c"),
    ("Bring the chairs", "Bring the CHAIRS"),
]


@pytest.mark.parametrize(("want", "got"), SAME_PROSE)
def test_prose_is_compared_by_words(want, got):
    assert reward("message", TEXT, want, got) == reward("message", TEXT, got, want) == 1


@pytest.mark.parametrize(("want", "got"), OTHER_PROSE)
def test_a_small_change_of_prose_is_another_message(want, got):
    assert reward("message", TEXT, want, got) == reward("message", TEXT, got, want) == 0


def test_the_case_may_say_what_is_prose():
    def with_rule(rule, name, want, got):
        case, message = {"fields": {name: rule}}, calls_message([("f", {name: want})])
        state = Candidate("t@1", "t", 0, [], [], message, "tool_call", case, "t")
        return VERIFIERS["tool_call"].verify(state, act(("f", {name: got}))).reward

    assert with_rule({"prose": True}, "x", *TWO_WAYS) == 1
    assert with_rule({"prose": True}, "x", "ls -R src", "ls -r src") == 0
    assert with_rule({"prose": False}, "message", *TWO_WAYS) == 0
    assert with_rule({"prose": True, "case": True}, "x", "Blue Horse", "Blue  Horse") == 1
    assert with_rule({"prose": True, "case": True}, "x", *TWO_WAYS) == 0
    assert with_rule({"case": False}, "x", "Blue Horse", "blue horse") == 1
    assert with_rule({"case": False}, "x", *TWO_WAYS) == 0


@pytest.mark.parametrize(("verifier", "tool"), [("tau2", "find"), ("search", "send"), ("swe", "send")])
def test_verifiers_that_share_the_comparison(verifier, tool):
    tool = f"{tool}_note"
    assert reward("note", TEXT, *TWO_WAYS, verifier=verifier, tool=tool) == 1
    assert reward("script", TEXT, *TWO_WAYS, verifier=verifier) == 0


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_texts_take_linear_time(text):
    start = time.process_time()
    prose.looks_like_code(text)
    prose.by_words(text)
    prose.is_statement("select " + text)
    prose.name_words(text)
    assert time.process_time() - start < 5


# ---- nulls that Arrow adds

CITY = {"properties": {"city": TEXT, "unit": TEXT}, "required": ["city"]}
NESTED = {
    "properties": {
        "at": {"type": "object", "properties": {"city": TEXT}},
        "all": {"type": "array", "items": {"$ref": "#/$defs/Place"}},
        "free": {"type": "object"},
    },
    "$defs": {"Place": {"properties": {"city": TEXT}}},
}
NULLS = [
    (CITY, {"city": "Oslo", "path": None, "limit": None}, {"city": "Oslo"}, 1),
    (CITY, {"city": "Oslo", "unit": None}, {"city": "Oslo"}, 1),  # declared and optional
    (CITY, {"city": None}, {}, 0),  # declared and required
    (CITY, {"city": "Oslo", "path": 0}, {"city": "Oslo"}, 0),
    ({"properties": {}}, {"path": None}, {}, 1),  # a tool without arguments
    ({"properties": {"city": TEXT, "path": None}}, {"city": "Oslo", "path": None}, {"city": "Oslo"}, 1),
    ({"properties": {"city": TEXT, "path": None}, "required": None}, {"path": None}, {}, 1),
    (NESTED, {"at": {"city": "Oslo", "x": None}}, {"at": {"city": "Oslo"}}, 1),
    (NESTED, {"all": [{"city": "Oslo", "x": None}]}, {"all": [{"city": "Oslo"}]}, 1),
    (NESTED, {"free": {"x": None}}, {"free": {}}, 0),  # no properties are listed: a null may mean something
    (NESTED, {"all": [None]}, {"all": []}, 0),
    ({**CITY, "additionalProperties": {"type": "null"}}, {"city": "Oslo", "x": None}, {"city": "Oslo"}, 0),
    ({**CITY, "additionalProperties": False}, {"city": "Oslo", "x": None}, {"city": "Oslo"}, 1),
    (None, {"city": "Oslo", "x": None}, {"city": "Oslo"}, 0),  # no schema at all
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "one", "other", "want"), NULLS)
@pytest.mark.parametrize("verifier", ["tool_call", "tau2", "search", "swe"])
def test_nulls_that_no_property_declares_are_no_arguments(verifier, parameters, one, other, want):
    tools = [{"name": "f", "parameters": parameters}] if parameters else []
    for gold, made in ((one, other), (other, one), (one, one)):
        state = Candidate("t@1", "t", 0, [], tools, calls_message([("f", gold)]), verifier, {}, "t")
        assert VERIFIERS[verifier].verify(state, act(("f", made))).reward == (want or gold is made)


@pytest.mark.parametrize("verifier", ["exact", "terminal"])
def test_string_match_and_terminal_drop_them_too(verifier):
    tools = [{"name": "f", "parameters": {"type": "object", **CITY}}]
    one, other = ({"city": "Oslo", "path": None}, {"city": "Oslo"})
    for gold, made in ((one, other), (other, one), (one, one)):
        state = Candidate("t@1", "t", 0, [], tools, calls_message([("f", gold)]), verifier, {}, "t")
        assert VERIFIERS[verifier].verify(state, act(("f", made))).reward == 1
