"""Random and hostile shell texts: the reader never fails, and swe tells one command from another."""

import random
import shutil
import subprocess

import pytest
from support.fuzzing import cases
from support.shell_commands import HOSTILE, LITERALS, a_command, changed, quoted, spelled

from pivotrl_jax.verifiers.compare import keystrokes
from pivotrl_jax.verifiers.compare.bash import compare
from pivotrl_jax.verifiers.compare.shell import Command, read
from pivotrl_jax.verifiers.compare.steps import script

CASES = cases(600)  # 100,000 of them take four minutes


def same(gold, actual):
    return compare((gold, None), (actual, None), [], True) is None


def test_a_command_equals_its_spellings_and_no_other_command():
    rng = random.Random(7)
    for _ in range(CASES):
        parts = a_command(rng)
        text, again, other = spelled(rng, parts), spelled(rng, parts), spelled(rng, changed(rng, parts))
        assert read(text) is not None, text
        assert same(text, text)
        assert same(text, again), (text, again)
        assert not same(text, other), (text, other)
        assert not same(other, text), (other, text)
        assert not keystrokes.same(text, other), (text, other)


def test_random_texts_are_read_or_equal_only_themselves():
    rng = random.Random(8)
    pieces = [
        *"ab -/.'\"\\$`(){}<>|&;#!*\n0~[]=",
        "EOF",
        "<<EOF",
        "$(",
        "${",
        "case ",
        "do ",
        "\n",
        "&&",
        "2>&1",
    ]
    for _ in range(CASES):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        other = text[: rng.randrange(len(text) + 1)] + rng.choice(pieces)
        assert same(text, text)
        compare((text, None), (other, None), [], True)
        keystrokes.contradiction(text, other)
        assert keystrokes.same(text, text)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash, to which the reader is compared")
def test_words_are_those_that_bash_passes_on():
    rng = random.Random(9)
    lines = [
        " ".join(["p", *(quoted(rng, rng.choice(LITERALS)) for _ in range(rng.randrange(1, 5)))])
        for _ in range(CASES)
    ]
    show = "p() { printf '%s\\037' \"$@\"; printf '\\036'; }\n"
    done = subprocess.run(["bash"], input=show + "\n".join(lines), capture_output=True, text=True, cwd="/")
    printed = done.stdout.split("\036")
    for line, output in zip(lines, printed):
        [command] = [item for item in read(line) if isinstance(item, Command)]
        assert all(word.literal for word in command.words), line
        assert [word.text for word in command.words[1:]] == output.split("\037")[:-1], line
    assert len(printed) == len(lines) + 1


PIECES = [
    "a",
    "b",
    " ",
    "\n",
    ";",
    "&&",
    "||",
    "|",
    "&",
    "(",
    ")",
    "{ ",
    " }",
    ">f",
    "2>f",
    "2>&1",
    "#",
    "'a b'",
]
PIECES += [
    "\\\n",
    '"$x"',
    "if a; then ",
    "; fi",
    "for x in a; do ",
    "; done",
    "$(a b)",
    "<<E\nq\nE\n",
    "A=1 ",
    "! ",
]


def printed(text, path):
    """The text as bash prints what it parsed, without running it; None for a syntax error."""
    path.write_text(text)
    done = subprocess.run(
        ["bash", "--pretty-print", str(path)], capture_output=True, text=True, cwd=path.parent
    )
    return None if done.returncode else done.stdout.replace(";", "\n").split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash, to which the reader is compared")
def test_texts_with_the_same_steps_are_one_text_to_bash(tmp_path):
    rng, checked = random.Random(10), 0
    while checked < CASES // 20:
        text = "".join(rng.choices(PIECES, k=rng.randrange(2, 12)))
        at = rng.randrange(len(text) + 1)
        other = text[:at] + rng.choice([" ", "\n", "\\\n", " #z\n", ";"]) + text[at:]
        if script(text) is not None and script(text) == script(other):
            checked += 1
            assert printed(text, tmp_path / "a") == printed(other, tmp_path / "a"), (text, other)


@pytest.mark.parametrize("size", [2_000, 20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_hostile_texts_equal_only_themselves(size):
    """Nothing raises and nothing hangs; that time is linear in the length was measured apart."""
    for name, piece in HOSTILE.items():
        text = (piece * (size // len(piece) + 1))[:size]
        assert read(text) == read(text), name
        same, other = (text, None), (text + "x", None)
        assert compare(same, same, [], True) is None, name
        assert compare(same, other, [], True) is not None, name
        keystrokes.contradiction(text, text + "x")
