"""The pretraining corpus: `python experiments/tiny_checkpoint/corpus.py --phase=copy --tokens=250000
--out=copy.npz`.

There are three phases, in the order they are learned: "copy" (pure copying, nothing else), "calls"
(induction, single calls with one or two functions, skills) and "episodes" (whole conversations about invented
services, a little of the toolbox world, skills, induction). Everything is chat, rendered as by the
checkpoint's template (`render` is a fast equivalent of chat_template.jinja; a test compares the two). Only
what the assistant says is trained, with its stop token.

Left out: packing into rows; pretrain.py does that.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import generic
import numpy as np
import words as language
from tokenizers import Tokenizer

from pivotrl_jax.environments import toolbox
from pivotrl_jax.evaluation import skills

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "pivotrl_jax/assets/tiny"
BATCH = 256

Example = tuple[list[dict], list[dict]]  # messages, tool docs


# --- text ---


def signature(doc: dict) -> str:
    """One line of `<tools>`."""
    doc = doc.get("function", doc)
    schema = doc.get("parameters") or {}
    required = schema.get("required") or []
    parts = []
    for key, field in (schema.get("properties") or {}).items():
        optional = "" if key in required or "default" in field else "?"
        kind = "|".join(map(str, field["enum"])) if field.get("enum") else field.get("type") or "any"
        default = f" = {json.dumps(field['default'], ensure_ascii=False)}" if "default" in field else ""
        parts.append(f"{key}{optional}: {kind}{default}")
    described = f" # {doc['description']}" if doc.get("description") else ""
    return f"{doc['name']}({', '.join(parts)}){described}"


def render(messages: list[dict], tools: list[dict]) -> str:
    """A trajectory as chat_template.jinja renders it, for messages without reasoning."""
    out = []
    if tools:
        out.append("<|im_start|>system\n")
        if messages[0]["role"] == "system":
            out.append(messages[0]["content"] + "\n\n")
        out.append("<tools>\n" + "\n".join(map(signature, tools)) + "\n</tools><|im_end|>\n")
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            if i == 0 or messages[i - 1]["role"] != "tool":
                out.append("<|im_start|>user")
            out.append(f"\n<tool_response>\n{content}\n</tool_response>")
            if i + 1 == len(messages) or messages[i + 1]["role"] != "tool":
                out.append("<|im_end|>\n")
            continue
        if role == "system" and i == 0 and tools:
            continue
        blocks = [content] if content else []
        for call in message.get("tool_calls") or []:
            call = call.get("function", call)
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            blocks.append(
                f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {arguments}}}\n</tool_call>'
            )
        out.append(f"<|im_start|>{role}\n" + "\n".join(blocks) + "<|im_end|>\n")
    return "".join(out)


def chat(question: str, answer: str) -> Example:
    """One question, one answer, no tools."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], []


# --- kinds of examples ---


def copying(rng: random.Random, words: list[str]) -> Example:
    """For pure copying: repeat a list of quoted words, or put its first word into JSON."""
    chosen = rng.sample(words, rng.randint(2, 12))
    listed = " ".join(f'"{w}"' for w in chosen)
    return chat(listed, listed if rng.random() < 0.75 else json.dumps({"name": chosen[0]}))


def induction(rng: random.Random, words: list[str]) -> Example:
    """Find earlier text by what stood next to it."""
    kind = rng.randrange(5)
    chosen = rng.sample(words, 12)
    n = rng.randint(2, 6)
    if kind == 0:  # a dictionary and a key
        table = dict(zip(chosen[:n], chosen[6 : 6 + n]))
        key = rng.choice(list(table))
        return chat(f"{json.dumps(table)}\n{key}", json.dumps({key: table[key]}))
    if kind == 1:  # continue a list from a word in it
        start = rng.randrange(5)
        return chat(f"{' '.join(chosen[:10])}\nfrom {chosen[start]}", " ".join(chosen[start:10]))
    if kind == 2:  # objects with ids
        numbers = rng.sample(range(1, 99), n)
        rows = [{"id": i, "name": w} for i, w in zip(numbers, chosen)]
        at = rng.randrange(n)
        if rng.random() < 0.5:
            return chat(f"{json.dumps(rows)}\n{chosen[at]}", json.dumps({"id": numbers[at]}))
        return chat(f"{json.dumps(rows)}\nid {numbers[at]}", json.dumps({"name": chosen[at]}))
    if kind == 3:  # tool lines: which name has this description
        lines = [f"{a}_{b}() # {c} {d}" for a, b, c, d in zip(*[iter(chosen)] * 4)]
        at = rng.randrange(3)
        a, b, c, d = chosen[4 * at : 4 * at + 4]
        return chat("\n".join(lines) + f"\nwhich tool can {c} {d}?", f"{a}_{b}")
    parts = [f"{a} {b}" for a, b in zip(chosen[:n], chosen[6 : 6 + n])]  # key value pairs -> JSON
    return chat(" and ".join(parts), json.dumps(dict(zip(chosen[:n], chosen[6 : 6 + n]))))


class Skills:
    """Skill items of the pretraining split, drawn in blocks. Families that need memorising get a larger
    share."""

    weights = {"facts": 2.0, "add": 2.0, "subtract": 2.0, "sort": 1.5}

    def __init__(self, seed: int):
        self.seed, self.block, self.waiting = seed, 0, {}

    def __call__(self, rng: random.Random) -> Example:
        families = skills.families()
        family = rng.choices(families, [self.weights.get(f, 1.0) for f in families])[0]
        if not self.waiting.get(family):
            self.block += 1
            made = skills.items(family, "pretrain", 200, self.seed * 1_000_003 + self.block)
            self.waiting[family] = made
        item = self.waiting[family].pop()
        return [*item.messages, {"role": "assistant", "content": item.answer}], []


class Toolbox:
    """Trajectories of the toolbox world's pretraining tasks, generated in blocks."""

    def __init__(self, seed: int):
        self.seed, self.block, self.waiting = seed, 0, []

    def __call__(self) -> Example:
        if not self.waiting:
            self.block += 1
            tasks = toolbox.tasks("pretrain", 64, self.seed * 1_000_003 + self.block)
            self.waiting = [toolbox.demonstrate(task) for task in tasks]
        trajectory = self.waiting.pop()
        return trajectory.messages, trajectory.tools


def value_pool() -> list[str]:
    """Values for generic services. None of them occurs in the toolbox's train or test rows or has another
    meaning in the language."""
    from pivotrl_jax.environments.toolbox import values

    taken = held_values() | (language.all_words() - set(language.VALUES))
    shared = {w for words in values.WORDS.values() for w in words["pretrain"]}
    return sorted({*language.VALUES, *skills.WORDS, *shared} - taken)


def held_values() -> set[str]:
    """Values of the toolbox's train and test rows, which pretraining shows only in pure copying."""
    from pivotrl_jax.environments.toolbox import values

    return {w for words in values.WORDS.values() for split in ("train", "test") for w in words[split]}


def all_words() -> list[str]:
    """Every word of the project's small language, including toolbox values, for pure copying."""
    from pivotrl_jax.environments.toolbox import all_words as toolbox_words

    return sorted(skills.all_words() | language.all_words() | set(toolbox_words()))


# Phase -> kind -> share of all tokens (not of examples: a skill item is much shorter than an episode).
SHARES = {
    "copy": {"copying": 1.0},
    "calls": {"copying": 0.10, "induction": 0.30, "single_call": 0.35, "skill": 0.25},
    "episodes": {"episode": 0.42, "toolbox": 0.25, "induction": 0.10, "skill": 0.20, "copying": 0.03},
}
MEAN_TOKENS = {"copying": 38, "induction": 46, "single_call": 93, "skill": 26, "episode": 476, "toolbox": 576}
PHASES = tuple(SHARES)
LONGEST = 1000  # longer conversations (about one in ten thousand) are left out


def makers(seed: int) -> dict[str, Callable[[random.Random], Example]]:
    """Kind -> generator."""
    words, pool = all_words(), value_pool()
    toolbox = Toolbox(seed)
    return {
        "copying": lambda rng: copying(rng, words),
        "induction": lambda rng: induction(rng, pool),
        "single_call": lambda rng: generic.single_call(rng, pool),
        "skill": Skills(seed),
        "episode": lambda rng: generic.episode(rng, pool),
        "toolbox": lambda rng: toolbox(),
    }


# --- tokens ---


def trained_mask(ids: np.ndarray, start: int, assistant: int, stop: int) -> np.ndarray:
    """True for the tokens after each `<|im_start|>assistant\\n`, up to and including its `<|im_end|>`."""
    mask = np.zeros(len(ids), bool)
    stops = np.flatnonzero(ids == stop)
    for at in np.flatnonzero(ids[:-2] == start):
        if ids[at + 1] == assistant:
            end = stops[np.searchsorted(stops, at)]
            mask[at + 3 : end + 1] = True
    return mask


def batches(phase: str, seed: int) -> Iterator[list[tuple[str, np.ndarray, np.ndarray]]]:
    """Endless blocks of (kind, ids uint16 [n], trained bool [n]). Raises ValueError for an unknown phase."""
    tokenizer = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    marks = [tokenizer.token_to_id(t) for t in ("<|im_start|>", "assistant", "<|im_end|>")]
    if phase not in SHARES:
        raise ValueError(f"phase {phase!r} does not exist; choose one of {', '.join(SHARES)}")
    rng = random.Random(f"corpus/{phase}/{seed}")
    make = makers(seed)
    kinds = list(SHARES[phase])
    weights = [SHARES[phase][kind] / MEAN_TOKENS[kind] for kind in kinds]
    while True:
        chosen = rng.choices(kinds, weights, k=BATCH)
        encoded = tokenizer.encode_batch_fast([render(*make[kind](rng)) for kind in chosen])
        found = [
            (kind, np.array(e.ids, np.uint16)) for kind, e in zip(chosen, encoded) if len(e.ids) <= LONGEST
        ]
        yield [(kind, ids, trained_mask(ids, *marks)) for kind, ids in found]


def examples(phase: str, seed: int) -> Iterator[tuple[list[int], list[bool]]]:
    """Endless (ids, trained), one conversation each; the same seed gives the same conversations."""
    for block in batches(phase, seed):
        for _, ids, mask in block:
            yield ids.tolist(), mask.tolist()


def write(phase: str, tokens: int, seed: int, path: str | Path) -> dict[str, dict[str, int]]:
    """Write at least `tokens` tokens to an .npz: `ids` uint16 [T], `mask` bool [T], `offsets` int64 [N + 1].

    Example i is `ids[offsets[i]:offsets[i + 1]]`. Returns examples, tokens and trained tokens by kind.
    """
    made: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    counts: dict[str, dict[str, int]] = {}
    total = 0
    for block in batches(phase, seed):
        for kind, ids, mask in block:
            if total >= tokens:
                break
            made.append(ids)
            masks.append(mask)
            total += len(ids)
            of = counts.setdefault(kind, {"examples": 0, "tokens": 0, "trained": 0, "longest": 0})
            of["examples"] += 1
            of["tokens"] += len(ids)
            of["trained"] += int(mask.sum())
            of["longest"] = max(of["longest"], len(ids))
        if total >= tokens:
            break
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum([0, *map(len, made)], dtype=np.int64)
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez(temporary, ids=np.concatenate(made), mask=np.concatenate(masks), offsets=offsets)
    os.replace(temporary, path)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase", choices=PHASES, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    began = time.perf_counter()
    report = write(arguments.phase, arguments.tokens, arguments.seed, arguments.out)
    seconds = time.perf_counter() - began
    for kind, of in report.items():
        mean, share = of["tokens"] / of["examples"], of["trained"] / of["tokens"]
        print(
            f"{kind:12s} {of['examples']:8d} examples of {mean:5.1f} tokens "
            f"({of['longest']} at most), {share:.0%} trained"
        )
    total = sum(of["tokens"] for of in report.values())
    print(f"{total} tokens, {total / seconds:,.0f} tokens/s -> {arguments.out}")
