"""terminal: what a shell reads may be spelled otherwise, what a program reads may not."""

import pytest
from support.terminal_cases import answer

from pivotrl_jax.records import Action, Call, Candidate
from pivotrl_jax.verifiers import get
from pivotrl_jax.verifiers.cases import calls_message


def reward(gold, actual, screen=""):
    """The reward of typing `actual` where `gold` is typed, after a screen."""
    messages = [{"role": "user", "content": f"New Terminal Output:\n{screen}"}]
    message = {"role": "assistant", "content": answer(*gold)}
    candidate = Candidate("t@1", "t", 0, messages, [], message, "terminal", {}, "t")
    return get("terminal").verify(candidate, Action(answer(*actual), text=answer(*actual))).reward


def other(*first):
    """Two ways to go on that are one to a shell."""
    return [*first, "ls -l  'a' # b\n"], [*first, "ls -l a\n"]


@pytest.mark.parametrize(
    "program",
    [
        *("vim a.py", "sudo nano a", "cd /w && vi a", "python3", "python3.12 -i a.py", "A=1 node", "cat > a"),
        *("cat >> a", "cat", "tee a", "sqlite3 a.db", "psql -U me db", "mysql -u me", "git commit", "bc -l"),
        *("git rebase -i HEAD~2", "git add -p", "crontab -e", "less a", "gdb ./a"),
    ],
)
def test_a_program_that_the_step_starts_reads_the_rest(program):
    assert reward(*other(f"{program}\n")) == 0
    same = [f"{program}\n", "x  = 'a' # b\n"]
    assert reward(same, same) == 1


@pytest.mark.parametrize(
    "command",
    [
        *("cat a", "python3 a.py", "python3 --version", "python3 -c 'print(1)'", "echo 1 | bc", "cat < a"),
        *("git commit -m 'Fix'", "git commit --amend --no-edit", "sqlite3 a.db 'select 1'", "psql -c 'x' db"),
        *("mysql -e 'x'", "python3 server.py &", "node a.js", "git add a", "vim --version", "tmux new -d"),
        "cat > a <<'E'\nx\nE",
    ],
)
def test_after_a_command_a_shell_reads_the_rest(command):
    assert reward(*other(f"{command}\n")) == 1


@pytest.mark.parametrize(
    "screen",
    [
        *(
            ">>>",
            ">>> x",
            "...",
            "In [3]:",
            "mysql> ",
            "postgres=# ",
            "db-> ",
            "sqlite> ",
            "(gdb) ",
            "(Pdb) ",
        ),
        *(
            "> ",
            "~\n~\n-- INSERT --",
            "^G Help   ^O Write\n^X Exit   ^R Read",
            '"a.py" 9L   1,1   All',
            "(END)",
        ),
    ],
)
def test_a_program_that_the_screen_shows_reads_all(screen):
    assert reward(*other(), screen=screen) == 0
    assert reward(["x  1\n"], ["x  1\n"], screen=screen) == 1


@pytest.mark.parametrize(
    "screen", ["", "root@a:/app# ", "$ ", "bash-5.1$ ", "Loading...", "done: 100%", ">>> 1\nroot@a:/app# "]
)
def test_a_shell_that_the_screen_shows_reads_all(screen):
    assert reward(*other(), screen=screen) == 1


def test_a_program_started_in_other_words_is_told_by_its_text_alone():
    assert reward(["vim a\n", "x  1"], ["'vim' a\n", "x 1"]) == 0
    assert reward(["'vim' a\n", "x  1"], ["vim a\n", "x 1"]) == 0
    assert reward(["ls -l -a; vim a\n", "x"], ["ls -la; vim a\n", "x"]) == 1


@pytest.mark.parametrize("one, other", [("C-c", "^C"), ("C-c", "c-c"), ("PageUp", "PPage"), ("Up", "up")])
def test_one_key_has_several_names(one, other):
    assert reward([one], [other]) == reward([other], [one]) == 1
    assert reward(["C-c"], ["C-d"]) == reward(["Up"], ["Down"]) == 0


def tool_reward(verifier, gold, actual):
    candidate = Candidate("t@1", "t", 0, [], [], calls_message([gold]), verifier, {}, "t")
    return get(verifier).verify(candidate, Action(calls=(Call(*actual),))).reward


@pytest.mark.parametrize("head", ["#!/bin/sh\n", "<?xml version='1.0'?>\n", "---\ntitle: a\n---\n"])
def test_nothing_may_come_before_the_head_of_a_file(head):
    gold = ("write", {"filePath": "a", "content": f"{head}x\n"})
    assert tool_reward("terminal", gold, ("write", {"filePath": "a", "content": f"\n{head}x\n"})) == 0
    assert tool_reward("terminal", gold, ("write", {"filePath": "a", "content": f"{head}x"})) == 1


@pytest.mark.parametrize(
    "verifier, gold, said, empty",
    [
        ("terminal", ("update_plan", {"plan": [{"step": "a"}]}), {"plan": [{"step": "b"}]}, {"plan": [{}]}),
        ("terminal", ("update_plan", {"plan": [{"step": "a"}]}), {"plan": ["b"]}, {"plan": [" "]}),
        ("swe", ("think", {"thought": "a"}), {"thought": "b"}, {"thought": " \n"}),
        ("swe", ("update_plan", {"plan": [{"step": "a"}]}), {"plan": [{"step": "b"}]}, {"plan": [{}, ""]}),
    ],
)
def test_a_thought_or_a_plan_says_something(verifier, gold, said, empty):
    assert tool_reward(verifier, gold, (gold[0], said)) == 1
    assert tool_reward(verifier, gold, (gold[0], empty)) == 0
