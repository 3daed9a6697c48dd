"""Claims about the report of several runs, about what a report says of other methods, and of few values."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fabricated_run import HOSTILE, Outline, build_workdir, evaluation

from pivotrl_jax.records import InputError
from pivotrl_jax.report import before_after, compare, plots, report, table
from pivotrl_jax.report.card import card
from pivotrl_jax.report.inputs import Estimate, read_inputs
from pivotrl_jax.views.opened import Evaluation


def edit(path, change) -> None:
    page = json.loads(path.read_text())
    change(page)
    path.write_text(json.dumps(page))


def words_of(source: str) -> str:
    """The words of a page, without its style sheet, script and data."""
    shown = re.sub(r"<script type=.*?</script>", "", source.partition("</style>")[2], flags=re.DOTALL)
    return "".join(Outline(shown.rpartition("<script>")[0]).text)


@pytest.fixture()
def two(tmp_path):
    runs = [tmp_path / name for name in ("a", "b")]
    for seed, run in enumerate(runs):
        run.mkdir()
        build_workdir(run, candidates=8, steps=20, seed=seed)
    edit(runs[1] / "run.json", lambda page: page["config"].update(seed=7, name="other"))
    edit(runs[1] / "evaluation.json", lambda page: page["after"]["episode_success"].update(value=0.25))
    return runs


def test_several_runs_are_one_page_with_their_measures_curves_and_differences(two, tmp_path):
    lines = (two[1] / "metrics.jsonl").read_text().splitlines()
    entropy = [json.dumps({**json.loads(line), "entropy": 0.5}) for line in lines]
    (two[1] / "metrics.jsonl").write_text("\n".join(entropy) + "\n")
    out = compare.write_comparison(two, tmp_path / "both.html")
    source = out.read_text("utf-8")
    outline = Outline(source)
    words = "|".join(outline.text)
    assert f"|run|{two[0]}|{two[1]}|" in words and "|candidates|8|8|" in words
    success = "{}, +18.0 (+11.0 to +25.0) from 30.0"
    assert f"|episode success|{success.format('48.0')}|{success.format('25.0')}|" in words
    assert "|seed|–|7|" in words and "|name|" not in words, "fields that differ, but for names"
    curves = [json.loads(dict(attrs)["data-curve"]) for tag, attrs in outline.inside if tag == "svg"]
    names = [[line[0] for line in curve["lines"]] for curve in curves]
    assert names.count(["A", "B"]) == 6 and names.count(["B"]) == 1
    rewards = [json.loads(line)["reward_mean"] for line in lines]
    shown = curves[0]["lines"][1]
    assert shown[1] == list(range(20)) and shown[2] == pytest.approx(rewards, abs=1e-4)
    drawn = source.partition("Entropy")[2].partition("</svg>")[0]
    assert "var(--text)" in drawn and "var(--call)" not in drawn, "B keeps its colour where A has no curve"


def test_a_comparison_says_what_is_missing_and_keeps_hostile_names_text(two, tmp_path):
    for run in two:
        for name in ("evaluation.json", "metrics.jsonl"):
            (run / name).unlink()
        edit(run / "run.json", lambda page: page["config"].update(note=HOSTILE[1], name="same"))
        edit(run / "run.json", lambda page: page["config"].pop("seed", None))
    edit(two[0] / "run.json", lambda page: page["config"].update(note=HOSTILE[0]))
    source = compare.write_comparison(two, tmp_path / "both.html").read_text("utf-8")
    words = words_of(source)
    assert "None of these runs was evaluated." in words and "None of these runs was trained." in words
    assert HOSTILE[0] in words and HOSTILE[1] in words
    assert not {"img", "b"} & {tag for tag, _ in Outline(source).outside}


def test_a_comparison_is_refused_in_a_sentence(two, tmp_path):
    other = tmp_path / "mine.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"mine\.html: is there, and no report; name another file"):
        compare.write_comparison(two, other)
    assert other.read_text() == "<p>mine</p>"
    with pytest.raises(InputError, match="9 runs on one page are too many to tell apart; name at most 8"):
        compare.write_comparison([two[0]] * 9, tmp_path / "x.html")
    with pytest.raises(InputError, match="c: no such directory"):
        compare.write_comparison([*two, tmp_path / "c"], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_the_program_takes_one_run_or_several_and_replaces_its_own_page(two, tmp_path):
    def program(*words):
        command = [sys.executable, "-m", "pivotrl_jax.report", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert program(two[0]).stdout.strip() == str(two[0] / "report.html")
    for _ in range(2):
        done = program("a", "b")
        assert done.returncode == 0 and done.stdout.strip() == "comparison.html"
    assert (tmp_path / "comparison.html").is_file()
    done = program("--workdir=a", "b", "--out=other.html")
    assert done.stdout.strip() == "other.html" and not (two[1] / "report.html").exists()
    failed = program()
    assert failed.returncode == 1 and failed.stderr.startswith("report: no run is named; give the directory")


def test_a_report_of_fine_tuning_speaks_of_no_rewards(tmp_path):
    build_workdir(tmp_path)
    for name in ("profiles.jsonl", "pivots.jsonl", "rollouts/profile.jsonl"):
        (tmp_path / name).unlink()
    settings = {"method": "sft", "sft": {"epochs": 2}, "grpo": {"steps": 3}, "profile": {"lambda_diff": 0.6}}
    edit(tmp_path / "run.json", lambda page: page.update(config={**settings, "name": "bfcl"}, table=[]))
    lines = [{"step": s, "loss": 1.0 / (s + 1), "nll": 1.0 / (s + 1), "entropy": 0.4} for s in range(5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = report.write_report(tmp_path).read_text("utf-8")
    words = words_of(source)
    assert (
        "Supervised fine-tuning: bfcl" in words and "Negative log-likelihood of the demonstrations" in words
    )
    for word in ("GRPO", "grpo", "reward", "pivot", "λ_diff", "profiles.jsonl"):
        assert word not in words.replace("PivotRL", "").replace("not profiled", ""), word
    assert '"epochs": 2' in words and "No actions were sampled at them." in words


@pytest.mark.parametrize("method, title", [*report.TITLES.items(), ("", "Run")])
def test_the_title_names_the_method(tmp_path, method, title):
    build_workdir(tmp_path, candidates=4, steps=2)
    edit(tmp_path / "run.json", lambda page: page["config"].update(method=method, name="x"))
    assert f"<title>{title}: x</title>" in report.write_report(tmp_path).read_text("utf-8")


def few(n: int) -> dict:
    found = evaluation(str)
    for side in ("before", "after"):
        found[side]["episode_success"]["n"] = n
    return found


def test_of_few_values_no_interval_is_shown_and_nothing_is_concluded(tmp_path):
    sentence, state = before_after.verdict(few(2))
    assert state == "good" and "raised call-turn pass rate" in sentence
    assert sentence.endswith("Too few were measured to say anything about episode success (n = 2).")
    assert before_after.verdict(few(10)) == before_after.verdict(evaluation(str))
    build_workdir(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps(few(2)))
    words = words_of(report.write_report(tmp_path).read_text("utf-8")).replace("\u00a0", " ")
    assert "episode success48.0 %from 30.0 %; +18.0 (n = 2, no interval)" in words
    assert "episode success30.0, n = 2, no interval48.0, n = 2, no interval18.0, n = 2, no interval" in words
    assert "| held-out episodes won | 0.300 (n = 2, no interval) |" in card(
        read_inputs(tmp_path), False
    ).replace("\u00a0", " ")


def one_measure(**difference) -> dict:
    side = {"value": 0.5, "low": 0.5, "high": 0.5, "n": 20, "clusters": 20}
    after = {**side, "value": 0.55}
    sides = {"before": side, "after": after, "difference": {"value": 0.05, "low": 0.05, **difference}}
    return {name: {"call_turn_pass": values} for name, values in sides.items()}


def test_of_many_values_in_few_clusters_nothing_is_concluded():
    found = one_measure(high=0.1, n=20, clusters=1)
    sentence = "Too few were measured to say anything about call-turn pass rate (n = 20 in 1 cluster)."
    assert before_after.verdict(found) == (sentence, "open")
    text = before_after.change_text(before_after.change_of(found, "call_turn_pass")[2])
    assert text.replace("\u00a0", " ") == "+5.0 (n = 20 in 1 cluster, no interval)"
    assert before_after.verdict(one_measure(high=0.1, n=200, clusters=10))[1] == "good"


def test_a_difference_of_few_of_the_turns_is_of_few():
    """However many were decided on each side alone."""
    assert before_after.verdict(one_measure(high=0.1, n=3, clusters=3)) == (
        "Too few were measured to say anything about call-turn pass rate (n = 3).",
        "open",
    )


def test_an_interval_without_width_makes_no_verdict():
    assert before_after.verdict(one_measure(high=0.05, n=20, clusters=20)) == (
        "All changes are alike, which gives no interval, in call-turn pass rate (+5.0).",
        "open",
    )


def test_the_page_of_several_goes_where_it_is_asked_for_and_that_of_one_has_its_place(tmp_path):
    for name in ("a", "b"):
        build_workdir(tmp_path / name, candidates=4, steps=2)

    def program(*arguments):
        command = [sys.executable, "-m", "pivotrl_jax.report", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = program("a", "b", "--out=new/folder/page.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "folder" / "page.html").is_file()
    done = program("a", "--out=one.html")
    assert done.returncode == 1 and not (tmp_path / "one.html").exists()
    assert (
        done.stderr == "report: --out=one.html names the page of several runs; that of one is a/report.html\n"
    )


def test_the_closing_table_and_an_evaluation_show_no_interval_of_few_or_equal_values():
    few = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 12, "clusters": 6}
    alike = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40, "clusters": 40}
    enough = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40, "clusters": 20}
    found = {side: {"call_turn_pass": few, "out_of_domain": enough} for side in ("before", "after")}
    found["difference"] = {"call_turn_pass": few, "out_of_domain": alike}
    shown = "0.500 (n = 12 in 6 clusters, no interval)"
    assert table.change(found, "call_turn_pass") == f"{shown} -> {shown}, change +{shown}"
    both = "0.500 [0.400, 0.600]"
    assert table.change(found, "out_of_domain") == f"{both} -> {both}, change +0.000 (all alike)"
    scored = Evaluation("hf", "abc", Path("x.json"), {"few": few, "enough": enough}, 0)
    assert [line.split() for line in str(scored).splitlines()] == [
        ["few", *shown.split()],
        ["enough", *both.split(), *"n = 40 in 20 clusters".split()],
    ]
    assert "0.200" not in scored._repr_html_() and "[0.400, 0.600]" in scored._repr_html_()


def test_a_change_that_no_turn_tells_is_a_dash_everywhere(tmp_path):
    """No turn of the kind was decided both before and after, and of one verifier none after."""
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20, "clusters": 20}
    found = {
        "before": {"text_turn_pass": estimate, "verifiers": {"swe": estimate, "tau2": estimate}},
        "after": {"text_turn_pass": estimate, "verifiers": {"swe": estimate}},
        "difference": {},
    }
    numbers = "0.500 [0.400, 0.600]"
    assert table.change(found, "text_turn_pass") == f"{numbers} -> {numbers}, change –"
    assert table.change(found, "swe", "verifiers") == f"{numbers} -> {numbers}, change –"
    assert table.change(found, "tau2", "verifiers") == f"{numbers} -> –, change –"
    build_workdir(tmp_path, candidates=4, steps=2)
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    row = f"| held-out text turns passed | {numbers} | {numbers} | – |"
    assert row in card(read_inputs(tmp_path), False)


def test_an_interval_without_width_is_none():
    alike = Estimate(0.0, 0.0, 0.0, 240)
    assert before_after.change_text(alike) == "+0.0 (all alike)"
    assert before_after.cell(alike).replace("\u00a0", " ") == "0.0, all alike, n = 240"


def test_of_few_values_a_bar_has_no_whiskers():
    wide, narrow = Estimate(0.43, 0.1, 0.9, 40), Estimate(0.43, 0.1, 0.9, 2)
    drawn = [plots.before_after([("x", e, None)], "Rates") for e in (wide, narrow)]
    whiskers = [svg.count("LineCollection") for svg in drawn]
    assert drawn[0] != drawn[1] and whiskers[0] >= whiskers[1]
    place = [float(svg.partition(">43</text>")[0].rpartition("rotate(")[2].split()[1]) for svg in drawn]
    assert place[1] < place[0], "the number stands at the end of the bar, not of an interval"


def test_where_the_run_comes_from_is_shown(tmp_path):
    build_workdir(tmp_path)
    words = words_of(report.write_report(tmp_path).read_text("utf-8"))
    assert "run.json does not say when, where and by which command" in words
    known = {"started": "2026-01-31 09:30:00+01:00", "command": "python -m pivotrl_jax.train --config=bfcl"}
    known |= {"commit": "0123456789ab", "host": "tower", "python": "3.11.7"}
    edit(tmp_path / "run.json", lambda page: page.update(provenance=known, devices=["TPU v5e"] * 4))
    words = words_of(report.write_report(tmp_path).read_text("utf-8"))
    assert "2026-01-31 09:30:00+01:00 · tower · commit 0123456789ab" in words
    assert "commandpython -m pivotrl_jax.train --config=bfcl" in words and "4 × TPU v5e" in words
    assert "run.json does not say" not in words
