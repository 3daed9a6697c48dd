"""Paths, and shell text read as commands."""

import pytest

from pivotrl_jax.verifiers.compare.flags import sort_flags
from pivotrl_jax.verifiers.compare.paths import Lines, known_directory, same_lines, same_path
from pivotrl_jax.verifiers.compare.shell import Command, read
from pivotrl_jax.verifiers.compare.steps import script


def test_paths():
    assert same_path("foo.py", "/w/proj/foo.py") and same_path("/w/proj/foo.py", "proj/foo.py")
    assert same_path("./a//b/", "a/b") and same_path("a/../b", "b")
    for other in ("/w/proj/Foo.py", "/x/proj/foo.py", "oo.py", "", ".", "/"):
        assert not same_path("/w/proj/foo.py", other)
    assert not same_path("foo.py", "src/foo.py") and not same_path("passwd", "/etc/passwd")


def test_lines_are_all_seen_and_at_most_as_many_again():
    assert same_lines(Lines(40, 80), Lines(35, 90)) and same_lines(Lines(50, None), Lines(45, None))
    for other in (Lines(41, 80), Lines(40, 79), Lines(1, 100), Lines(1, None)):
        assert not same_lines(Lines(40, 80), other)


def test_the_directory_is_known_from_what_was_said_or_done():
    ran = {"function": {"name": "bash", "arguments": {"command": "cd /w/a && ls"}}}
    assert known_directory([{"role": "assistant", "content": "", "tool_calls": [ran]}]) == "/w/a"
    assert known_directory([{"role": "tool", "content": "(Current directory: /w/b)\nbash-$"}]) == "/w/b"
    other = {"function": {"name": "bash", "arguments": {"command": "cd src; ls"}}}
    assert known_directory([{"role": "assistant", "content": "", "tool_calls": [ran, other]}]) is None
    assert known_directory([]) is None


def forms(text):
    """The words of the first command; their forms."""
    return [word.form for word in next(item for item in read(text) if isinstance(item, Command)).words]


@pytest.mark.parametrize(
    "one, other",
    [
        ("'a b'", '"a b"'),
        ("a\\ b", "a' 'b"),
        ('"$x"', '"${x}"'),
        ('"a$x"', 'a"$x"'),
        ("a\\\nb", "ab"),
        ("'foo$'", "foo$"),
        ('"a\\"b"', "'a\"b'"),
        ("x 'if'", "x if"),
        ('"it\'s"', "it\\'s"),
        ("echo a # b", "echo a"),
    ],
)
def test_words_that_mean_the_same_have_one_form(one, other):
    assert forms(one) == forms(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("'$x'", '"$x"'),
        ("$x", '"$x"'),
        ("*.py", "'*.py'"),
        ("[a-z]", "[a'-'z]"),
        ("{a,b}", "{a','b}"),
        ("~/a", "'~'/a"),
        ("A=1", "'A=1'"),
        ("if", "'if'"),
        ("$(ls)", "'$(ls)'"),
        ('"$(a  b)"', '"$(a b)"'),
        ("[[ $a =~ a.c ]]", "[[ $a =~ 'a.c' ]]"),
        ("$'a\\tb'", "'a\\tb'"),
        ("a#b", "a #b"),
        ("a ''", "a"),
        ('"!x"', "'!x'"),
    ],
)
def test_words_that_mean_something_else_have_other_forms(one, other):
    assert forms(one) != forms(other)


def test_what_a_command_holds():
    [cat, pipe, wc, _] = read("A=1 cat 'a b' <<EOF | wc -l > n.txt\nx\nEOF")
    assert [word.text for word in cat.words] == ["A=1", "cat", "a b"]
    assert (cat.redirects[0].target.text, pipe) == ("x", "|")
    assert [(r.operator, r.target.text) for r in wc.redirects] == [(">", "n.txt")]


@pytest.mark.parametrize(
    "text, content",
    [
        ("cat <<'EOF'\n$x\nEOF", "\n=$x"),
        ("cat <<EOF\n$x\nEOF", "\n$$x"),
        ("cat <<EOF\nx\nEOF", "\n=x"),
        ("cat <<-EOF\n\tx\n\tEOF\n", "\n=x"),
        ("cat <<EOF\nx", "\n...x"),
        ("cat <<A <<'B'\n1\nA\n2\nB\n", "\n=1"),
    ],
)
def test_here_documents(text, content):
    [command, *_] = read(text)
    assert command.redirects[0].target.form == content


def test_a_substitution_ends_where_the_shell_ends_it():
    text = "git commit -m \"$(cat <<'EOF'\nfix: don't ) stop\nEOF\n)\" && ls"
    assert [item if isinstance(item, str) else len(item.words) for item in read(text)] == [4, "&&", 1]


@pytest.mark.parametrize(
    "text",
    [
        "echo 'open",
        'echo "$(ls',
        "a=(1 2)",
        "((i++))",
        "x 3<<E\na\nE",
        "echo ${a:-${b}}",
        "x >",
        "`",
        "$(case x in a) ls;; esac)",
    ],
)
def test_what_cannot_be_followed_is_not_read(text):
    assert read(text) is None


@pytest.mark.parametrize(
    "text, names",
    [
        ("cd /w && timeout 5 python3 -m pytest -q 2>&1 | tail -3", ["cd", "pytest", "tail"]),
        ("cat <<'EOF' > a.py\nrm -rf /; x\nEOF\npython a.py", ["cat", "python"]),
        ("for f in a b; do rm $f; done", ["for", "rm", "done"]),
        ('(cd a; ls) && echo "a; b | c" # d; e', ["cd", "ls", "echo"]),
        ("case $x in a) ls;; esac", ["case", "ls", "esac"]),
        ("[[ -f a ]] && /usr/bin/git status", ["[[", "git"]),
        ("bash -lc 'timeout 5 make all'", ["make"]),
        ("sudo make", ["sudo"]),
        ("/opt/bin/python a.py", ["/opt/bin/python"]),
        ("python2 a.py; python3.8 a.py", ["python2", "python3.8"]),
        ("egrep a b", ["grep"]),
        ("", []),
    ],
)
def test_steps(text, names):
    assert [step.name for step in script(text).steps] == names


def test_flags_are_sorted_where_that_is_certain():
    assert sort_flags("ls", ["-la", "src"]) == sort_flags("ls", ["src", "-a", "-l"])
    assert sort_flags("head", ["-20", "f"]) == sort_flags("head", ["f", "--lines=20"])
    assert sort_flags("grep", ["-A", "3", "x"]) == sort_flags("grep", ["x", "-A3"])
    assert sort_flags("sed", ["-in", "x"]) is None  # the suffix n, not the flag -n
    assert sort_flags("rm", ["-f", "-i", "a"]) is None  # the last one decides
    assert sort_flags("sort", ["-k1", "-k2"]) is None  # the order of keys counts
    assert sort_flags("ls", ["-y"]) is None and sort_flags("unknown", []) is None
    assert sort_flags("rm", ["--", "-r"]).operands == ("-r",)
