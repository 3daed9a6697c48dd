"""How much one must read to add a verifier, a reader, ...: `python experiments/reading_cost.py`

docs/extending.md has a section for each kind, with a line "Read: `file`, `file`". This script counts the
lines of these files and prints them beside the goal and beside the lines that the same task took before
there were contracts. It exits with status 1 when a goal is missed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"

# kind -> (lines before, goal). "Before" counts one verifier's or reader's module, or all files that such a
# change went through.
KINDS = {
    "verifier": (243, 60),
    "reader": (402, 120),
    "environment": (1111, 150),
    "loss": (315, 140),
    "model family": (1334, 300),
    "method": (553, 150),
}


def files_of(page: str) -> dict[str, list[str]]:
    """Kind -> the files that its section lists to read."""
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0].strip()
        kind = re.sub(r"^an? ", "", heading, flags=re.IGNORECASE)
        read = re.search(r"^Read: (.*?)\n\n", section, re.MULTILINE | re.DOTALL)
        if kind in KINDS and read:
            found[kind] = re.findall(r"`([^`]+)`", read[1])
    return found


def lines_of(name: str, root: Path = ROOT) -> int:
    return len((root / name).read_text("utf-8").splitlines())


def main(page: Path = PAGE) -> int:
    """Print the table. Returns 1 when a goal is missed or a kind has no section, else 0."""
    named, missed = files_of(page.read_text("utf-8")), 0
    print(f"{'to add a':14} {'before':>6} {'now':>6} {'goal':>6}")
    for kind, (before, goal) in KINDS.items():
        now = sum(map(lines_of, named[kind])) if kind in named else None
        met = now is not None and now <= goal
        missed += not met
        shown = "-" if now is None else now
        files = " ".join(named.get(kind, ["no section with files to read"]))
        print(f"{kind:14} {before:>6} {shown:>6} {goal:>6}  {'' if met else 'MISSED  '}{files}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
