"""experiments/smollm2: which rows are measured, BFCL's verdicts beside ours, and the tables of the page."""

import json
import sys
import types

import pytest
from support.bfcl_reference import need_bfcl
from support.paths import ROOT

from pivotrl_jax.api import load_config
from pivotrl_jax.environments import bfcl
from pivotrl_jax.environments.bfcl import pi_0
from pivotrl_jax.evaluation.language import items
from pivotrl_jax.trajectories import sources

HERE = ROOT / "experiments" / "smollm2"
CALL = (
    '<tool_call>\n{"name": "calculate_triangle_area", "arguments": {"base": 10, "height": %d}}\n</tool_call>'
)


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    for folder in (HERE, ROOT / "experiments"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in ("measure", "agreement", "page", "intervals", "runs", "own_refusals"):
        sys.modules.pop(name, None)


def test_every_group_gets_the_same_rows_whatever_their_order():
    import measure

    ids = [f"{c}_{n}@1" for group in measure.GROUPS.values() for c in group for n in range(400)]
    prompts = [types.SimpleNamespace(candidate=types.SimpleNamespace(id=id)) for id in ids]
    assert {measure.category_of(id) for id in ids} == {c for g in measure.GROUPS.values() for c in g}
    assert measure.category_of("live_parallel_multiple_3-2-0@1") == "live_parallel_multiple"
    chosen = [p.candidate.id for p in measure.chosen(prompts)]
    assert chosen == [p.candidate.id for p in measure.chosen(prompts[::-1])]
    groups = [measure.group_of(id) for id in chosen]
    assert all(groups.count(group) == measure.PER_GROUP for group in measure.GROUPS)


def test_what_makes_pi_0_has_no_placeholder_and_no_row_that_measures_it():
    need_bfcl()
    config = load_config(str(ROOT / "configs" / "bfcl.py:smollm2_pi0")).data
    rows = pi_0.environment.train_tasks(config, 0)
    assert len({t.id for t in rows}) == len(rows)
    talk = [t for t in rows if not t.messages[-1].get("tool_calls")]
    assert {t.messages[-1]["content"] for t in talk} <= set(pi_0.own_words().values())
    assert len(talk) == len(pi_0.own_words()) > 150, "every reply is used"
    with_tools = [t for t in talk if t.tools]
    assert len(with_tools) > 80 and all("irrelevance" in t.id for t in with_tools)
    held_out = load_config(str(ROOT / "configs" / "bfcl.py:smollm2")).data
    measured = {t.scenario for t in sources.load(held_out, 0).held_out}
    assert measured and not measured & {t.scenario for t in rows}
    suite = [item for family in items.families() for item in items.items(family, 100)]
    asked = {getattr(item, "question", "") for item in suite}
    assert not asked & {m[0]["content"] for m in pi_0.prompts().values()}


def test_refusals_in_own_words_take_the_place_of_the_placeholder_alone(monkeypatch):
    need_bfcl()
    import own_refusals

    config = load_config(str(ROOT / "configs" / "bfcl.py:smollm2")).data
    refusals = [t.id for t in own_refusals.rows(config)]
    assert len(refusals) > 50 and all("irrelevance" in id for id in refusals)
    monkeypatch.setattr(own_refusals, "replies", lambda: {refusals[0]: "I have no such function."})
    plain = {t.id: t for t in bfcl.environment.train_tasks(config, 0)}
    own = {t.id: t for t in own_refusals.environment.train_tasks(config, 0)}
    assert {id for id in plain if "irrelevance" not in id} == own.keys() - {refusals[0]}
    for id, row in own.items():
        assert row.messages[:-1] == plain[id].messages[:-1] and row.tools == plain[id].tools
        assert (row.messages[-1] == plain[id].messages[-1]) == (id != refusals[0])
    assert own[refusals[0]].messages[-1]["content"] == "I have no such function."


def test_bfcls_scorer_reads_the_text_alone():
    need_bfcl()
    import agreement

    replies = {
        "simple_python_0@1": (CALL % 5, True),
        "simple_python_0@2": (CALL % 6, False),
        "simple_python_0@3": ("The area is 25.", False),
        "irrelevance_0@1": ("No function fits.", True),
        "live_irrelevance_0-0-0@1": (CALL % 5, False),
    }
    found = agreement.verdicts({turn: {"text": text} for turn, (text, _) in replies.items()})
    assert found == {turn: verdict for turn, (_, verdict) in replies.items()}


def test_changes_are_paired_row_by_row(monkeypatch):
    import intervals
    import page

    monkeypatch.setattr(intervals, "REPEATS", 200)

    def result(rewards, right, bits):
        turns = {f"simple_python_{i}@1": {"reward": r} for i, r in enumerate(rewards)}
        skills = [{"id": "a", "family": "facts", "correct": right}]
        skills += [{"id": "b", "family": "text", "bits_per_byte": bits}]
        return {"turns": turns, "skills": skills}

    pi_0, arm = result([0, 1, 0, 1], 1.0, 1.5), [result([1, 1, 0, 1], 0.0, 1.25)]
    after, change = page.compared(pi_0, arm, "call turns")
    assert (after["value"], change["value"]) == (0.75, 0.25)
    assert change["low"] >= 0, "no row got worse"
    assert page.compared(pi_0, arm, page.BITS)[1]["value"] == -0.25
    lines = page.table(pi_0, {"pivotrl": arm}, {"out of domain": "all", "group live": "live"})
    assert lines[0] == "| | n | pi_0 | pivotrl |" and lines[2].startswith(
        "| all | 1 | 1.000 | 0.000<br>-1.000"
    )
    assert len(lines) == 3, "a measure without items has no row"
    json.dumps(change)


def test_arms_are_compared_over_the_seeds_that_both_have(monkeypatch):
    import intervals
    import page

    monkeypatch.setattr(intervals, "REPEATS", 200)

    def result(call, talk, right):
        turns = {"simple_python_0@1": {"reward": call}, "irrelevance_0@1": {"reward": talk}}
        return {"turns": turns, "skills": [{"id": "a", "family": "facts", "correct": right}]}

    arms = {
        "pivotrl": {0: result(1, 0, 1), 2: result(1, 1, 1)},
        "sft_1": {1: result(0, 0, 0), 2: result(0, 1, 0)},
        "sft_4": {5: result(0, 0, 0)},
    }
    found = page.differences(result(0, 0, 1), arms)
    assert found["pivotrl - pi_0"]["call turns"]["value"] == 1
    assert found["pivotrl - pi_0"]["all rows"] | {"low": 0, "high": 0} == {
        "value": 0.75,
        "low": 0,
        "high": 0,
        "seeds": 2,
    }
    both = found["pivotrl - sft_1"]
    assert (both["out of domain"]["value"], both["group irrelevance"]["value"]) == (1, 0)
    assert both["all rows"]["seeds"] == 1, "seed 2 is the one that both have"
    assert found["sft_1 - pivotrl"]["call turns"]["value"] == -1
    assert not any("pivotrl" in name and "sft_4" in name for name in found)


def test_a_killed_measurement_goes_on_and_another_policys_parts_are_refused(tmp_path):
    import measure

    computed = []

    def compute(name):
        return lambda: computed.append(name) or {"of": name}

    for _ in range(2):
        parts = measure.Parts(tmp_path / "m.parts", {"policy": "a"})
        found = [parts.of(name, compute(name))[0] for name in ("turns_0", "skills")]
        assert found == [{"of": "turns_0"}, {"of": "skills"}]
    assert computed == ["turns_0", "skills"]
    with pytest.raises(SystemExit, match="another measurement"):
        measure.Parts(tmp_path / "m.parts", {"policy": "b"})
    parts.remove()
    assert not (tmp_path / "m.parts").exists()
