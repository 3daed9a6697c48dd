"""Claims about `pivotrl_jax.report`: what the page shows, that data stays text, and that it stays small."""

import dataclasses
import html.parser
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pivotrl_jax import records
from pivotrl_jax.pivots import changes
from pivotrl_jax.pivots.selection import OUTCOMES, mean_and_variance
from pivotrl_jax.records import Candidate, InputError, Pivot, Profile, Rollout
from pivotrl_jax.report import candidates, inputs, page, plots, report, style

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
    path.parent.mkdir(exist_ok=True)
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    workdir = build_workdir(tmp_path_factory.mktemp("plain"))
    return report.write_report(workdir).read_text(encoding="utf-8")


def test_hostile_text_makes_no_element_and_no_attribute(plain, tmp_path):
    hostile = report.write_report(build_workdir(tmp_path, word=lambda i: HOSTILE[i % len(HOSTILE)]))
    source = hostile.read_bytes().decode("utf-8")  # strict: no lone surrogate was written
    got, want = Outline(source), Outline(plain)

    own = lambda elements: [e for e in elements if e not in (("i", [("class", "cut")]), ("/i", []))]  # noqa: E731
    assert own(got.outside) == own(want.outside)  # same elements, attributes and closings, in the same order
    assert {tag for tag, _ in got.inside} == {tag for tag, _ in want.inside}
    assert {name for _, attrs in got.inside for name, _ in attrs} == {
        name for _, attrs in want.inside for name, _ in attrs
    }
    assert got.comments == want.comments == []
    assert not re.search("[\x00\x07\u202e\u2028]", source)
    words = "".join(got.text)
    for string in HOSTILE:  # and nothing was dropped: every string is there to be read
        assert page.visible(string) in words
    assert r"NUL\u0000 lone\ud800 low\udfff bell\u0007 \u202eevil\u202c שלום \u2028 &lt;b&gt;" in words


def test_the_page_is_self_contained(plain):
    assert Outline(plain).outside.count(("script", [])) == 1
    for tag, attrs in Outline(plain).outside + Outline(plain).inside:
        for name, value in attrs:
            assert name not in ("src", "href", "srcset", "action", "background") or value.startswith("#"), (
                tag,
                name,
            )
            assert not name.startswith("on")
            assert name != "xlink:href" or value.startswith("#")
    assert not re.search(r"@import|url\((?!#)", plain)


def test_plots_take_their_colours_from_the_page(plain):
    drawn = re.findall(r"<svg.*?</svg>", plain, re.DOTALL)
    assert len(drawn) == 6 + 2 + 2 + 1  # training, profiles, before and after, time
    for svg in drawn:
        colours = re.findall(r"(?:fill|stroke): *(#\w+|var\(--\w+\))", svg)
        assert "var(--ink)" in colours or "var(--muted)" in colours
        assert [c for c in colours if c.startswith("#")] == []


def test_no_two_elements_share_an_id(plain):
    outline = Outline(plain)
    ids = [value for _, attrs in outline.outside + outline.inside for name, value in attrs if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_plot_has_its_target(plain):
    for svg in re.findall(r"<svg.*?</svg>", plain, re.DOTALL):
        assert set(re.findall(r'(?:href="|url\()#(\w+)', svg)) <= set(re.findall(r'id="(\w+)"', svg))


def test_verdict_calls_a_change_only_what_lies_off_zero():
    sentence, state = report.verdict(evaluation(str))
    assert state == "good"
    assert sentence == (
        "Training raised episode success by 18.0 points (+11.0 to +25.0) and call-turn pass rate by 18.0 "
        "points (+15.0 to +21.0); it did not clearly change text-turn pass rate (−2.0 to +2.0) and "
        "out-of-domain accuracy (−2.0 to +1.0)."
    )

    harmed = evaluation(str)
    harmed["difference"]["out_of_domain"] = {"value": -0.1, "low": -0.15, "high": -0.05}
    sentence, state = report.verdict(harmed)
    assert state == "bad" and "it lowered out-of-domain accuracy by 10.0 points (−15.0 to −5.0);" in sentence
    flat = evaluation(str)
    for entry in flat["difference"].values():
        entry.update(low=-0.1, high=0.3)
    assert report.verdict(flat)[1] == "open"
    assert report.verdict(None)[1] == "open"
    assert report.verdict({"before": {}, "after": {}})[1] == "open"


def test_every_candidate_is_counted_under_the_outcome_that_the_selection_gives_it(tmp_path):
    rewards = ([0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0], [0, 0, 0, 0])
    profiles = [
        Profile(str(i), r, *mean_and_variance(r), True, "p", "v/1", 1.0, 0) for i, r in enumerate(rewards)
    ]
    (tmp_path / "run.json").write_text(json.dumps({"config": {"profile": {"lambda_diff": 0.6}}}))
    write_lines(tmp_path / "profiles.jsonl", profiles)
    words = Outline(report.write_report(tmp_path).read_text()).text
    names = [w for w in words if w in OUTCOMES.values()]
    counts = [w for w in words if re.fullmatch(r"\d \(\d+%\)", w)]
    assert names == ["pivots", "all fail", "all pass", "too easy"]
    assert counts == ["1 (25%)"] * 4


def test_where_groups_ended_early_the_expectation_of_a_full_profile_is_shown(tmp_path):
    full = [[0.0] * 4] * 30 + [[1.0] * 4] * 30 + [[1.0, 0, 0, 0]] * 20
    profiles = [
        Profile(str(i), r, *mean_and_variance(r), True, "p", "v/1", 1.0, 0) for i, r in enumerate(full)
    ]
    short = Profile("short", [0.0], 0.0, 0.0, True, "p", "v/1", 1.0, 0, early="all_fail")
    (tmp_path / "run.json").write_text(
        json.dumps({"config": {"profile": {"lambda_diff": 0.6, "group_size": 4}}})
    )
    write_lines(tmp_path / "profiles.jsonl", [*profiles, short])
    words = Outline(report.write_report(tmp_path).read_text()).text
    counts = [float(w.split()[0]) for w in words if re.fullmatch(r"[\d.]+ \(\d+%\)", w)]
    assert sum(counts) == pytest.approx(81, abs=0.2) and 20.2 < counts[0] < 20.8 and 30.2 < counts[1] < 30.8
    assert any("1 of 81 groups ended early: all numbers but the pivots kept are what" in w for w in words)


def test_counts_on_the_page_are_those_of_the_files(plain, tmp_path):
    build_workdir(tmp_path)
    profiles = [json.loads(line) for line in (tmp_path / "profiles.jsonl").open()]
    equal = sum(p["variance"] == 0 for p in profiles)
    kept = sum(1 for _ in (tmp_path / "pivots.jsonl").open())
    words = "".join(Outline(plain).text)
    assert f"uninformative turns{100 * equal / 40:.1f} %" in words
    assert f"pivots kept{kept}{100 * kept / 40:.1f} %" in words
    assert plain.count('<details class="pivot"') == kept


def test_candidates_that_all_fail_and_are_trained_on_are_counted_apart(tmp_path):
    build_workdir(tmp_path)
    page = json.loads((tmp_path / "run.json").read_text())
    page["config"]["profile"]["keep_all_fail"] = True
    (tmp_path / "run.json").write_text(json.dumps(page))
    profiles = records.read_records(tmp_path / "profiles.jsonl", Profile)
    made = records.read_records(tmp_path / "candidates.jsonl", Candidate)
    failed = sum(not any(p.rewards) for p in profiles)
    kept = [Pivot(c, p) for c, p in zip(made, profiles) if p.mean < 0.6]
    write_lines(tmp_path / "pivots.jsonl", kept)
    words = "".join(Outline(report.write_report(tmp_path).read_text()).text)
    assert (
        failed
        and f"turns trained on{len(kept)}{len(kept) - failed} pivots, and {failed} that all fail" in words
    )
    assert "Candidates whose rewards are all 0 are trained on, too." in words


def test_equal_actions_are_merged_and_each_keeps_its_reason(tmp_path):
    build_workdir(tmp_path)
    pivot = inputs.read_inputs(tmp_path).pivots[0]
    rewards = pivot.profile.rewards
    rollouts = [
        Rollout(pivot.candidate.id, k, [1], [0.0], [0.0], True, f"said {r}", r, "ok" if r else "state")
        for k, r in enumerate(rewards)
    ]
    shown = page.pivot_browser([pivot], {pivot.candidate.id: rollouts}.get)
    assert shown.count('<div class="action ') == 2
    assert re.search(
        r'action pass"><div><b class="reward">1</b>.*?<code>ok</code></div><pre dir="auto">said 1.0', shown
    )
    assert f"×{rewards.count(0.0)}</b> <code>state</code>" in shown


def test_a_rollout_of_another_stage_is_not_shown_as_the_profiles(tmp_path):
    build_workdir(tmp_path)
    pivot = inputs.read_inputs(tmp_path).pivots[0]
    other = Rollout(
        pivot.candidate.id, 0, [1], [0.0], [0.0], True, "later", 1 - pivot.profile.rewards[0], "ok"
    )
    write_lines(tmp_path / "rollouts" / "a_train.jsonl", [other])
    found = inputs.read_inputs(tmp_path).samples.of(pivot.candidate.id)
    assert [r.reward for r in found] == pivot.profile.rewards
    assert "later" not in [r.text for r in found]


@pytest.mark.parametrize("word", [str, lambda i: f"{'&' * 300} {i}"])
def test_three_hundred_long_pivots_stay_under_three_megabytes(tmp_path, word):
    build_workdir(tmp_path, candidates=310, group=16, long=1500, word=word)
    path = report.write_report(tmp_path)
    assert path.stat().st_size < 3_000_000
    source = path.read_text(encoding="utf-8")
    assert source.count('<details class="pivot"') == page.MAX_PIVOTS == 300
    assert "300 of 310 pivots, spread evenly over the file; 10 left out." in source
    assert source.count('<div class="action ') == 300 * 16
    assert Outline(source).outside[-1] == ("/html", [])


def data_of(workdir: Path, name: str):
    """What the page is given by a file of report_data/."""
    raw = (workdir / "report_data" / f"{name}.js").read_bytes()
    assert raw.isascii() and raw.count(b"\n") == 1, "one call, whatever is in the data"
    return json.loads(raw.decode().removeprefix(f'pivotrlData("{name}", ').removesuffix(");\n"))


def test_every_candidate_of_a_large_run_is_in_the_files_beside_the_page(tmp_path):
    build_workdir(tmp_path, candidates=320, group=4)
    source = report.write_report(tmp_path).read_text("utf-8")
    assert "320 candidates are in report_data/, which must be beside this page" in source
    made = records.read_records(tmp_path / "candidates.jsonl", Candidate)
    profiles = {p.candidate_id: p for p in records.read_records(tmp_path / "profiles.jsonl", Profile)}
    rows = data_of(tmp_path, "index")
    assert [row[0] for row in rows] == [candidate.id for candidate in made]
    assert {row[1] for row in rows} == {changes.tool_of(candidate) for candidate in made}
    assert {row[2] for row in rows} == set(OUTCOMES.values()) - {"undecided", "screened"}
    files = sorted(path.name for path in (tmp_path / "report_data").iterdir())
    assert files == [*(f"0000{i}.js" for i in range(4)), "index.js"]
    data = [data_of(tmp_path, f"0000{i}") for i in range(4)]
    assert [len(some) for some in data] == [100, 100, 100, 20]
    for id, _, outcome, mean, file, place in rows:
        profile, detail = profiles[id], data[file][place]
        assert mean == round(profile.mean, 3)
        assert (outcome == "all pass") == (profile.mean == 1)
        assert f"rewards {' '.join(f'{r:g}' for r in profile.rewards)}" in detail["about"]
        assert sum(action[2] for action in detail["actions"]) == 4 and not detail["others"]
        assert {action[1] for action in detail["actions"]} == set(profile.rewards)


def test_candidates_without_rollouts_or_profile_are_there_too(tmp_path):
    build_workdir(tmp_path, candidates=301, group=2)
    lines = (tmp_path / "profiles.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "profiles.jsonl").write_text("".join(lines[1:]))
    lost = json.loads(lines[1])["candidate_id"]
    rollouts = (tmp_path / "rollouts" / "profile.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in rollouts if json.loads(line)["candidate_id"] != lost]
    (tmp_path / "rollouts" / "profile.jsonl").write_text("".join(kept))
    (tmp_path / "report_data").mkdir()
    (tmp_path / "report_data" / "00009.js").write_text("of an earlier report")
    report.write_report(tmp_path)
    assert not (tmp_path / "report_data" / "00009.js").exists()
    first, second, *_ = data_of(tmp_path, "index")
    assert first[2:4] == ["not profiled", None] and second[2] != "not profiled"
    for row in (first, second):
        detail = data_of(tmp_path, f"{row[4]:05d}")[row[5]]
        assert detail["actions"] == [] and detail["gold"].startswith("add_event")


def test_hostile_text_in_the_files_beside_the_page_stays_text(tmp_path):
    build_workdir(tmp_path, candidates=310, group=2, word=lambda i: HOSTILE[i % len(HOSTILE)] + "x" * 2000)
    report.write_report(tmp_path)
    shown = json.dumps(data_of(tmp_path, "index"), ensure_ascii=False)
    details = [detail for i in range(4) for detail in data_of(tmp_path, f"{i:05d}")]
    shown += json.dumps(details, ensure_ascii=False)
    assert not re.search("[\x00\x07\u202e\ud800]", shown) and r"lone\\ud800" in shown
    room = candidates.PIVOT_ROOM + 5000  # and what says how much was cut
    assert max(len(json.dumps(detail, ensure_ascii=False)) for detail in details) < room
    assert re.search(r" … \d+,\d+ more characters", shown)
    # the script makes text nodes alone, and a page that is opened as a file may add these scripts alone
    script = style.SCRIPT
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", script)
    assert script.count("script.src") == 1 and "'strict-dynamic'" in (tmp_path / "report.html").read_text()


def test_a_small_run_is_one_page(plain, tmp_path):
    report.write_report(build_workdir(tmp_path))
    assert not (tmp_path / "report_data").exists() and "All candidates" not in plain


def test_clip_keeps_to_its_room_and_says_what_it_left_out():
    shown = page.clip("a<b" * 100, 50)
    kept = shown.split("<i ")[0]
    assert len(kept) <= 50 and kept.startswith("a&lt;ba&lt;b")
    characters = len(kept.replace("&lt;", "<"))
    assert f"… {300 - characters} more characters" in shown
    assert page.clip("short <i>", 50) == "short &lt;i&gt;"


def test_short_texts_leave_their_room_to_long_ones():
    assert page._level(["a" * 10, "b" * 500, "c" * 30, "d" * 900], 240) == 100
    assert page._level(["a" * 10, "b" * 20], 240) == 20
    assert page._level(["&" * 100, "b" * 5], 105) == 100


def test_smoothing_is_a_centred_mean_blind_to_nan():
    assert plots.smooth([0, 3, 6, float("nan"), 2], 3).tolist() == [1.5, 3, 4.5, 4, 2]


def test_a_long_run_draws_a_short_curve():
    steps = list(range(20_000))
    svg = plots.curve(steps, [s % 7 for s in steps], "Loss", tall=False)
    assert len(svg) < 60_000 and "20000" in svg.replace(",", "")


def test_missing_files_leave_their_section_out_with_a_sentence(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    words = "".join(Outline(report.write_report(tmp_path).read_text()).text)
    for name in ("metrics.jsonl", "profiles.jsonl", "pivots.jsonl", "evaluation.json"):
        assert f"Left out: there is no {name} in this directory." in words
    assert "has no verdict yet" in words


def test_odd_numbers_do_not_stop_the_report(tmp_path):
    build_workdir(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "reward_mean": NaN, "kl": Infinity, "loss": "x"}\n{"step": 1, "reward_mean": 0.5}\n{"st'
    )
    (tmp_path / "evaluation.json").write_text('{"before": 3, "after": {"out_of_domain": {"value": NaN}}}')
    (tmp_path / "run.json").write_text(
        '{"seconds": {"train": null}, "table": [1, [], {"a": 1}, "x"], "config": [1]}'
    )
    assert "Mean reward of the batch" in report.write_report(tmp_path).read_text()
    assert inputs.read_inputs(tmp_path).metrics[1:] == [{"step": 1, "reward_mean": 0.5}]  # no torn last line


def test_bad_input_is_one_sentence_with_its_place(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such directory; give --workdir"):
        report.write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"run.json: no such file; run pivotrl_jax.train"):
        report.write_report(tmp_path)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(InputError, match=r"run.json: not valid JSON"):
        report.write_report(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    build = dataclasses.asdict(Profile("c", [1.0], 1.0, 0.0, True, "p", "v/1", 1.0, 0))
    (tmp_path / "profiles.jsonl").write_text(json.dumps(build) + '\n{"candidate_id": "d"}\n')
    with pytest.raises(InputError, match=r"profiles.jsonl:2: not a Profile: missing fields"):
        report.write_report(tmp_path)
    (tmp_path / "profiles.jsonl").unlink()
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"epoch": 2}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2: not a metrics line"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_program_prints_the_path_and_fails_in_one_line(tmp_path):
    build_workdir(tmp_path, candidates=3, steps=2)
    command = [sys.executable, "-m", "pivotrl_jax.report", f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "report.html")
    failed = subprocess.run([*command[:-1], f"--workdir={tmp_path}/no"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "no such directory" in failed.stderr


if __name__ == "__main__":  # a page to look at: python -m tests.test_report DIRECTORY
    build_workdir(Path(sys.argv[1]), candidates=400, steps=120)
    print(report.write_report(Path(sys.argv[1])))
