"""swe, both modes: tables of actions that do what was demonstrated and of others; and actions of any kind."""

import dataclasses
import json
from pathlib import Path

import pytest
from hostile_actions import actions, check, completions, few, hostile, many
from hypothesis import given
from hypothesis import strategies as st

from pivotrl_jax.chat import parse_action
from pivotrl_jax.pivots import self_check
from pivotrl_jax.records import Action, Call, Candidate, InputError
from pivotrl_jax.verifiers import VERIFIERS, get
from pivotrl_jax.verifiers.base import calls_message
from pivotrl_jax.verifiers.paths import same_path
from pivotrl_jax.verifiers.shell import commands, heads

STRICT, NEMO = get("swe"), get("swe", "nemo_gym")
CONFORMANCE = Path(__file__).parents[2] / "shared/data/conformance/nemo_gym/swe_pivot.jsonl"


def candidate(*calls, content="", tools=(), **case):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate("t@1", "t", 0, [], list(tools), message, "swe", case, "t")


def act(*calls, content=""):
    return Action(content, "", tuple(Call(*call) for call in calls), "", content)


def bash(command, **more):
    return "bash", {"command": command, **more}


def edit(command, path="/w/proj/foo.py", **more):
    return "str_replace_editor", {"command": command, "path": path, **more}


def codex(*lines):
    return "apply_patch", {"input": "\n".join(["*** Begin Patch", *lines, "*** End Patch"])}


BLOCK = "def f(x):\n    total = 0\n    for i in range(x):\n        if i > 3:\n            total += i\n"
FIX = edit("str_replace", old_str="        return None", new_str="        return result")
GTE = edit("str_replace", old_str=BLOCK, new_str=BLOCK.replace("i > 3", "i >= 3"))
VIEW = edit("view", view_range=[40, 80])
INSERT = edit("insert", insert_line=10, new_str="import os")
CREATE = edit("create", file_text="from a import b\n\n\ndef test_b():\n    assert b() == 6\n")
GREP = ("grep", {"pattern": "def total", "path": "src", "include": "*.py"})
READ = ("read", {"filePath": "/w/proj/foo.py", "offset": 100, "limit": 50})
OPENCODE = (
    "edit",
    {"filePath": "/w/a.py", "oldString": "retry = False  # never", "newString": "retry = True  # always"},
)
PATCH = codex("*** Update File: src/a.py", "@@", " x = 0", "-return compute(x)", "+return compute(x) or None")
PYTEST = bash("python -m pytest /w/proj/tests/test_a.py -q")
LINES = ("edit", {"start_line": 5, "end_line": 6, "replacement_text": "        return round(value)"})
HEREDOC = bash("cat > a.py <<'EOF'\nimport os\nprint(os.getcwd())\nEOF\npython a.py")

ACCEPTED = {
    "a relative path for an absolute one": (
        FIX,
        edit("str_replace", "foo.py", **dict(list(FIX[1].items())[2:])),
    ),
    "more lines around the same change": (
        FIX,
        edit(
            "str_replace",
            old_str="    if x:\n        return None",
            new_str="    if x:\n        return result",
        ),
    ),
    "the same edit in another editor of the family": (
        FIX,
        ("edit", {"filePath": "proj/foo.py", "oldString": FIX[1]["old_str"], "newString": FIX[1]["new_str"]}),
    ),
    "CamelCase": (FIX, ("StrReplaceEditor", FIX[1])),
    "a remark for the reader": (FIX, (FIX[0], {**FIX[1], "security_risk": "HIGH"})),
    "a range as a string": (VIEW, edit("view", view_range="[40, 80]")),
    "a range, a little more": (VIEW, edit("view", view_range=[35, 90])),
    "a range to the end": (edit("view", view_range=[50, -1]),) * 2,
    "a range of one line": (edit("view", view_range=[40, 40]),) * 2,
    "nearly the same file": (CREATE, edit("create", file_text=CREATE[1]["file_text"] + "\n")),
    "read a little earlier": (READ, ("read", {**READ[1], "offset": 95, "limit": 60})),
    "a grep of a path with ./": (GREP, ("grep", {**GREP[1], "path": "./src/"})),
    "the working directory named": (
        ("glob", {"pattern": "**/*.py"}),
        ("glob", {"pattern": "**/*.py", "path": "."}),
    ),
    "python3": (bash("python test.py --all"), bash("/usr/bin/python3 test.py --all")),
    "another look": (bash("ls src"), bash("ls -la src")),
    "pytest, less to read": (PYTEST, bash("pytest -x --tb=short tests/test_a.py")),
    "git in a directory": (bash("git --no-pager -C /w diff"), bash("git -C /w diff")),
    "what sets the scene": (
        bash("python a.py --all"),
        bash("source venv/bin/activate && export A=1 && cd /w && python a.py --all"),
    ),
    "pytest as a module": (PYTEST, bash("PYTHONPATH=. pytest -q tests/test_a.py")),
    "env and sudo": (PYTEST, bash("sudo env A=1 timeout 60 python3 -m pytest -q /w/proj/tests/test_a.py")),
    "the output cut": (PYTEST, bash(PYTEST[1]["command"] + " 2>&1 | tail -20")),
    "cd in front": (bash("cat src/a.py"), bash("cd /w && cat src/a.py")),
    "another quote": (bash("grep -rn 'def x' src"), bash('grep -nr "def x" src/')),
    "a script of bash": (bash("ls src"), ("shell", {"command": ["bash", "-lc", "ls src"]})),
    "lines of sed": (bash("sed -n '10,60p' a.py"), bash("sed -n 8,62p /w/a.py")),
    "git add of two spellings": (
        bash("git add -A && git diff --cached"),
        bash("git add -A; git diff --cached"),
    ),
    "a here-document, nearly": (HEREDOC, bash(HEREDOC[1]["command"].replace("os.getcwd()", "os.getcwd() ,"))),
    "a patch with other context": (
        PATCH,
        codex("*** Update File: /w/src/a.py", "@@ def f", "-return compute(x)", "+return compute(x) or None"),
    ),
    "a patch by the shell": (
        bash("apply_patch <<'EOF'\n" + PATCH[1]["input"] + "\nEOF"),
        bash('apply_patch <<"X"\n' + PATCH[1]["input"].replace("src/", "/w/src/") + "\nX"),
    ),
    "thoughts": (("think", {"thought": "a"}), ("think", {"thought": "quite another one"})),
    "an unknown tool, as tool_call compares": (
        ("browser", {"url": "http://a", "note": "look  here"}),
        ("browser", {"url": "http://a", "note": "Look here"}),
    ),
}

REJECTED = {
    "no arguments": (VIEW, ("str_replace_editor", {}), "empty"),
    "no file": (FIX, ("str_replace_editor", {k: v for k, v in FIX[1].items() if k != "path"}), "incomplete"),
    "an argument by a wrong name": (PYTEST, ("bash", {"script": "python -m pytest"}), "incomplete"),
    "a file of the same name": (FIX, (FIX[0], {**FIX[1], "path": "/w/vendor/proj/foo.py"}), "file"),
    "another case": (FIX, (FIX[0], {**FIX[1], "path": "/w/proj/Foo.py"}), "file"),
    "a view for an edit": (FIX, VIEW, "operation"),
    "a change that is none": (FIX, (FIX[0], {**FIX[1], "new_str": FIX[1]["old_str"]}), "no_op"),
    "a small fix left out": (GTE, edit("str_replace", old_str=BLOCK, new_str=BLOCK + "# done\n"), "change"),
    "another value": (
        edit("str_replace", old_str="limit = 1", new_str="limit = 2"),
        edit("str_replace", old_str="limit = 1", new_str="limit = 3"),
        "change",
    ),
    "another place": (FIX, (FIX[0], {**FIX[1], "old_str": "import os"}), "old_text"),
    "another text": (FIX, (FIX[0], {**FIX[1], "new_str": "raise ValueError(1)"}), "new_text"),
    "another line to insert at": (INSERT, (INSERT[0], {**INSERT[1], "insert_line": 999}), "line"),
    "another tail of a long file": (
        edit("create", file_text="ab " * 700 + "TAIL"),
        edit("create", file_text="ab " * 700 + "XYZ " * 400),
        "content",
    ),
    "other lines": (VIEW, edit("view", view_range=[200, 250]), "range"),
    "the whole file": (VIEW, edit("view"), "range"),
    "no range at all": (VIEW, edit("view", view_range="[40, 80"), "malformed"),
    "read elsewhere": (READ, ("read", {**READ[1], "offset": 5000}), "range"),
    "another pattern": (GREP, ("grep", {**GREP[1], "pattern": "def f"}), "pattern"),
    "another include": (GREP, ("grep", {**GREP[1], "include": "*.js"}), "arguments"),
    "OpenCode: another file": (OPENCODE, ("edit", {**OPENCODE[1], "filePath": "/w/b.py"}), "file"),
    "OpenCode: no change": (
        OPENCODE,
        ("edit", {**OPENCODE[1], "newString": OPENCODE[1]["oldString"]}),
        "no_op",
    ),
    "OpenCode: everywhere": (OPENCODE, ("edit", {**OPENCODE[1], "replaceAll": True}), "arguments"),
    "Codex: another file": (PATCH, codex("*** Update File: src/b.py", "-return", "+x"), "file"),
    "Codex: another patch": (
        PATCH,
        codex("*** Update File: src/a.py", "-return compute(x)", "+os._exit(1)"),
        "new_text",
    ),
    "Codex: an empty patch": (PATCH, codex("*** Update File: src/a.py"), "no_op"),
    "lost indentation": (
        LINES,
        ("edit", {**LINES[1], "replacement_text": "return round(value)"}),
        "indentation",
    ),
    "another command": (PYTEST, bash("rm -rf /w/proj/tests/test_a.py -q"), "head"),
    "another command after cd": (bash("cd /w/src/app && ls"), bash("cd /w/src/app && rm"), "head"),
    "a system directory": (bash("ls"), bash("cd /etc && ls"), "head"),
    "another directory": (bash("cd /w/a && ls"), bash("cd /w/b && ls"), "operands"),
    "one command more": (bash("git add -A"), bash("git add -A && git push"), "head"),
    "another sub-command": (bash("git stash list"), bash("git reset list"), "head"),
    "another pattern of grep": (bash("grep -rn foo src"), bash("grep -rn bar src"), "operands"),
    "a match turned round": (bash("grep -n foo a.py"), bash("grep -nv foo a.py"), "flags"),
    "a flag that acts": (bash("rm a.txt"), bash("rm -rf a.txt"), "flags"),
    "an expression that deletes": (
        bash("find . -name '*.pyc'"),
        bash("find . -name '*.pyc' -delete"),
        "flags",
    ),
    "written over": (bash("cat a.py"), bash("cat a.py > b.py"), "redirect"),
    "other lines of sed": (bash("sed -n '10,60p' a.py"), bash("sed -n '900,960p' a.py"), "range"),
    "another here-document": (
        HEREDOC,
        bash("cat > a.py <<'EOF'\nimport sys\nsys.exit(3)\nEOF\npython a.py"),
        "heredoc",
    ),
    "a pipe for a sequence": (bash("echo y; make all"), bash("echo y | make all"), "operators"),
    "another tool": (GREP, ("read_file", {"path": "src"}), "name"),
    "an unknown tool's arguments": (
        ("browser", {"url": "http://a"}),
        ("browser", {"url": "http://b"}),
        "arguments",
    ),
}


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
    assert STRICT.verify(both, act(PYTEST, FIX)).reward == 1
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
    for place in ("/w/other", "src", "/"):
        assert STRICT.verify(gold, act(bash(f"cd {place} && python a.py"))).reason == "head"
    assert STRICT.verify(gold, act(bash("python a.py", workdir="/w/other"))).reason == "head"


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
    assert STRICT.verify(candidate(CREATE, similarity=1.0), act(edit("create", file_text="x"))).reward == 0


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
    "case", [{"level": "deep"}, {"level": 3}, {"similarity": 2}, {"config": {"reward_mode": 3}}]
)
def test_a_case_that_cannot_be_used_is_named(case):
    with pytest.raises(InputError):
        STRICT.verify(candidate(FIX, **case), act(FIX))


def test_demonstrations_pass_the_self_check():
    golds = [gold for gold, *_ in (*ACCEPTED.values(), *REJECTED.values())]
    assert self_check([candidate(gold) for gold in golds], VERIFIERS).left_out == {}


# ---- paths and shell text


def test_paths():
    assert same_path("foo.py", "/w/proj/foo.py") and same_path("/w/proj/foo.py", "proj/foo.py")
    assert same_path("./a//b/", "a/b") and same_path("a/../b", "b")
    for other in ("/w/proj/Foo.py", "/x/proj/foo.py", "oo.py", "", ".", "/"):
        assert not same_path("/w/proj/foo.py", other)
    assert not same_path("foo.py", "src/foo.py")


@pytest.mark.parametrize(
    "text, names",
    [
        ("cd /w && FOO=1 sudo -E python3.11 -m pytest -q 2>&1 | tail -3", ("pytest", "tail")),
        ("cat <<'EOF' > a.py\nrm -rf /; x\nEOF\npython a.py", ("cat", "python")),
        ("for f in a b; do rm $f; done", ("for", "rm")),
        ('(cd a; ls) && echo "a; b | c" # d; e', ("ls", "echo")),
        ("case $x in a) ls;; esac", ("case", "ls")),
        ("[[ -f a ]] && /usr/bin/git status", ("[[", "git")),
        ("bash -lc 'timeout 5 make all'", ("make",)),
        ("cd /w", ("cd",)),
        ("echo 'open", ("echo",)),
        ("echo $((1+2))", ("echo",)),
        ("", ()),
    ],
)
def test_heads(text, names):
    assert heads(text) == names


def test_what_a_command_holds():
    [cat, wc] = commands("A=1 cat 'a b' <<EOF | wc -l > n.txt\nx\nEOF")
    assert (cat.head, cat.words, cat.env, cat.heredoc) == ("cat", ("a b",), ("A=1",), "x")
    assert (wc.operator, wc.words, wc.redirects) == ("|", ("-l",), ((">", "n.txt"),))


# ---- NeMo Gym's cases


def rows():
    if not CONFORMANCE.exists():
        pytest.skip("../shared, with NeMo Gym's conformance cases, is not here")
    return [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]


def test_nemo_gym_rewards_are_reproduced():
    for row in rows():
        verdict = NEMO.verify(*NEMO.read_case(row))
        assert verdict.reward == pytest.approx(row["reward"], abs=1e-12), (row["id"], verdict)
        named = {"ok": "none", "partial": "none"}.get(verdict.reason, verdict.reason)
        assert named == row["failure_reason"], row["id"]


def test_strict_closes_what_is_tagged_a_defect():
    for row in rows():
        verdict = STRICT.verify(*STRICT.read_case(row))
        want = {"false_accept": 0, "false_reject": 1}.get(row.get("defect"))
        want = 1 if row["id"].endswith("/gold") else want
        assert want in (None, verdict.reward), (row["id"], verdict)


def nemo(gold, actual, **config):
    return NEMO.verify(candidate(gold, config=config), act(actual)).reward


def test_nemo_gym_rules_beyond_the_sample():
    assert nemo(PYTEST, ("terminal", "garbage")) == 1
    assert nemo(PYTEST, ("terminal", "[]")) == 1 and nemo(PYTEST, ("terminal", "3")) == 0
    assert nemo(FIX, ("edit", "[]")) == 0 and nemo(VIEW, edit("view")) == 1
    assert nemo(edit("view", view_range=[50, -1]), edit("view", view_range=[50, -1])) == 0
    assert nemo(VIEW, edit("view", view_range=[48, 90])) == 1
    assert nemo(VIEW, edit("view", view_range=[49, 90])) == 0
    assert nemo(PATCH, codex("another patch")) == 1
    assert nemo(bash("python a.py"), bash("python3 a.py")) == 0
    assert nemo(bash("pytest a/b/c.py x"), bash("pytest z/b/c.py x")) == 0
    assert nemo(bash("pytest /w/a/b/c.py x"), bash("pytest /z/a/b/c.py x")) == 1
    assert nemo(FIX, FIX, reward_mode="continuous") == pytest.approx(1 - 0.1 * 41 / 500)
    assert nemo(FIX, FIX, reward_mode="continuous", diff_size_alpha=1.0) == pytest.approx(1 - 41 / 500)
    assert nemo(("a_tool", {}), ("A_TOOL", {"x": 1})) == 1
    assert NEMO.verify(candidate(FIX, PYTEST), act(FIX)).reason == "expected_action_invalid"
    huge = "{" + '"command": ' + "1" * 5000 + "}"
    assert NEMO.verify(candidate(PYTEST), act(("bash", huge))).reason == "unknown_error"


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
    assert all(isinstance(word, str) for command in commands(text) for word in (command.head, *command.words))
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
