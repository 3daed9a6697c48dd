"""Claims about the same pivots before and after training: what is counted, shown and said of it."""

import dataclasses
import json

import pytest
from support import browser
from support.browser import data_of, detail_of
from support.fabricated_run import HOSTILE, Outline, add_resampled, build_workdir, rows_of, write_lines

from pivotrl_jax import records
from pivotrl_jax.pivots.selection import mean_and_variance
from pivotrl_jax.records import Profile, Rollout
from pivotrl_jax.report import inputs, report, resampled
from pivotrl_jax.report.resampled import CHANGES


def profile(rewards, id="c", **fields):
    return Profile(id, rewards, *mean_and_variance(rewards), True, "p", "v/1", 1.0, 0, **fields)


def words_of(workdir):
    """What a run's report says."""
    return " ".join(Outline(report.write_report(workdir).read_text("utf-8")).text)


def section_of(workdir):
    """What the section says."""
    found = inputs.read_inputs(workdir)
    pairs = resampled.pairs_of(found.profiles, found.resampled)
    return " ".join(Outline(str(resampled.section(found, pairs, resampled.Reasons()))).text)


# ---- numbers


@pytest.mark.parametrize(
    "before, after, changes",
    [
        ([1, 0, 0, 0], [1, 1, 0, 0], ["rose"]),
        ([1, 0, 0, 0], [1, 1, 1, 1], ["rose", "all_pass"]),
        ([1, 0, 0, 0], [0, 0, 0, 0], ["fell", "all_fail"]),
        ([1, 0, 0, 0], [0, 1, 0, 0], ["same"]),
        ([0, 0, 0, 0], [0, 0, 0, 0], ["same", "all_fail"]),
        ([0.5, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], ["rose", "all_pass"]),
        ([1, 0, 0, 0], [], ["undecided"]),
    ],
)
def test_a_pivot_rises_or_falls_and_may_end_with_equal_rewards(before, after, changes):
    assert resampled.changes_of((profile(before), profile(after))) == changes


def test_a_summary_counts_pivots_and_leaves_undecided_ones_out_of_its_means():
    pairs = [
        (profile([1, 0, 0, 0]), profile([1, 1, 1, 1])),
        (profile([1, 1, 0, 0]), profile([0, 0, 0, 0])),
        (profile([1, 0, 0, 0]), profile([], abstained=4)),
    ]
    assert resampled.summary(pairs) == {
        "pivots": 3, "rollouts": 12, "mean_before": 0.375, "mean_after": 0.5, "rose": 1, "fell": 1, "same": 0,
        "all_pass": 1, "all_fail": 1, "undecided": 1,
    }  # fmt: skip
    assert "mean_before" not in resampled.summary(pairs[2:])


def test_profiles_are_paired_by_candidate():
    before, after = [profile([0], id) for id in "abc"], [profile([1], id) for id in "cxa"]
    pairs = resampled.pairs_of(before, after)
    assert [(b.candidate_id, a.candidate_id) for b, a in pairs] == [("c", "c"), ("a", "a")]


# ---- the section


def test_the_section_counts_by_change_and_by_reason(tmp_path):
    pairs = add_resampled(build_workdir(tmp_path))
    rows = Outline(report.write_report(tmp_path).read_text("utf-8")).text
    rows = [word.strip() for word in rows if word.strip()]
    start = rows.index("By change")

    def cells(name):
        at = rows.index(name, start)
        return rows[at + 1 : at + 4]

    for change, words in CHANGES.items():
        found = [pair for pair in pairs if change in resampled.changes_of(pair)]
        if change == "undecided":
            assert words not in rows[start : start + 60]
            continue
        means = [sum(p.mean for p in side) / len(found) for side in zip(*found)]
        assert found and cells(words) == [str(len(found)), *(f"{mean:.3f}" for mean in means)]
    passed = [sum(reward for profile in side for reward in profile.rewards) for side in zip(*pairs)]
    assert cells("ok")[:2] == [f"{n:.0f}" for n in passed]
    assert cells("later fault")[0] == "0" and int(cells("later fault")[1]) > 0


@pytest.mark.parametrize(
    "method, words",
    [
        ("pivotrl", "these turns were trained on"),
        ("sft", "the demonstrations of these turns were trained on"),
        ("random_turns", "training drew its turns from all candidates"),
        (None, "these turns were trained on"),
    ],
)
def test_it_says_that_they_were_trained_on_and_that_means_regress(tmp_path, method, words):
    pairs = add_resampled(build_workdir(tmp_path), method=method)
    found = section_of(tmp_path)
    assert f"elsewhere: {words}" in found and "(regression to the mean)" in found
    assert "The pivots were sampled again by the final policy" in found
    write_lines(tmp_path / "resampled" / "profiles.jsonl", [after for _, after in pairs[:4]])
    assert f"4 of the {len(pairs)} pivots, drawn at random, were sampled again" in section_of(tmp_path)


def test_it_says_where_groups_before_were_cut_short(tmp_path):
    add_resampled(build_workdir(tmp_path))
    assert "of these groups early" not in section_of(tmp_path)
    profiles = records.read_records(tmp_path / "profiles.jsonl", Profile)
    early = [dataclasses.replace(profile, early="pivot") for profile in profiles]
    write_lines(tmp_path / "profiles.jsonl", early)
    assert "Adaptive profiling ended " in section_of(tmp_path)


def test_a_run_without_it_has_no_section_no_filter_and_no_sort(tmp_path):
    add_resampled(build_workdir(tmp_path))
    assert "largest rise in mean first" in words_of(tmp_path)
    page = json.loads((tmp_path / "run.json").read_text())
    del page["resampled"]  # the run was switched off, or has not come that far again
    (tmp_path / "run.json").write_text(json.dumps(page))
    found = words_of(tmp_path)
    assert "same pivots" not in found and "largest rise in mean first" not in found
    rows = rows_of(data_of(tmp_path)["index"])
    assert {row["after"] for row in rows} == {None}
    assert {detail_of(data_of(tmp_path), row)["after"] for row in rows} == {None}


# ---- the browser


@pytest.mark.parametrize("count", [60, 520])
def test_a_candidate_has_its_samples_before_and_after(tmp_path, count):
    build_workdir(tmp_path, candidates=count)
    pairs = {before.candidate_id: (before, after) for before, after in add_resampled(tmp_path)}
    report.write_report(tmp_path)
    data = data_of(tmp_path)
    for row in rows_of(data["index"]):
        detail = detail_of(data, row)
        if row["id"] not in pairs:
            assert row["after"] is None and detail["after"] is None
            continue
        before, after = pairs[row["id"]]
        mean, marks, numbers = row["after"]
        assert row["mean"] == round(before.mean, 3) and mean == round(after.mean, 3)
        assert marks == "".join("1" if reward else "0" for reward in after.rewards)
        assert [list(CHANGES)[n] for n in numbers] == resampled.changes_of((before, after))
        for side, profile in ((detail, before), (detail["after"], after)):
            assert f"mean {profile.mean:.3f}" in side["about"]
            assert {action[1] for action in side["actions"]} == set(profile.rewards)
            assert sum(action[2] for action in side["actions"]) == len(profile.rewards)
        assert all(action[5].startswith("after ") for action in detail["after"]["actions"])


def test_a_rollout_of_an_earlier_final_policy_is_not_shown(tmp_path):
    pairs = add_resampled(build_workdir(tmp_path))
    after = pairs[0][1]
    old = Rollout(after.candidate_id, 0, [1], [0.0], [0.0], True, "old", 1 - after.rewards[0], "ok")
    write_lines(tmp_path / "resampled" / "rollouts" / "00009.jsonl", [old])
    report.write_report(tmp_path)
    assert '"old"' not in json.dumps(data_of(tmp_path))


def test_hostile_reasons_and_texts_stay_text(tmp_path):
    add_resampled(build_workdir(tmp_path / "plain"))
    add_resampled(build_workdir(tmp_path / "hostile"), reason=HOSTILE[1])
    plain, hostile = (
        Outline(report.write_report(tmp_path / name).read_text("utf-8")) for name in ("plain", "hostile")
    )
    rows = ("tr", "/tr", "th", "/th", "td", "/td")  # another reason is another row
    own = lambda found: [element for element in found.outside if element[0] not in rows]  # noqa: E731
    assert own(hostile) == own(plain) and HOSTILE[1] in "".join(hostile.text)


@pytest.fixture(scope="module")
def in_node(tmp_path_factory):
    workdir = build_workdir(tmp_path_factory.mktemp("node"), candidates=60)
    add_resampled(workdir)
    report.write_report(workdir)
    return browser.in_node(workdir)


def shown(state):
    return [row["id"] for row in state["rows"]]


@pytest.mark.parametrize("change", ["rose", "fell", "same", "all_pass", "all_fail"])
def test_the_filter_keeps_pivots_that_changed_so(in_node, change):
    _, state = in_node(["set", "change", CHANGES[change]])
    number = list(CHANGES).index(change)
    wanted = {row["id"] for row in in_node.rows if row["after"] and number in row["after"][2]}
    assert wanted and set(shown(state)) == wanted


def test_the_sort_orders_by_change_in_mean_and_puts_the_others_last(in_node):
    _, up, down = in_node(["set", "sort", "rise"], ["set", "sort", "fall"])
    rise = {row["id"]: row["after"][0] - row["mean"] for row in in_node.rows if row["after"]}
    for state, sign in ((up, -1), (down, 1)):
        found = [sign * rise[id] for id in shown(state) if id in rise]
        assert found == sorted(found) and found[0] < 0 < found[-1]
        assert all(id in rise for id in shown(state)[: len(rise)])


def test_both_sides_stand_beside_each_other_with_their_differences_marked(in_node):
    row = next(row for row in in_node.rows if row["after"] and row["after"][1] == "1" * 8)
    (state,) = in_node(hash=f"#c={row['id'].replace(' ', '%20')}")
    (opened,) = [found for found in state["rows"] if found["open"]]
    text = opened["text"]
    assert " → 1.00" in text and " → ●●●●●●●●" in text
    assert text.index("Sampled before training") < text.index("Sampled after training")
    assert "Sampled actions" not in text
    after = [sample for sample in opened["samples"] if "after" in "".join(text for _, text in sample)]
    assert len(after) == 2 < len(opened["samples"])
    assert all({"ins", "del"} <= {mark for mark, _ in sample} for sample in after)
