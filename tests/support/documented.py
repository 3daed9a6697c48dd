"""The commands that the README, the docs and the experiments' pages tell people to type."""

import re
import shlex
from pathlib import Path

from support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("experiments/*/README.md"))]
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)  # (language, lines)
_OURS = re.compile(r"(?:python (?:-m pivotrl_jax\.|experiments/|notebooks/)|pivotrl )\S")
_INLINE = re.compile(r"`((?:python -m pivotrl_jax\.|pivotrl )[a-z-][^`]*)`")


def commands(page: Path) -> list[list[str]]:
    """The words of each command of this project in the page's blocks, in order; comments, redirections and
    what a shell does with them are left out."""
    found = []
    for language, block in _BLOCK.findall(page.read_text("utf-8")):
        for line in [] if language else block.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| ", line.strip()):
                if _OURS.match(part):
                    words = shlex.split(part.partition(" < ")[0], comments=True)
                    found.append([w for w in words if w != "&"])
    return found


def inline_commands(page: Path) -> list[list[str]]:
    """The words of each command in the page's tables and sentences; those with a place for something are left
    out."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    found = (shlex.split(" ".join(part.split()).partition(" < ")[0]) for part in _INLINE.findall(text))
    return [words for words in found if not any(word.isupper() for word in words)]


def program_of(words: list[str]) -> str:
    """The file or folder of a command's program, from the root: "pivotrl_jax/train.py"."""
    if words[0] == "pivotrl":
        name = "pivotrl_jax" if words[1].startswith("--") else f"pivotrl_jax.{words[1]}"
    elif words[1] == "-m":
        name = words[2]
    else:
        return words[1]
    file = name.replace(".", "/")
    return file if (ROOT / file).is_dir() else f"{file}.py"


def flags_of(words: list[str]) -> dict[str, str]:
    """Flag -> its value; "" for a switch."""
    pairs = (word[2:].partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in pairs}
