"""Demonstrations of coding agents, actions that do the same, and actions that do not: for swe's tests."""

from pivotrl_jax.records import Action, Call, Candidate
from pivotrl_jax.verifiers.cases import calls_message


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
    "python3": (bash("python test.py --all"), bash("python3 test.py --all")),
    "another look": (bash("ls src"), bash("ls -la src")),
    "pytest, more to read": (PYTEST, bash("pytest -v --tb=short tests/test_a.py")),
    "git in a directory": (bash("git --no-pager -C /w diff"), bash("git -C /w diff")),
    "pytest as a module": (PYTEST, bash("pytest -q tests/test_a.py")),
    "what is only for show": (PYTEST, bash("env NO_COLOR=1 timeout 60 python3 -m pytest tests/test_a.py -s")),
    "the output cut": (PYTEST, bash(PYTEST[1]["command"] + " 2>&1 | tail -20")),
    "cd in front": (bash("cat /w/src/a.py"), bash("cd /w && cat src/a.py")),
    "another quote": (bash("grep -rn 'def x' src"), bash('grep -nr "def x" src/')),
    "a script of bash": (bash("ls src"), ("shell", {"command": ["bash", "-lc", "ls src"]})),
    "lines of sed": (bash("sed -n '10,60p' a.py"), bash("sed -n 10,60p /w/a.py")),
    "lines by another tool": (bash("sed -n '1,60p' a.py"), bash("cat a.py | head -60")),
    "a line end for a semicolon": (bash("git add -A; git diff"), bash("git add -A\ngit --no-pager diff\n")),
    "a here-document, spaces at the ends": (
        HEREDOC,
        bash(HEREDOC[1]["command"].replace("import os", "import os ")),
    ),
    "a program, other spaces": (
        bash("python - <<'EOF'\nimport os\nprint(os.getcwd())\nEOF"),
        bash("python3 <<'E'\nimport os  # here\nprint( os.getcwd() )\nE"),
    ),
    "a patch with more context": (
        codex("*** Update File: /w/src/a.py", "@@ def f", "-return compute(x)", "+return compute(x) or None"),
        PATCH,
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

_METHOD = (" a", "-b = 123456", "+c = 123456")
REJECTED = {
    "the method of another class": (
        codex("*** Update File: src/a.py", "@@ class A", "@@ def f", *_METHOD),
        codex("*** Update File: src/a.py", "@@ class B", "@@ def f", *_METHOD),
        "patch",
    ),
    "no arguments": (VIEW, ("str_replace_editor", {}), "empty"),
    "no file": (FIX, ("str_replace_editor", {k: v for k, v in FIX[1].items() if k != "path"}), "incomplete"),
    "an argument by a wrong name": (PYTEST, ("bash", {"script": "python -m pytest"}), "incomplete"),
    "a file of the same name": (FIX, (FIX[0], {**FIX[1], "path": "/w/vendor/proj/foo.py"}), "file"),
    "another case": (FIX, (FIX[0], {**FIX[1], "path": "/w/proj/Foo.py"}), "file"),
    "a view for an edit": (FIX, VIEW, "operation"),
    "a change that is none": (FIX, (FIX[0], {**FIX[1], "new_str": FIX[1]["old_str"]}), "no_op"),
    "a small fix left out": (GTE, edit("str_replace", old_str=BLOCK, new_str=BLOCK + "# done\n"), "new_text"),
    "another value": (
        edit("str_replace", old_str="limit = 1", new_str="limit = 2"),
        edit("str_replace", old_str="limit = 1", new_str="limit = 3"),
        "new_text",
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
        "old_text",
    ),
    "Codex: an empty patch": (PATCH, codex("*** Update File: src/a.py"), "no_op"),
    "lost indentation": (
        LINES,
        ("edit", {**LINES[1], "replacement_text": "return round(value)"}),
        "indentation",
    ),
    "another command": (PYTEST, bash("rm -rf /w/proj/tests/test_a.py -q"), "head"),
    "another command after cd": (bash("cd /w/src/app && ls"), bash("cd /w/src/app && rm"), "head"),
    "no thought": (("think", {"thought": "a"}), ("think", {"x": 1}), "incomplete"),
    "other code": (bash("python -c 'print(f(1))'"), bash("python -c 'print(f(2))'"), "operands"),
    "a substitution": (
        bash('echo "All of the results are here: $(ls)"'),
        bash('echo "All of the results are here: $(rm)"'),
        "operands",
    ),
    "left to run": (bash("python server.py"), bash("python server.py &"), "operators"),
    "a system directory": (bash("ls"), bash("cd /etc && ls"), "operands"),
    "another directory": (bash("cd /w/a && ls"), bash("cd /w/b && ls"), "operands"),
    "one command more": (bash("git add -A"), bash("git add -A && git push"), "head"),
    "another sub-command": (bash("git stash list"), bash("git reset list"), "head"),
    "another pattern of grep": (bash("grep -rn foo src"), bash("grep -rn bar src"), "operands"),
    "a match turned round": (bash("grep -n foo a.py"), bash("grep -nv foo a.py"), "flags"),
    "a flag that acts": (bash("rm a.txt"), bash("rm -rf a.txt"), "flags"),
    "an expression that deletes": (
        bash("find . -name '*.pyc'"),
        bash("find . -name '*.pyc' -delete"),
        "operands",
    ),
    "written in place": (bash("sed -n 's/a/b/p' a.py"), bash("sed -ni 's/a/b/p' a.py"), "flags"),
    "written over": (bash("cat a.py"), bash("cat a.py > b.py"), "redirect"),
    "other lines of sed": (bash("sed -n '10,60p' a.py"), bash("sed -n '900,960p' a.py"), "range"),
    "another here-document": (
        HEREDOC,
        bash("cat > a.py <<'EOF'\nimport sys\nsys.exit(3)\nEOF\npython a.py"),
        "heredoc",
    ),
    "a pipe for a sequence": (bash("echo y; make all"), bash("echo y | make all"), "operators"),
    "another context": (
        edit("str_replace", old_str="def a():\n    return None", new_str="def a():\n    return result"),
        edit("str_replace", old_str="def b():\n    return None", new_str="def b():\n    return result"),
        "old_text",
    ),
    "less of the context": (
        edit("str_replace", old_str="def a():\n    return None", new_str="def a():\n    return result"),
        edit("str_replace", old_str="    return None", new_str="    return result"),
        "old_text",
    ),
    "a context that names two places": (
        FIX,
        edit("str_replace", old_str=2 * FIX[1]["old_str"], new_str=FIX[1]["new_str"] + FIX[1]["old_str"]),
        "old_text",
    ),
    "a patch at another line": (
        ("apply_patch", {"input": "--- a/a.py\n+++ b/a.py\n@@ -3,0 +4,1 @@\n+x = 1\n"}),
        ("apply_patch", {"input": "--- a/a.py\n+++ b/a.py\n@@ -9,0 +10,1 @@\n+x = 1\n"}),
        "patch",
    ),
    "a patch in another function": (
        codex("*** Update File: a.py", "@@ def f", "-    return compute(x)", "+    return None"),
        codex("*** Update File: a.py", "@@ def g", "-    return compute(x)", "+    return None"),
        "patch",
    ),
    "half of a patch": (
        codex(
            "*** Update File: a.py", "@@", "-first = 10", "+first = 30", "@@", "-second = 1", "+second = 2"
        ),
        codex("*** Update File: a.py", "@@", "-first = 10", "+first = 30"),
        "patch",
    ),
    "a variable in front": (PYTEST, bash("A=1 pytest tests/test_a.py"), "variables"),
    "an operator without a command": (bash("ls"), bash("; ls"), "operators"),
    "two operators": (bash("ls &"), bash("ls &;"), "operators"),
    "a path with a space in front": (VIEW, edit("view", " /w/proj/foo.py", view_range=[40, 80]), "file"),
    "as another user": (PYTEST, bash("sudo " + PYTEST[1]["command"]), "head"),
    "an environment first": (bash("make"), bash("source venv/bin/activate && make"), "head"),
    "an output that is counted": (bash("(ls) | wc -l"), bash("(ls -l) | wc -l"), "flags"),
    "a here-document, other spaces": (
        HEREDOC,
        bash(HEREDOC[1]["command"].replace("os.getcwd()", "os.getcwd( )")),
        "heredoc",
    ),
    "what cannot be followed": (bash("a=(1 2) ls"), bash("a=(1  2) ls"), "unreadable"),
    "another tool": (GREP, ("read_file", {"path": "src"}), "name"),
    "an unknown tool's arguments": (
        ("browser", {"url": "http://a"}),
        ("browser", {"url": "http://b"}),
        "arguments",
    ),
}
