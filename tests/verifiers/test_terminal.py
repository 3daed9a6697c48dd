"""terminal: what is accepted and what is rejected."""

import json

import pytest
from support.terminal_cases import (
    BASH,
    FILES,
    PATCH,
    RELEASED,
    STRICT,
    WRITE,
    answer,
    cases,
    demonstrated,
    needs_cases,
    score,
    terminus,
    tools,
)

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call

# untagged cases in which strict is not as released, each on purpose
STRICT_DIFFERS = {
    "terminus/sim/quotes": 1.0,  # 'hello' and "hello" are one word to a shell
    "multi_harness/agent006/code_ws": 1.0,  # blank lines around a program
    "multi_harness/agent006/code": 0.0,  # range(10) is not range(11)
    "multi_harness/stirrup/code_exec": 0.0,  # a.py is not b.py
    "multi_harness/codex/other_value_ignored": 0.0,  # another directory
}


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


def test_thinking_that_never_ends_holds_no_answer():
    gold, typed = answer("ls\n"), answer("grep -n '<think> ' a\n")
    candidate = demonstrated({"role": "assistant", "content": gold})
    for verifier in (STRICT, RELEASED):
        assert verifier.verify(candidate, parse_action(gold, thinking_open=True)).reward == 0.0
        assert verifier.verify(candidate, parse_action("hm</think>" + gold, thinking_open=True)).reward == 1.0
    assert terminus(typed, typed).reward == 1.0, "a tag that is typed opens nothing"
    candidate = demonstrated({"role": "assistant", "content": typed})
    assert STRICT.verify(candidate, parse_action("hm</think>" + typed, thinking_open=True)).reward == 1.0


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
        ("webfetch", {"url": "https://A.com/x/"}, {"url": "HTTPS://a.com/x"}),
        ("edit", {"oldString": "a", "replaceAll": False}, {"oldString": "a"}),
        ("bash", {"command": "make", "timeout": 600}, {"command": "make", "timeout": 900}),
        ("bash", {"command": "make", "timeout": 600}, {"command": "make"}),
        ("bash", {"command": "git commit -am x"}, {"command": "git commit -a -m x"}),
        ("bash", {"command": "ls | head; make &> a"}, {"command": "ls | head -n 10; make > a 2>&1"}),
        ("bash", {"command": "tar xzf a"}, {"command": "tar -xzf a"}),
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
        ("webfetch", {"url": "https://Ann:Pw@a.com/x"}, {"url": "https://ann:pw@a.com/x"}, "arguments"),
        ("webfetch", {"url": "https://a.com?q=A"}, {"url": "https://a.com?q=a"}, "arguments"),
        ("webfetch", {"url": "https://a.com/?q=a/"}, {"url": "https://a.com/?q=a"}, "arguments"),
        ("toggle", {"enabled": False}, {}, "arguments"),
        ("write", {"filePath": "a", "content": ""}, {"filePath": "a"}, "arguments"),
        ("bash", {"command": "make", "timeout": 600}, {"command": "make", "timeout": 1}, "arguments"),
        ("bash", {"command": "make", "timeout": 1}, {"command": "make"}, "arguments"),
        ("send", {"input": "y\n"}, {"input": "y"}, "arguments"),
        ("write", {"content": "#!/bin/sh\n"}, {"content": "\n#!/bin/sh\n"}, "arguments"),
        ("write", {"content": "#!/bin/sh\nls"}, {"content": "#!/bin/sh\r\nls"}, "arguments"),
        ("bash", {"command": "git checkout a"}, {"command": "git checkout -- a"}, "arguments"),
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


# ---- conformance


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
