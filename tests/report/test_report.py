"""Claims about `pivotrl_jax.report`: what the page shows, that data stays text, and that it stays small."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from support.fabricated_run import (
    HOSTILE,
    Outline,
    build_workdir,
    data_in,
    evaluation,
    rows_of,
    write_lines,
)

from pivotrl_jax import records
from pivotrl_jax.pivots.selection import OUTCOMES, mean_and_variance
from pivotrl_jax.records import Candidate, InputError, Pivot, Profile
from pivotrl_jax.report import before_after, inputs, page, plots, report


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    workdir = build_workdir(tmp_path_factory.mktemp("plain"))
    return report.write_report(workdir).read_text(encoding="utf-8")


def test_hostile_text_makes_no_element_and_no_attribute(plain, tmp_path):
    hostile = report.write_report(build_workdir(tmp_path, word=lambda i: HOSTILE[i % len(HOSTILE)]))
    source = hostile.read_bytes().decode("utf-8")  # strict: no lone surrogate was written
    got, want = Outline(source), Outline(plain)

    rows = ("tr", "/tr", "th", "/th", "td", "/td")  # other reasons and tools, so other rows of the tables
    own = lambda elements: [e for e in elements if e[0] not in rows]  # noqa: E731
    assert own(got.outside) == own(want.outside)  # same elements, attributes and closings, in the same order
    assert not any(attrs for tag, attrs in got.outside if tag in rows)
    assert {tag for tag, _ in got.inside} == {tag for tag, _ in want.inside}
    assert {name for _, attrs in got.inside for name, _ in attrs} == {
        name for _, attrs in want.inside for name, _ in attrs
    }
    assert got.comments == want.comments == []
    assert not re.search("[\x00\x07\u202e\u2028]", source)
    words = "".join(got.text) + json.dumps(data_in(source), ensure_ascii=False).replace('\\"', '"')
    for string in HOSTILE:  # and nothing was dropped: every string is there to be read
        assert page.visible(string) in words.replace("\\\\", "\\")
    assert r"NUL\u0000 lone\ud800 low\udfff bell\u0007 \u202eevil\u202c שלום \u2028 &lt;b&gt;" in "".join(
        got.text
    )


def test_the_page_is_self_contained(plain):
    scripts = [attrs for tag, attrs in Outline(plain).outside if tag == "script"]
    assert scripts == [[("type", "application/json"), ("id", "data")], []], "data, and one script"
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
        assert "font-family" not in svg and "DejaVu" not in svg, "text takes the font of the page"


def test_no_two_elements_share_an_id(plain):
    outline = Outline(plain)
    ids = [value for _, attrs in outline.outside + outline.inside for name, value in attrs if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_plot_has_its_target(plain):
    for svg in re.findall(r"<svg.*?</svg>", plain, re.DOTALL):
        assert set(re.findall(r'(?:href="|url\()#(\w+)', svg)) <= set(re.findall(r'id="(\w+)"', svg))


def test_verdict_calls_a_change_only_what_lies_off_zero():
    sentence, state = before_after.verdict(evaluation(str))
    assert state == "good"
    assert sentence == (
        "Training raised episode success by 18.0 points (+11.0 to +25.0) and call-turn pass rate by 18.0 "
        "points (+15.0 to +21.0); it did not clearly change text-turn pass rate (−2.0 to +2.0) and "
        "out-of-domain accuracy (−2.0 to +1.0)."
    )

    harmed = evaluation(str)
    harmed["difference"]["out_of_domain"] = {"value": -0.1, "low": -0.15, "high": -0.05}
    sentence, state = before_after.verdict(harmed)
    assert state == "bad" and "it lowered out-of-domain accuracy by 10.0 points (−15.0 to −5.0);" in sentence
    flat = evaluation(str)
    for entry in flat["difference"].values():
        entry.update(low=-0.1, high=0.3)
    assert before_after.verdict(flat)[1] == "open"
    assert before_after.verdict(None)[1] == "open"
    assert before_after.verdict({"before": {}, "after": {}})[1] == "open"


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
    shown = rows_of(data_in(plain)["index"])
    assert sum(row["outcome"] == "pivot" for row in shown) == kept


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


def test_clip_says_what_it_left_out():
    assert page.clip("a<b" * 100, 50) == ("a<b" * 17)[:50] + " … 250 more characters"
    assert page.clip("short <i>", 50) == "short <i>"


def test_smoothing_is_a_centred_mean_blind_to_nan():
    assert plots.smooth([0, 3, 6, float("nan"), 2], 3).tolist() == [1.5, 3, 4.5, 4, 2]


def test_a_long_run_draws_a_short_curve():
    steps = list(range(20_000))
    svg = plots.curve(steps, [s % 7 for s in steps], "Loss", tall=False)
    assert len(svg) < 60_000 and "20000" in svg.replace(",", "")


def test_missing_files_leave_their_section_out_with_a_sentence(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    words = "".join(Outline(report.write_report(tmp_path).read_text()).text)
    for name in ("metrics.jsonl", "profiles.jsonl", "candidates.jsonl", "evaluation.json"):
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
    with pytest.raises(InputError, match=r"run.json: cannot be read"):
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
