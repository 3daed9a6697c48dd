"""Paths, and shell text read as commands."""

import pytest

from pivotrl_jax.verifiers.compare.paths import same_path
from pivotrl_jax.verifiers.compare.shell import commands, heads


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
