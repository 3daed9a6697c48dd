"""terminal and terminal:nemo_gym: what is accepted, what is rejected, and that no action makes them raise."""

import json
import random
import time
from difflib import SequenceMatcher

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hostile_actions import check as check_action
from support.hostile_actions import hostile
from support.paths import SHARED

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call, Candidate
from pivotrl_jax.verifiers.cases import calls_message
from pivotrl_jax.verifiers.compare import keystrokes
from pivotrl_jax.verifiers.nemo_gym import terminus as terminus_lib

CASES = SHARED / "conformance" / "nemo_gym"
FILES = ("terminus", "terminal_multi_harness", "terminus_judge_scripted")
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/data/conformance/nemo_gym")

STRICT = verifiers.get("terminal")
RELEASED = verifiers.get("terminal", "nemo_gym")

# untagged cases in which strict is not as released, each on purpose
STRICT_DIFFERS = {
    "terminus/sim/quotes": 1.0,  # 'hello' and "hello" are one word to a shell
    "multi_harness/agent006/code_ws": 1.0,  # blank lines around a program
    "multi_harness/agent006/code": 0.0,  # range(10) is not range(11)
    "multi_harness/stirrup/code_exec": 0.0,  # a.py is not b.py
    "multi_harness/codex/other_value_ignored": 0.0,  # another directory
}


def cases(name):
    path = CASES / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def score(verifier, case):
    return verifier.verify(*verifier.read_case(case))


def answer(*strokes, done=False, **extra):
    """A Terminus-2 action that types `strokes`."""
    commands = [{"keystrokes": s, "duration": 0.1} for s in strokes]
    return json.dumps({"analysis": "a", "plan": "p", "commands": commands, "task_complete": done, **extra})


def demonstrated(message, tools=(), case=None):
    """A candidate as in training: the demonstration is the gold."""
    return Candidate("t@1", "t", 0, [], list(tools), message, "terminal", case or {}, "t")


def terminus(gold, action, verifier=STRICT):
    return verifier.verify(demonstrated({"role": "assistant", "content": gold}), parse_action(action))


def tools(gold, *calls, verifier=STRICT, docs=()):
    action = Action(calls=tuple(Call(*call) for call in calls))
    docs = docs or [{"name": name, "parameters": {"type": "object"}} for name, _ in gold]
    candidate = demonstrated(calls_message(gold), docs, {"harness": "opencode"})
    return verifier.verify(candidate, action)


# ---- the released rewards


@needs_cases
@pytest.mark.parametrize("name", FILES[:2])
def test_nemo_gym_mode_gives_the_released_rewards(name):
    for case in cases(name):
        verdict = score(RELEASED, case)
        assert verdict.reward == (case["reward"] or 0.0), (case["id"], verdict)
        assert verdict.reason and verdict.question is None


@needs_cases
def test_nemo_gym_mode_asks_where_the_released_code_asks_a_judge():
    for case in cases("terminus_judge_scripted"):
        verdict = score(RELEASED, case)
        assert verdict.reward == 0.0
        if case["failure_reason"] == "schema_check_failed":
            assert verdict.question is None
        else:
            assert verdict.reason == "undecided"
            assert verdict.question.kind == "terminal"
            assert verdict.question.gold == case["expected_answer"]
            assert verdict.question.actual == case["candidate"]


@needs_cases
@pytest.mark.parametrize("name", FILES[:2])
def test_strict_mode_closes_the_holes_of_the_released_rules(name):
    tagged = {"false_accept": 0.0, "false_reject": 1.0, "crash": 0.0}
    for case in cases(name):
        want = tagged.get(case.get("defect"), STRICT_DIFFERS.get(case["id"], case["reward"] or 0.0))
        verdict = score(STRICT, case)
        assert verdict.reward == want, (case["id"], verdict)


@needs_cases
@pytest.mark.parametrize("name", FILES)
def test_every_gold_verifies_against_itself_in_strict_mode(name):
    for case in cases(name):
        expected = case.get("expected_action")
        if expected is None:
            itself = case["expected_answer"]
        elif expected["type"] == "message":
            itself = expected["content"]
        else:
            itself = expected.get("calls", [expected])
        if not isinstance(case.get("expected_answer", ""), str):
            continue  # a row that the released server refuses
        assert score(STRICT, {**case, "candidate": itself}).reward == 1.0, case["id"]


ROW = {"expected_answer": answer("ls -la\n"), "metadata": {"harness": "terminus_2"}}


@pytest.mark.parametrize(
    ("row", "config", "action", "reward"),
    [
        ({"threshold": 0.95}, {}, answer("ls -la"), 0.0),  # the row's threshold wins over 0.9
        ({"threshold": "0.5"}, {}, answer("ls -la"), 1.0),
        ({"threshold": "much"}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": None}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": {"harness": "terminus_3"}}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": ["terminus_2"]}, {}, answer("ls -la\n"), 0.0),
        ({"expected_answer": "<think></think>" + answer("ls -la\n")}, {}, answer("ls -la\n"), 0.0),
        ({}, {"enable_string_similarity": False, "enable_llm_judge": False}, answer("rm -rf /\n"), 1.0),
        ({}, {}, answer("ls -la\n") + "</think>" + answer("ls -la\n"), 1.0),
        ({}, {}, answer("ls -la\n", analysis=float("nan")), 0.0),
        ({}, {}, answer("ls -la\n").replace("0.1", "NaN"), 1.0),  # Python's json reads it
        ({}, {}, answer("ls -la\n").replace("0.1", "9" * 5000), 0.0),  # and not this
        ({}, {}, answer("ls -la\n").replace("0.1", "true"), 0.0),
        ({}, {}, "", 0.0),
    ],
)
def test_nemo_gym_terminus_rows(row, config, action, reward):
    string_only = {"enable_string_similarity": True, "string_similarity_threshold": 0.9}
    config = {**string_only, "enable_llm_judge": False, **config}
    case = {"id": "1", "row": {**ROW, **row}, "candidate": action, "config": config}
    assert score(RELEASED, case).reward == reward


SEARCH = {"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}
FINISH = {"name": "finish", "parameters": {"properties": {"paths": {"type": "array"}}}}
EDIT = {"name": "edit", "parameters": {"type": "object"}}
PATHS = {"reason": "all done", "paths": ["/b ", "/a"]}


@pytest.mark.parametrize(
    ("harness", "tool", "gold", "actual", "reward"),
    [
        (
            "stirrup",
            FINISH,
            PATHS,
            {"reason": "All done ", "paths": '["/a", "/b"]'},
            1.0,
        ),  # a list as a string
        ("stirrup", FINISH, PATHS, {"reason": "all done", "paths": ["/a"]}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "failed", "paths": ["/a", "/b"]}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "all done", "paths": []}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "9" * 5000, "paths": []}, 0.0),
        ("stirrup", SEARCH, {"query": "q"}, {"query": ""}, 0.0),
        ("Stirrup", SEARCH, {"query": "q"}, {"query": "anything"}, 1.0),  # a capital letter: no rule
        ("opencode", EDIT, {"filePath": "a"}, {"filePath": "a"}, 0.0),  # the edit changes nothing
        ("opencode", {"name": "edit", "parameters": {"type": "objekt"}}, {}, {}, 0.0),
        ("opencode", {"name": "other", "parameters": {}}, {}, {}, 0.0),
    ],
)
def test_nemo_gym_rules_of_tools(harness, tool, gold, actual, reward):
    name = {id(SEARCH): "web_search", id(FINISH): "finish"}.get(id(tool), "edit")
    call = {"type": "function_call", "name": name}
    case = {
        "id": "1",
        "harness": harness,
        "expected_action": {**call, "arguments": json.dumps(gold)},
        "candidate": [{**call, "arguments": json.dumps(actual)}],
        "tools": [tool],
    }
    assert score(RELEASED, case).reward == reward


def test_similar_is_difflib():
    rng = random.Random(0)
    for _ in range(400):
        alphabet = rng.choice(["ab", "abcdef \n", "grep -rn foo src/ | head\n"])
        first = "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 3, 20, 190, 230, 400])))
        second = "".join(c for c in first if rng.random() < 0.9) + rng.choice(["", "x", first[:20]])
        for a, b in ((first, second), (second, first), (first, first)):
            ratio = SequenceMatcher(None, a, b).ratio()
            for threshold in (0.3, 0.9, ratio, 1.0, 1.1):
                assert terminus_lib.similar(a, b, threshold)[0] == (ratio >= threshold)


# ---- strict: Terminus


@pytest.mark.parametrize(
    ("gold", "action"),
    [
        ("ls -la\n", "ls -al\n"),
        ("ls -la\n", "ls -a -l\n"),
        ("ls -l src\n", "ls src -l\n"),
        ("grep -rn foo src/\n", "grep  -n -r 'foo' src/\n"),
        ("cat a|wc -l > out\n", "cat a | wc -l >out\n"),
        ('echo "a b"\n', "echo 'a b'\n"),
        ("echo a\\ b\n", "echo 'a b'\n"),
        ("make  test # all of them\n", "make test\n"),
        ("make \\\n test\n", "make test\n"),
        ("cat << 'EOF' > a\nx  = 1\nEOF\n", "cat <<'END' >a\nx  = 1\nEND\n"),
        ("echo '</think>'\n", "echo '</think>'\n"),
        ("cd /w\nls\n", "cd /w\nls \n"),
        ("sudo rm -rf a\n", "sudo rm -f -r a\n"),
        ("cat << 'EOF' > a\nx\nEOF\n", "cat > a << 'EOF'\nx\nEOF\n"),
        ("make > a 2> b\n", "make 2>b >a\n"),
        ("ls --color='a' *.py\n", "ls --color=a *.py\n"),
    ],
)
def test_strict_accepts_what_types_the_same(gold, action):
    assert terminus(answer(gold), answer(action)).reward == 1.0
    assert terminus(answer(action), answer(gold)).reward == 1.0


@pytest.mark.parametrize(
    ("gold", "action", "reason"),
    [
        ("ls -la\n", "ls -la", "enter"),
        ("ls -la", "ls -la\n", "enter"),
        ("ls -la\n", "ls -l\n", "arguments"),
        ("rm -f -i a\n", "rm -i -f a\n", "ok?"),  # the last of the two wins: another action
        ("sed -n '1,5p' a.py\n", "sed -n '1,9p' a.py\n", "arguments"),
        ("chmod +x run_all_the_tests.sh\n", "chmod -x run_all_the_tests.sh\n", "arguments"),
        ("cat src/a.py\n", "cat src/b.py\n", "arguments"),
        ("head -n 5 -c 3 a\n", "head -n 3 -c 5 a\n", "ok?"),
        ("cat << EOF > a\nx = 1\nEOF\n", "cat << EOF > a\nx = 2\nEOF\n", "arguments"),
        ("cat << EOF > a\nx  = y\nEOF\n", "cat << EOF > a\nx = y\nEOF\n", "arguments"),
        ("cat << EOF > a\n$x\nEOF\n", "cat << 'EOF' > a\n$x\nEOF\n", "arguments"),
        ("cat << EOF > a\nx\nEOF\n", "cat << EOF > a\nx\nEOF", "enter"),
        ("cat << EOF > a\nx\nEOF\n", "cat << EOF > a\nx\nEOF \n", "arguments"),  # still waits
        ("python -c \"print('a  b')\"\n", "python -c \"print('a b')\"\n", "arguments"),
        ("echo $HOME\n", "echo '$HOME'\n", "arguments"),
        ("ls *.py\n", "ls '*.py'\n", "arguments"),
        ("ls > a\n", "ls >> a\n", "arguments"),
        ("make > a 2>&1\n", "make 2>&1 > a\n", "undecided"),
        ("ls {a,b}\n", "ls {a\\,b}\n", "arguments"),
        ("cat << E | wc\na\nE\n", "cat | wc << E\na\nE\n", "undecided"),
        ("echo a 2>b\n", "echo a '2'>b\n", "arguments"),
        ("    x = f(y)\n", "x = f(y)\n", "undecided"),
        ("if x:\n    y = f(1)\n", "if x:\n  y = f(1)\n", "undecided"),  # Python's indentation
        ("grep -rn foo src/\n", "rg -n foo src/\n", "undecided"),
        ("make && make test\n", "make; make test\n", "undecided"),
        ("cat src/a.py\n", "cat ./src/a.py\n", "undecided"),
        ("ls\n", "git push --force origin main\n", "commands"),
        ("echo `date  +%s` a\n", "echo `date +%s` a\n", "undecided"),
    ],
)
def test_strict_rejects_what_types_something_else(gold, action, reason):
    verdict = terminus(answer(gold), answer(action))
    assert verdict.reward == 0.0
    assert verdict.reason == reason or reason == "ok?"
    assert (verdict.question is not None) == (verdict.reason == "undecided")


def test_strict_reads_keys_and_ignores_where_commands_end():
    gold = answer("python run.py\n", "C-c", "ls\n")
    assert terminus(gold, answer("python", " run.py", "Enter", "C-c", "l", "s\n")).reward == 1.0
    assert terminus(gold, answer("python run.py\n", "C-d", "ls\n")).reason == "keys"
    assert terminus(gold, answer("python run.py\nC-cls\n")).reason == "keys"
    assert terminus(answer(), answer("")).reason == "commands"


def test_strict_wants_one_json_object_of_the_schema_and_the_same_claim():
    gold = answer("ls\n")
    assert terminus(gold, "<think>hm, </think>" + gold).reward == 1.0
    assert terminus("<think>hm</think>" + gold, gold).reward == 1.0
    assert terminus(gold, f"```json\n{gold}\n```").reason == "not_json"
    assert terminus(gold, "Here: " + gold).reason == "not_json"
    assert terminus(gold, gold[:-1]).reason == "not_json"
    assert terminus(gold, answer("ls\n", note="x")).reason == "schema"
    assert terminus(gold, answer("ls\n", done=True)).reason == "task_complete"
    assert terminus(answer("ls\n", done=True), gold).reason == "task_complete"
    assert terminus(gold, '<tool_call>{"name": "bash", "arguments": {}}</tool_call>').reason == "called"


def test_both_modes_take_the_row_from_the_case():
    case = {"expected_answer": answer("ls\n"), "metadata": {"harness": "terminus_2"}, "threshold": 0.7}
    candidate = demonstrated({"role": "assistant", "content": ""}, case=case)
    assert STRICT.verify(candidate, parse_action(answer("ls\n"))).reward == 1.0
    assert STRICT.verify(candidate, parse_action(answer("ls"))).reward == 0.0
    assert RELEASED.verify(candidate, parse_action(answer("ls"))).reward == 1.0


def test_both_modes_take_the_demonstration_where_the_case_says_nothing():
    gold = answer("ls -la\n")
    for verifier in (STRICT, RELEASED):
        assert terminus(gold, answer("ls -la\n", analysis="other"), verifier).reward == 1.0
        assert terminus(gold, answer("git push\n"), verifier).reward == 0.0
    one = {"state_analysis": "s", "explanation": "e", "is_task_complete": False}
    one["commands"] = [{"keystrokes": "ls\n", "is_blocking": True, "timeout_sec": 5}]
    assert terminus(json.dumps(one), json.dumps(one), RELEASED).reward == 1.0
    assert terminus(json.dumps(one), answer("ls\n")).reason == "schema"


# ---- strict: tools

BASH = {"command": "grep -rn foo src/", "description": "search"}
WRITE = {"filePath": "/w/a.py", "content": "x = 1\n"}
PATCH = {"input": "*** Begin Patch\n*** Update File: a.py\n-x = 1\n+x = 2\n*** End Patch"}


@pytest.mark.parametrize(
    ("name", "gold", "actual"),
    [
        ("bash", BASH, {"command": "grep -n -r 'foo' src/", "description": "look for foo"}),
        ("exec_command", {"cmd": "ls", "workdir": "/w"}, {"cmd": "ls\n", "workdir": "/w/"}),
        ("shell", {"command": ["bash", "-lc", "ls  -la"]}, {"command": ["bash", "-lc", "ls -al"]}),
        ("write", WRITE, {"filePath": "/w/./a.py", "content": "x = 1"}),
        ("apply_patch", PATCH, {"input": PATCH["input"] + "\n"}),
        ("write_stdin", {"session_id": 7, "chars": ""}, {"session_id": 7}),
        ("read", {"filePath": "a", "offset": 5}, {"filePath": "./a", "offset": 5.0}),
        ("web_search", {"query": "Capital of France"}, {"query": "capital  of france"}),
        ("task", {"subagent_type": "explore", "prompt": "a"}, {"subagent_type": "explore", "prompt": "b"}),
        ("update_plan", {"plan": [{"step": "a"}]}, {"plan": [{"step": "b"}, {"step": "c"}]}),
        ("return_result", {"result": {"a": 1, "b": 2}}, {"result": {"b": 2.0, "a": 1}}),
        ("execute_python", {"code": "print(1)"}, {"code": "\nprint(1)\n"}),
    ],
)
def test_strict_accepts_calls(name, gold, actual):
    assert tools([(name, gold)], (name, actual)).reward == 1.0


@pytest.mark.parametrize(
    ("name", "gold", "actual", "reason"),
    [
        ("bash", BASH, {"command": "grep -rn bar src/"}, "arguments"),
        ("bash", {"command": "ls"}, {"command": "ls", "timeout": 5}, "surplus"),
        ("bash", BASH, {"command": "rg -n foo src/"}, "undecided"),
        ("exec_command", {"cmd": "ls", "workdir": "/w"}, {"cmd": "ls", "workdir": "/v"}, "arguments"),
        ("exec_command", {"cmd": "ls", "workdir": "/w"}, {"cmd": "ls"}, "arguments"),
        ("shell", {"command": ["bash", "-lc", "ls"]}, {"command": ["bash", "-c", "ls"]}, "arguments"),
        ("write", WRITE, {**WRITE, "content": ""}, "arguments"),
        ("write", WRITE, {**WRITE, "content": "x = 2\n"}, "arguments"),
        ("edit", {"oldString": "a", "newString": "b"}, {"oldString": "a", "newString": "c"}, "arguments"),
        ("apply_patch", PATCH, {"input": PATCH["input"].replace("2", "3")}, "arguments"),
        ("write_stdin", {"chars": "y\n"}, {"chars": "y"}, "arguments"),
        ("read", {"filePath": "a", "offset": 5}, {"filePath": "a", "offset": 6}, "arguments"),
        ("read", {"filePath": "a", "offset": 1}, {"filePath": "a", "offset": True}, "arguments"),
        ("web_search", {"query": "revenue 2023"}, {"query": "revenue 2024"}, "undecided"),
        ("web_search", {"query": "capital of austria"}, {"query": "capital of australia"}, "undecided"),
        ("sql", {"query": "SELECT a FROM b"}, {"query": "select A from b"}, "arguments"),
        ("ticket", {"description": "a"}, {"description": "b"}, "arguments"),
        ("update_plan", {"plan": [{"step": "a"}]}, {"plan": []}, "arguments"),
        ("execute_python", {"code": "print(10)"}, {"code": "print(11)"}, "arguments"),
        ("execute_python", {"code": "print(sum(x))"}, {"code": "print(min(x))"}, "undecided"),
    ],
)
def test_strict_rejects_calls(name, gold, actual, reason):
    verdict = tools([(name, gold)], (name, actual))
    assert (verdict.reward, verdict.reason) == (0.0, reason)
    assert (verdict.question is not None) == (reason == "undecided")


def test_strict_pairs_calls_and_reads_messages():
    one, two = ("read", {"filePath": "a"}), ("bash", {"command": "ls -la"})
    assert tools([one, two], ("bash", {"command": "ls -al"}), one).reward == 1.0
    assert tools([one, two], one, one).reward == 0.0
    assert tools([one], one, two).reason == "count"
    assert tools([one]).reason == "no_call"
    # a greedy pairing, or one by the order of texts, would leave the last call alone
    golds = [("bash", {"command": "ls  b"}), ("bash", {"command": "ls a"})]
    assert tools(golds, ("bash", {"command": "ls  a"}), ("bash", {"command": "ls b"})).reward == 1.0
    message = demonstrated({"role": "assistant", "content": "Done."})
    assert STRICT.verify(message, parse_action("All finished")).reward == 1.0
    assert STRICT.verify(message, parse_action(" \n")).reason == "empty"
    assert STRICT.verify(message, Action(calls=(Call(*one),))).reason == "called"
    assert STRICT.verify(message, parse_action("<tool_call>{")).reason == "malformed"


def test_strict_holds_calls_to_a_declared_schema():
    doc = {"name": "read", "parameters": {"type": "object", "properties": {"limit": {"default": 10}}}}
    doc["parameters"]["required"] = ["filePath"]
    gold = [("read", {"filePath": "a", "limit": 10})]
    assert tools(gold, ("read", {"filePath": "a"}), docs=[doc]).reward == 1.0
    assert tools(gold, ("read", {"limit": 10}), docs=[doc]).reason == "schema"


# ---- nothing raises, and nothing takes long

HOSTILE = {
    "one character": "a" * 1_000_000,
    "quotes": "'" * 1_000_001,
    "open quote": 'echo "' + "a\\" * 499_999,
    "heredocs": "cat << A\n" * 100_000,
    "words": "a b " * 250_000,
    "flags": "ls " + "-a " * 300_000 + "\n",
    "dollars": "$((" * 300_000,
    "braces": "{" * 1_000_000,
    "shuffled": "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz\n ", k=60_000)),
    "numbers": "".join(f"{i} " for i in range(150_000)),
    "rare": "".join(chr(200 + i % 150) for i in range(30_000)),
}


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_keystrokes_are_decided_within_five_seconds(verifier, name):
    text = HOSTILE[name]
    rng = random.Random(1)
    shuffled = "".join(rng.sample(text, len(text)))  # same characters: no cheap bound decides
    judged = [lambda: terminus(answer(text), answer(shuffled), verifier)]
    judged += [lambda: terminus(answer(text[:500]), answer(text), verifier)]
    judged += [
        lambda: tools([("bash", {"command": text})], ("bash", {"command": shuffled}), verifier=verifier)
    ]
    for verdict in judged:
        start = time.process_time()
        assert verdict().reward in (0.0, 1.0)
        assert time.process_time() - start < 5


TRICKS = hostile("bash", "command", {"description": "search"})


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_hostile_actions_are_rejected(verifier):
    docs = [{"name": "bash", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}}]
    candidate = demonstrated(calls_message([("bash", BASH)]), docs, {"harness": "opencode"})
    text = demonstrated({"role": "assistant", "content": answer("ls\n")})
    for action in TRICKS.values():
        assert check_action(verifier, candidate, action) == 0.0
        assert check_action(verifier, text, action) == 0.0


DEEP = "[" * 100_000
ODD = [
    DEEP,
    '{"commands": ' + DEEP,
    '{"analysis": ' + "9" * 5000 + "}",
    '{"analysis": ' + '{"a":' * 500 + "1" + "}" * 501,
    answer(*["x"] * 30_000),
    "</think>{" * 100_000,
    answer("\ud800\n"),
    "\ufeff" + answer("ls\n"),
    "null",
]


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_json_is_rejected_within_five_seconds(verifier, text):
    start = time.process_time()
    assert terminus(answer("ls\n"), text, verifier).reward == 0.0
    case = {"id": "1", "expected_action": {"type": "function_call", "name": "bash", "arguments": "{}"}}
    case |= {"tools": [{"name": "bash", "parameters": {}}], "harness": "opencode"}
    case["candidate"] = [{"type": "function_call", "name": "bash", "arguments": text}]
    assert score(verifier, case).reward == 0.0
    nested: dict = {}
    for _ in range(5000):
        nested = {"command": nested}
    for value in (nested, {"command": 10**5000}, {"command": float("inf")}, None, [DEEP]):
        assert tools([("bash", {"command": "ls"})], ("bash", value), verifier=verifier).reward == 0.0
    assert time.process_time() - start < 5


GOLDS = [
    answer("cat << 'EOF' > a.py\nx = 1\nEOF\n", "python a.py | head -n 5\n"),
    answer('grep -rn "foo bar" src/ && ls -la\n', "C-c", done=True),
    answer(),
]
TOOL_GOLDS = [
    [("bash", BASH)],
    [("write", WRITE), ("bash", {"command": "ls -la"})],
    [("todowrite", {"todos": []})],
]
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
shell_like = st.text("ab -/.'\"\\$`(){}<>|&;#!*\n0EOF\t", max_size=40)


@st.composite
def mutated(draw, texts):
    """One of `texts`, with pieces cut out, doubled or replaced."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 5)))
        text = text[:at] + draw(shell_like | st.text(max_size=3) | st.just(text[at:end] * 2)) + text[end:]
    return text


texts = st.text(max_size=60) | mutated(GOLDS) | json_like.map(json.dumps) | shell_like.map(answer)
arguments = json_like | st.dictionaries(st.sampled_from([*BASH, *WRITE, "todos"]), json_like | shell_like)
names = st.sampled_from(["bash", "write", "todowrite", ""])
calls = st.lists(st.builds(Call, names, arguments), max_size=3)


def check(verifier, data):
    """No exception, a reward in [0, 1], and the same verdict twice."""
    if data.draw(st.booleans()):
        candidate = demonstrated({"role": "assistant", "content": data.draw(st.sampled_from(GOLDS))})
        action = parse_action(data.draw(texts))
    else:
        candidate = demonstrated(
            calls_message(data.draw(st.sampled_from(TOOL_GOLDS))), case={"harness": "opencode"}
        )
        action = Action(data.draw(st.text(max_size=9)), calls=tuple(data.draw(calls)))
    verdict = verifier.verify(candidate, action)
    assert 0.0 <= verdict.reward <= 1.0 and verdict.reason
    assert verifier.verify(candidate, action) == verdict


def check_normal_form(text):
    """A text equals itself, and neither its normal form nor a comparison raises."""
    form = keystrokes.normal_form(text)
    assert form == keystrokes.normal_form(text)
    assert keystrokes.same(text, text)
    keystrokes.contradiction(text, text + "x")


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_no_action_makes_a_verifier_raise(verifier):
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data):
        check(verifier, data)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_no_action_makes_a_verifier_raise_slow(verifier):
    @settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        check(verifier, data)

    run()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(shell_like | st.text(max_size=40))
def test_no_text_makes_the_normal_form_raise(text):
    check_normal_form(text)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(shell_like | st.text(max_size=40))
def test_no_text_makes_the_normal_form_raise_slow(text):
    check_normal_form(text)
