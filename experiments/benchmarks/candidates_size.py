"""Time, memory and disk of the program `candidates`: `python experiments/benchmarks/candidates_size.py`

Writes made-up chat rows into a temporary folder and runs the program on them in a process of its own, token
counts by the embedded tokenizer included. Prints one JSON line per set: `small` has 100 trajectories (5 MB),
`large` has 5,000 (100,000 candidates, 250 MB). A trajectory has a system message that all share, a task, and
20 turns of a call and its result; all calls differ. Targets for `large`: 180 s on two cores, 2 GiB, and twice
the input on disk. No JAX.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 20
SETS = {"small": 100, "large": 5000}  # trajectories
TOOLS = ("read_file", "edit_file", "run_tests", "search", "list_folder", "commit", "open_page", "submit")


def pool(rng: random.Random, characters: int = 1 << 21) -> str:
    """Made-up prose and code to cut texts from."""
    syllables = "ba re to ni sel mor ing con ter ti on ex per ply vol der est ran gle fur".split()
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3000)]
    ends = [" "] * 12 + [", ", ". ", "\n", "(", ") ", "_", " = ", "/", ".py\n", " 17 "]
    text, size = [], 0
    while size < characters:
        text += [rng.choice(words), rng.choice(ends)]
        size += len(text[-1]) + len(text[-2])
    return "".join(text)


def row(rng: random.Random, text: str, system: str, tools: list[dict]) -> dict:
    """One trajectory."""

    def some(length: int) -> str:
        start = rng.randrange(len(text) - 2 * length)
        return text[start : start + rng.randint(length // 2, 3 * length // 2)]

    messages = [{"role": "system", "content": system}, {"role": "user", "content": some(1500)}]
    for turn in range(TURNS):
        function = {"name": rng.choice(TOOLS), "arguments": json.dumps({"text": some(150), "at": turn})}
        call = {"id": f"call_{turn}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": some(150), "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": some(1800)})
    return {"messages": messages, "tools": tools}


def write(path: Path, trajectories: int) -> None:
    """The rows of a set, the same for every run."""
    rng = random.Random(0)
    text = pool(rng)
    properties = {"text": {"type": "string", "description": text[:100]}, "at": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties, "required": ["text"]}
    tools = [
        {"type": "function", "function": {"name": n, "description": text[100:250], "parameters": parameters}}
        for n in TOOLS
    ]
    with path.open("w", encoding="utf-8") as f:
        for _ in range(trajectories):
            f.write(json.dumps(row(rng, text, text[250:1750], tools)) + "\n")


def measure(name: str, folder: Path) -> dict:
    """Run the program on a set."""
    rows, out = folder / f"{name}.jsonl", folder / f"{name}_candidates.jsonl"
    write(rows, SETS[name])
    command = [sys.executable, "-m", "pivotrl_jax.candidates", str(rows), f"--out={out}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "set": name,
        "said": done.stdout.splitlines()[-1].replace(str(out), out.name),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": after.ru_maxrss // 1024,  # of the largest child so far, so the sets go by size
        "input_mb": round(rows.stat().st_size / 1e6, 1),
        "output_mb": round(out.stat().st_size / 1e6, 1),
        "output_to_input": round(out.stat().st_size / rows.stat().st_size, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    sets = parser.parse_args().sets
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(sets, key=SETS.__getitem__):
            print(json.dumps(measure(name, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
