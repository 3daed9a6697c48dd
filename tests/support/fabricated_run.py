"""A run's work directory that no run wrote, and its report's page taken apart."""

import dataclasses
import html.parser
import json
import random
from pathlib import Path

from pivotrl_jax import records
from pivotrl_jax.records import Candidate, Pivot, Profile, Rollout

HOSTILE = (
    "<script>alert(1)</script>",
    "</details></script></style></svg><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'y\' `',
    "NUL\x00 lone\ud800 low\udfff bell\x07 \u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u2028 &lt;b&gt; "
    "--><!-- ]]>",
    '$\\frac{x}{y}$ $unclosed #010203 url(#x) id="axes_1"',
)


def write_lines(path: Path, records) -> None:
    """Records as JSON lines in ASCII, so that a lone surrogate arrives as it would from a model's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(dataclasses.asdict(r)) + "\n" for r in records))


def build_workdir(
    root: Path, candidates=40, group=8, steps=30, word=lambda i: f"word {i}", long=0, seed=0
) -> Path:
    """A synthetic run; `word(i)` supplies every free text, `long` pads the texts that can be long."""
    rng = random.Random(seed)
    # Random words rather than one repeated, because equal actions are merged.
    pad = lambda: "".join(rng.choice('abcde <>&"{}:,') for _ in range(long))  # noqa: E731
    made, profiles, pivots, rollouts = [], [], [], []
    for i in range(candidates):
        is_call = i % 4 != 3
        call = {
            "function": {
                "name": f"add_event{word(0)}",
                "arguments": {"title": word(i) + pad(), "hour": i % 24},
            }
        }
        demonstration = {"role": "assistant", "content": "" if is_call else word(i)}
        if is_call:
            demonstration["tool_calls"] = [{"id": "call_0", "type": "function", **call}]
        messages = [
            {"role": "system", "content": "You have tools." + pad()},
            {"role": "user", "content": f"Please put {word(i)} into my calendar." + pad()},
            demonstration,
            {
                "role": "tool",
                "tool_call_id": "call_0",
                "name": "add_event",
                "content": json.dumps({"ok": word(i)}),
            },
            {"role": word(1), "content": "And tomorrow?"},
        ]
        name = f"toolbox_train_0_{i}@{word(2)}"
        candidate = Candidate(
            name, f"t{i}", i % 5, messages, [], demonstration, "bfcl_multi_turn", {}, f"s{i}"
        )
        skill = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        rewards = [float(rng.random() < skill) for _ in range(group)]
        mean = sum(rewards) / group
        profile = Profile(
            name, rewards, mean, mean * (1 - mean), is_call, "abc123", f"{word(3)}/1", temperature=1.0, seed=0
        )
        made.append(candidate)
        profiles.append(profile)
        if 0 < mean < 0.6 or long:
            pivots.append(Pivot(candidate, profile))
        rollouts += [
            Rollout(
                name, k, [1, 2], [-0.1, -0.2], [-0.1, -0.2], k != 3,
                f'<tool_call>\n{{"name": "add_event", "arguments": {{"title": "{word(i)}", "hour": {k}}}}}\n'
                f"</tool_call>{pad()}",
                rewards[k], "ok" if rewards[k] else word(4),
                "" if rewards[k] else f"calendar.hour: {word(i)}" + pad(),
            )
            for k in range(group)
        ]  # fmt: skip
    write_lines(root / "candidates.jsonl", made)
    write_lines(root / "profiles.jsonl", profiles)
    write_lines(root / "pivots.jsonl", pivots)
    write_lines(root / "rollouts" / "profile.jsonl", rollouts)
    lines = [
        {"step": s, "reward_mean": 0.4 + 0.3 * s / steps + rng.gauss(0, 0.04),
         "group_reward_std": 0.4 + rng.gauss(0, 0.02), "loss": rng.gauss(0, 0.02), "kl": 0.001 * s,
         "grad_norm": 1 + rng.random(), "clip_fraction": 0.01 * rng.random(), "tokens": 4000, "seconds": 2.0}
        for s in range(steps)
    ]  # fmt: skip
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "evaluation.json").write_text(json.dumps(evaluation(word)))
    (root / "run.json").write_text(json.dumps(run(word)))
    return root


def add_resampled(root: Path, reason="ok", method: str | None = None) -> list[tuple[Profile, Profile]]:
    """Let the final policy have sampled every pivot of a made-up run again. Returns the profiles before and
    after: a third each rises to all pass, falls to all fail, and stays."""
    pivots, pairs, rollouts = records.read_records(root / "pivots.jsonl", Pivot), [], []
    for i, pivot in enumerate(pivots):
        before = pivot.profile
        size = len(before.rewards)
        rewards = ([1.0] * size, [0.0] * size, list(before.rewards))[i % 3]
        mean = sum(rewards) / size
        after = dataclasses.replace(
            before, rewards=rewards, mean=mean, variance=mean * (1 - mean), policy="final"
        )
        pairs.append((before, after))
        rollouts += [
            Rollout(
                before.candidate_id, k, [1], [0.0], [0.0], True, f"after {i} {k % 2}", reward,
                reason if reward else "later fault",
            )
            for k, reward in enumerate(rewards)
        ]  # fmt: skip
    write_lines(root / "resampled" / "profiles.jsonl", [after for _, after in pairs])
    write_lines(root / "resampled" / "rollouts" / "00000.jsonl", rollouts)
    page = json.loads((root / "run.json").read_text())
    page["resampled"] = {"pivots": len(pairs)}
    page["config"] |= {"method": method} if method else {}
    (root / "run.json").write_text(json.dumps(page))
    return pairs


def evaluation(word) -> dict:
    def rate(value, width, n):
        return {"value": value, "low": value - width, "high": value + width, "n": n}

    families = ("addition", "reversal", "capitals", f"facts {word(1)}")
    sides = {
        side: {
            "episode_success": rate(0.3 + gain, 0.06, 240),
            "call_turn_pass": rate(0.47 + gain, 0.03, 900),
            "text_turn_pass": rate(0.9, 0.02, 300),
            "out_of_domain": rate(0.8, 0.03, 480),
            "families": {name: rate(0.7 + 0.05 * i, 0.07, 120) for i, name in enumerate(families)},
        }
        for side, gain in (("before", 0.0), ("after", 0.18))
    }
    difference = {
        "episode_success": {"value": 0.18, "low": 0.11, "high": 0.25},
        "call_turn_pass": {"value": 0.18, "low": 0.15, "high": 0.21},
        "text_turn_pass": {"value": 0.0, "low": -0.02, "high": 0.02},
        "out_of_domain": {"value": -0.005, "low": -0.02, "high": 0.01},
    }
    return {**sides, "difference": difference}


def run(word) -> dict:
    return {
        "config": {
            "name": f"bfcl {word(0)}",
            "profile": {"lambda_diff": 0.6, "group_size": 8},
            "note": word(1),
        },
        "model": f"tiny Qwen3-MoE {word(2)}",
        "policy": f"abc123{word(3)}",
        "versions": {"jax": "0.10.2", f"flax{word(1)}": word(2)},
        "seconds": {"profile": 61.0, "train": 130.5, f"evaluate {word(0)}": 42.0, "export": 1.2},
        "counts": {f"rollout turns {word(4)}": 320},
        "table": [["candidates", "40"], [f"pivots {word(2)}", word(3)]],
    }


class Outline(html.parser.HTMLParser):
    """Elements with attributes, outside and inside plots, and all text."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.outside, self.inside, self.text, self.svg, self.comments = [], [], [], 0, []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.svg += tag == "svg"
        (self.inside if self.svg else self.outside).append((tag, attrs))

    def handle_startendtag(self, tag, attrs):  # in SVG
        (self.inside if self.svg else self.outside).append((tag, attrs))

    def handle_endtag(self, tag):
        self.svg -= tag == "svg"
        if not self.svg:
            self.outside.append(("/" + tag, []))

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.comments.append(data)


def data_in(source: str) -> dict:
    """The block of JSON in a page."""
    return json.loads(
        source.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    )


FIELDS = (
    "id",
    "tool",
    "outcome",
    "mean",
    "turn",
    "call",
    "marks",
    "reasons",
    "gist",
    "after",
    "file",
    "place",
)


def rows_of(index: dict) -> list[dict]:
    """The rows of an index, with names in the place of their numbers."""
    rows = [dict(zip(FIELDS, row, strict=True)) for row in index["rows"]]
    for row in rows:
        row["tool"], row["outcome"] = index["tools"][row["tool"]], index["outcomes"][row["outcome"]]
        row["reasons"] = [index["reasons"][i] for i in row["reasons"]]
    return rows
