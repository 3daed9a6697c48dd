"""Pairs of real commands and calls of coding agents: swe tells those that do the same from all others."""

import pytest
from support.shell_pairs import pairs
from support.swe_cases import act, bash, candidate, codex, edit

from pivotrl_jax.verifiers import get

UPDATE = "*** Update File: a.py"
REPLACE = {"path": "a", "old_string": "abcdefgh", "new_string": "b"}


def rewards(one, other):
    """The rewards of each as the action where the other is the demonstration."""
    verify = get("swe").verify
    assert verify(candidate(one), act(one)).reward == verify(candidate(other), act(other)).reward == 1
    return [verify(candidate(a), act(b)).reward for a, b in ((one, other), (other, one))]


@pytest.mark.parametrize(("one", "other"), [*pairs("same"), ("git commit -m 'A\n'", "git commit -m A")])
def test_commands_that_do_the_same(one, other):
    assert rewards(bash(one), bash(other)) == [1, 1]


@pytest.mark.parametrize(("one", "other"), pairs("different"))
def test_commands_that_do_something_else(one, other):
    assert rewards(bash(one), bash(other)) == [0, 0]


def insert(text):
    return edit("insert", insert_line=3, new_str=text)


def lines(text):
    return "edit", {"start_line": 5, "end_line": 6, "replacement_text": text}


def create(text, path="a.py"):
    return edit("create", path, file_text=text)


OTHER_CALLS = {
    "empty lines inserted": (insert("a"), insert("a\n\n\n")),
    "an empty line inserted before": (insert("a"), insert("\na")),
    "empty lines for lines": (lines("x = 1"), lines("x = 1\n\n\n")),
    "empty lines for lines, typed": (
        bash("edit 10:12\nx = 1\nend_of_edit"),
        bash("edit 10:12\nx = 1\n\n\nend_of_edit"),
    ),
    "an empty line at the end of a hunk": (
        codex(UPDATE, "@@", " x = compute()", "+y = 1"),
        codex(UPDATE, "@@", " x = compute()", "+y = 1", "+"),
    ),
    "an empty line inside a hunk": (
        codex(UPDATE, "@@", " x = compute()", "+y = 1"),
        codex(UPDATE, "@@", " x = compute()", "+", "+y = 1"),
    ),
    "an empty line removed by a hunk": (
        codex(UPDATE, "@@", "-x = compute()", "-"),
        codex(UPDATE, "@@", "-x = compute()"),
    ),
    "a file added elsewhere": (codex("*** Add File: a.py", "+x"), codex("*** Add File: /w/a.py", "+x")),
    "a file deleted elsewhere": (codex("*** Delete File: a.py"), codex("*** Delete File: /w/a.py")),
    "a file created elsewhere": (create("a", "/w/x/a.py"), create("a")),
    "a line inserted elsewhere": (
        edit("insert", "/w/x/a.py", insert_line=1, new_str="a"),
        edit("insert", "a.py", insert_line=1, new_str="a"),
    ),
    "spaces in a long string": (create('x = """a  \nb"""\n'), create('x = """a\nb"""\n')),
    "line ends": (create("#!/bin/sh\nls\n", "a.sh"), create("#!/bin/sh\r\nls\r\n", "a.sh")),
    "a line before #!": (create("#!/bin/sh\nls\n", "a.sh"), create("\n#!/bin/sh\nls\n", "a.sh")),
    "another answer": (("submit", {"answer": 42}), ("submit", {"answer": 43})),
    "another answer in words": (("submit", {"answer": "42"}), ("submit", {"answer": "43"})),
    "another claim": (
        ("finish", {"message": "x", "task_completed": "true"}),
        ("finish", {"message": "y", "task_completed": "false"}),
    ),
    "a ticket": (
        ("create", {"title": "a", "description": "Login fails"}),
        ("create", {"title": "a", "description": "Logout fails"}),
    ),
    "a message read": (("read", {"id": 1, "summary": "a"}), ("read", {"id": 1, "summary": "b"})),
    "a list of something": (("list", {"status": "open"}), ("list", {"status": "closed"})),
    "a trial": (("edit", {**REPLACE, "dry_run": True}), ("edit", REPLACE)),
    "no trial, said": (("edit", {**REPLACE, "dry_run": False}), ("edit", REPLACE)),
    "case": (("grep", {"pattern": "a", "case_sensitive": False}), ("grep", {"pattern": "a"})),
    "an empty glob": (("grep", {"pattern": "a", "include": ""}), ("grep", {"pattern": "a"})),
    "a switch off": (bash("make", check=False), bash("make")),
    "a second for ten minutes": (bash("make", timeout=1), bash("make", timeout=600)),
    "a second": (bash("make", timeout=1), bash("make")),
    "a thousand milliseconds": (bash("make", timeout_ms=1000), bash("make")),
    "keys for a command": (bash("", is_input="true"), bash("")),
    "empty lines appended": (bash("cat >> a <<'E'\nx\nE"), bash("cat >> a <<'E'\nx\n\n\nE")),
    "empty lines piped": (bash("cat <<'E' | wc -l\nx\nE"), bash("cat <<'E' | wc -l\nx\n\nE")),
    "spaces in Markdown": (bash("cat > a.md <<'E'\nx\nE"), bash("cat > a.md <<'E'\nx  \nE")),
    "the next lines": (edit("view", view_range=[40, 80]), edit("view", view_range=[41, 81])),
}

SAME_CALLS = {
    "a time limit around what ends at once": (bash("ls", timeout=5), bash("ls")),
    "a generous time limit": (bash("make", timeout=120), bash("make")),
    "a command, said": (bash("ls", is_input="false"), bash("ls")),
    "one place, said": (("edit", {**REPLACE, "replace_all": False}), ("edit", REPLACE)),
    "the end of the last line": (lines("x = 1"), lines("x = 1\n")),
    "a message for people": (("finish", {"message": "x"}), ("finish", {"message": "y"})),
    "an empty line after a patch": (
        codex(UPDATE, "@@", " x = compute()", "+y = 1", ""),
        codex(UPDATE, "@@", " x = compute()", "+y = 1"),
    ),
    "an empty line of context without its space": (
        codex(UPDATE, "@@", " x = compute()", "", "+y = 1"),
        codex(UPDATE, "@@", " x = compute()", " ", "+y = 1"),
    ),
    "both in a shell of their own": (
        ("bash", {"command": ["bash", "-lc", "cd /w && ls -la"]}),
        ("bash", {"command": ["bash", "-lc", "cd /w && ls -al"]}),
    ),
    "another plan": (("todo_write", {"todos": ["a"]}), ("todo_write", {"todos": ["b"]})),
    "empty lines at the end of a file": (
        bash("cat > a.py <<'E'\nx = 1\nE"),
        bash("cat > a.py <<'E'\nx = 1 \n\nE"),
    ),
}


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_calls_that_do_something_else(name):
    assert rewards(*OTHER_CALLS[name]) == [0, 0]


@pytest.mark.parametrize("name", SAME_CALLS)
def test_calls_that_do_the_same(name):
    assert rewards(*SAME_CALLS[name]) == [1, 1]


def test_a_default_is_what_the_schema_says():
    for default, reward in ((False, 1), (True, 0)):
        properties = {"command": {"type": "string"}, "shell": {"type": "boolean", "default": default}}
        docs = [{"name": "bash", "parameters": {"properties": properties}}]
        gold = candidate(bash("make", shell=False), tools=docs)
        assert get("swe").verify(gold, act(bash("make"))).reward == reward


def test_a_relative_path_is_the_absolute_one_where_the_directory_is_known():
    said = [{"role": "tool", "content": "[Current working directory: /w/x]"}]
    gold = candidate(create("a", "/w/x/a.py"))
    gold = type(gold)(**{**vars(gold), "messages": said})
    assert get("swe").verify(gold, act(create("a"))).reward == 1
    assert get("swe").verify(gold, act(create("a", "x/a.py"))).reason == "file"
