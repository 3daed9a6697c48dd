"""What a notebook shows: the numbers are there, and nothing that a model or a file wrote becomes markup."""

import dataclasses
import html.parser
import json

import pytest

from pivotrl_jax import api
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import Candidate, InputError, Prefix, Profile, Rollout, Trajectory, write_records
from pivotrl_jax.views.opened import Evaluation, Selection, Trajectories

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&\u202e{{ 7*77777 }}{% raw %}"


class Markup(html.parser.HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def harmless(page: str, shown: bool = True) -> str:
    """The text of a page, which has nothing of EVIL but its letters."""
    found = Markup(page)
    assert not {"script", "img", "iframe", "link", "object"} & found.tags
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "href")]
    assert "544439" not in found.text and "\u202e" not in found.text
    if shown:
        assert EVIL.replace("\u202e", "\\u202e") in found.text
    return found.text


def candidate(id: str, words: str = "hello", call: bool = True) -> Candidate:
    """Every text of it holds `words`."""
    function = {"name": words, "arguments": {words: words}}
    demonstration = {"role": "assistant", "content": words, "reasoning_content": words}
    if call:
        demonstration["tool_calls"] = [{"id": words, "type": "function", "function": function}]
    history = [{"role": "user", "content": words}, {"role": "tool", "content": words, "name": words}]
    return Candidate(
        id=id,
        trajectory_id=id,
        turn=3,
        messages=Prefix([*history, demonstration], 2),
        tools=[],
        demonstration=demonstration,
        verifier=words,
        case={},
        scenario=words,
    )


def profile(id: str, rewards: list[float], words: str = "exact/1") -> Profile:
    mean, variance = selection_lib.mean_and_variance(rewards)
    return Profile(id, rewards, mean, variance, True, words, words, 1.0, 0)


def rollout(id: str, sample: int, reward: float | None, words: str = "hi") -> Rollout:
    return Rollout(id, sample, [1], [0.0], [0.0], sample % 2 == 0, words, reward, words, words)


@pytest.fixture
def workdir(tmp_path):
    """A run of three candidates, whose every text is EVIL."""
    ids = [f"{EVIL}@{i}" for i in range(3)]
    rewards = [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    candidates = [candidate(id, EVIL, call=i < 2) for i, id in enumerate(ids)]
    profiles = [profile(id, r, EVIL) for id, r in zip(ids, rewards)]
    found = selection_lib.select(profiles, 0.6, 2)
    write_records(tmp_path / "candidates.jsonl", candidates)
    write_records(tmp_path / "profiles.jsonl", profiles)
    write_records(tmp_path / "pivots.jsonl", found.pivots(candidates))
    drawn = [rollout(id, i, r, EVIL) for id, group in zip(ids, rewards) for i, r in enumerate(group)]
    write_records(tmp_path / "rollouts" / "00000.jsonl", drawn)
    estimate = {"value": 0.25, "low": 0.125, "high": 0.5}
    sides = {
        side: {EVIL: estimate, "families": {EVIL: estimate}} for side in ("before", "after", "difference")
    }
    pages = {
        "run.json": {
            "config": {"profile": {"lambda_diff": 0.6, "group_size": 2}, "name": EVIL},
            "model": EVIL,
            "table": [[EVIL, EVIL]],
        },
        "evaluation.json": sides,
    }
    for name, page in pages.items():
        (tmp_path / name).write_text(json.dumps(page), "utf-8")
    steps = [{"step": i, "reward_mean": i / 4, "loss": None, EVIL: 1.0} for i in range(4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
    return tmp_path


def test_a_run_is_read_from_its_directory(workdir):
    run = api.open_run(workdir)
    assert [len(x) for x in (run.candidates, run.profiles, run.pivots, run.metrics)] == [3, 3, 1, 4]
    assert run.selection.counts() == {
        **dict.fromkeys(selection_lib.OUTCOMES, 0),
        "pivot": 1,
        "all_fail": 1,
        "all_pass": 1,
    }
    assert [t.outcome for t in run.turns()] == ["pivot", "all_fail", "all_pass"]
    (turn,) = run.turns("pivot")
    assert [r.reward for r in turn.rollouts] == [0.0, 1.0] == turn.profile.rewards
    assert run.turn(turn.id).candidate == turn.candidate
    assert run.table == [(EVIL, EVIL)] and run.config["name"] == EVIL


def test_what_is_not_there_is_said(workdir, tmp_path):
    run = api.open_run(workdir)
    with pytest.raises(InputError, match="no candidate has the id 'nosuch'"):
        run.turn("nosuch")
    with pytest.raises(InputError, match="want one of pivot, all_fail"):
        run.turns("failed")
    with pytest.raises(InputError, match="limit is -1; want a number of turns, or 0 for all"):
        run.turns(limit=-1)
    with pytest.raises(InputError, match="limit is 'x'; want a number of turns"):
        run.turns(limit="x")
    with pytest.raises(InputError, match=r"run.json: no such file; name the work directory of a run"):
        api.open_run(tmp_path / "nosuch")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "run.json").write_text("{}")
    bare = api.open_run(tmp_path / "bare")
    assert (bare.candidates, bare.pivots, bare.metrics, bare.turns()) == ([], [], [], [])
    assert bare.selection is None and bare.evaluation is None and bare.table == []
    harmless(bare._repr_html_(), shown=False)


def test_a_run_shows_its_table_curves_and_outcomes_and_no_markup_of_others(workdir):
    page = api.open_run(workdir)._repr_html_()
    text = harmless(page)
    assert page.count("<svg") == 2, "the histogram, and the curve of rewards; the loss has no finite value"
    assert "0.250 [0.125, 0.500]" in text and "Mean reward of the batch" in text
    assert "33% of the candidates are pivots" in text


def test_turns_show_samples_and_verdicts_and_no_markup_of_others(workdir):
    run = api.open_run(workdir)
    text = harmless(run.turns()._repr_html_())
    for words in ("pivot · call", "all fail · call", "all pass", "○●", "cut at the token limit"):
        assert words in " ".join(text.split()), words
    one = harmless(run.turns("pivot")[0]._repr_html_())
    assert "End of the prompt" in one and "Demonstration" in one and "Samples" in one


def test_equal_samples_are_shown_once_and_long_ones_are_cut():
    from pivotrl_jax.views.opened import Turn

    same = [dataclasses.replace(rollout("a", 2 * i, 1.0), sample=i) for i in range(5)]
    long = rollout("a", 6, None, "x" * 10_000)
    text = Markup(Turn(candidate("a"), None, "", [*same, long])._repr_html_()).text
    assert "×5" in text and "not profiled" in text and "undecided" in text
    assert "… 6,000 more characters" in text and "x" * 4001 not in text


def test_a_selection_and_an_evaluation_show_themselves():
    profiles = [profile("a", [0.0, 1.0], EVIL), profile("b", [1.0, 1.0], EVIL)]
    chosen = Selection.of(selection_lib.select(profiles, 0.6, 2))
    text = harmless(chosen._repr_html_(), shown=False)
    assert "50% of the candidates are pivots" in text and str(chosen).startswith("turns")
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    found = Evaluation(EVIL, EVIL, "x.json", {EVIL: estimate, "families": {EVIL: estimate}}, 3)
    assert "0.500" in harmless(found._repr_html_())
    assert str(found).splitlines()[-1].startswith("left out: 3 samples")


def test_trajectories_show_what_was_read_and_what_was_left_out(tmp_path):
    whole = [{"role": "user", "content": EVIL}, {"role": "assistant", "content": EVIL}]
    trajectory = Trajectory(EVIL, whole, [], EVIL, EVIL, EVIL, dialect=EVIL)
    text = harmless(Trajectories([trajectory], {EVIL: EVIL})._repr_html_())
    assert f"left out {EVIL[:20]}" in text and "none recorded" in text
    file = tmp_path / "rows.jsonl"
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]}
    file.write_text(json.dumps(good) + "\n{\n")
    read = api.load_trajectories(file)
    assert len(read) == 1 and list(read.left_out) == [f"{file}:2"]
