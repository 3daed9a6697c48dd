"""Claims about the report's browser of candidates: what its data holds, and what its script does with it."""

import json
import re
from pathlib import Path

import pytest
from support import browser
from support.browser import data_of, detail_of
from support.fabricated_run import HOSTILE, Outline, build_workdir, rows_of, write_lines

from pivotrl_jax import records
from pivotrl_jax.pivots import changes
from pivotrl_jax.records import Candidate, Pivot, Profile, Rollout
from pivotrl_jax.report import candidates, page, report
from pivotrl_jax.report.candidates import SHOWN


@pytest.mark.parametrize("count", [60, 520])
def test_every_candidate_is_there_with_its_samples_in_the_page_or_beside_it(tmp_path, count):
    build_workdir(tmp_path, candidates=count, group=4)
    source = report.write_report(tmp_path).read_text("utf-8")
    beside = count > candidates.MOST_INSIDE
    assert (tmp_path / "report_data").exists() == beside
    assert ("520 candidates are in report_data/, which must be beside this page" in source) == beside
    made = records.read_records(tmp_path / "candidates.jsonl", Candidate)
    profiles = {p.candidate_id: p for p in records.read_records(tmp_path / "profiles.jsonl", Profile)}
    data = data_of(tmp_path)
    rows = rows_of(data["index"])
    assert [row["id"] for row in rows] == [candidate.id for candidate in made]
    assert {row["outcome"] for row in rows} == {"all fail", "pivot", "too easy", "all pass"}
    files = [f"{i:05d}" for i in range(-(-count // 100))]
    assert sorted(data) == [*files, "index"] and sum(len(data[name]) for name in files) == count
    for row, candidate in zip(rows, made):
        profile, detail = profiles[row["id"]], detail_of(data, row)
        assert (row["tool"], row["turn"]) == (changes.tool_of(candidate), candidate.turn)
        assert row["mean"] == round(profile.mean, 3) and row["marks"].count("1") == sum(profile.rewards)
        assert (row["outcome"] == "all fail") == (profile.mean == 0)
        assert f"rewards {' '.join(f'{r:g}' for r in profile.rewards)}" in detail["about"]
        assert sum(action[2] for action in detail["actions"]) == 4 and not detail["others"]
        assert {action[1] for action in detail["actions"]} == set(profile.rewards)
        assert set(row["reasons"]) == {action[3] for action in detail["actions"]}


def test_samples_are_in_the_notation_of_the_demonstration(tmp_path):
    build_workdir(tmp_path)
    report.write_report(tmp_path)
    data = data_of(tmp_path)
    row = rows_of(data["index"])[0]
    detail = detail_of(data, row)
    assert detail["gold"] == 'add_eventword 0(title="word 0", hour=0)'
    assert {action[5] for action in detail["actions"]} == {
        f'add_event(title="word 0", hour={k})' for k in range(8)
    }


def written(call: str) -> str:
    return f"<tool_call>\n{call}\n</tool_call>"


def one_candidate(root: Path, texts: list[str], rewards: list[float], run: dict | None = None) -> dict:
    """What the page holds of a candidate whose samples are these."""
    call = {"function": {"name": "add", "arguments": {"title": "tea", "hour": 3}}}
    gold = {"role": "assistant", "content": "", "tool_calls": [{"id": "0", "type": "function", **call}]}
    ask = [{"role": "user", "content": "add tea"}]
    candidate = Candidate("c", "t", 0, ask, [], gold, "exact", {}, "s")
    mean = sum(rewards) / len(rewards)
    profile = Profile("c", rewards, mean, mean * (1 - mean), True, "p", "exact/1", 1.0, 0)
    settings = {"config": {"profile": {"lambda_diff": 0.6}}, **(run or {})}
    (root / "run.json").write_text(json.dumps(settings))
    write_lines(root / "candidates.jsonl", [candidate])
    write_lines(root / "profiles.jsonl", [profile])
    rollouts = [
        Rollout("c", k, [1], [0.0], [0.0], True, text, reward, "ok" if reward else "differs")
        for k, (text, reward) in enumerate(zip(texts, rewards))
    ]
    write_lines(root / "rollouts" / "profile.jsonl", rollouts)
    report.write_report(root)
    return detail_of(data_of(root), rows_of(data_of(root)["index"])[0])


def test_equal_actions_are_merged_and_those_of_the_demonstration_are_named(tmp_path):
    texts = [
        written('{"name": "add", "arguments": {"hour": 3, "title": "tea"}}'),
        written('{"name":"add","arguments":{"title":"tea","hour":3}}'),
        written('{"name": "add", "arguments": {"hour": 4, "title": "tea"}}'),
    ]
    detail = one_candidate(tmp_path, texts, [1.0, 1.0, 0.0])
    assert detail["actions"] == [
        ["pass", 1.0, 2, "ok", "what the demonstration does", 'add(title="tea", hour=3)', "", 1],
        ["fail", 0.0, 1, "differs", "", 'add(title="tea", hour=4)', "", 1],
    ]
    words = "".join(Outline((tmp_path / "report.html").read_text("utf-8")).text)
    assert "2 samples do what the demonstration does, and none of them was left without a reward." in words


def test_a_copy_of_the_demonstration_without_reward_is_counted_against_the_verifier(tmp_path):
    text = written('{"name": "add", "arguments": {"title": "tea", "hour": 3}}')
    one_candidate(tmp_path, [text, "<think>\nhm\n</think>\n\n" + text, "no"], [0.0, 0.0, 0.0])
    words = "".join(Outline((tmp_path / "report.html").read_text("utf-8")).text)
    assert "2 samples do what the demonstration does, and 2 of them got no reward: read those first" in words


def test_what_cannot_be_read_stays_as_it_was_sampled(tmp_path):
    broken = written('{"name": "add", "arguments": {')
    detail = one_candidate(tmp_path, [broken, "hello"], [0.0, 0.0])
    by_text = {action[5]: action for action in detail["actions"]}
    assert by_text[broken][4].startswith("as it was sampled: ") and by_text[broken][7] == 0
    assert by_text["hello"][4] == "" and by_text["hello"][7] == 1
    assert "The calls of 1 samples cannot be read" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("known", [{"chat": {"dialect": "mistral", "opens_thinking": False}}, {}])
def test_samples_are_read_in_the_dialect_of_the_run(tmp_path, known):
    text = '[TOOL_CALLS] [{"name": "add", "arguments": {"title": "tea"}}]'
    detail = one_candidate(tmp_path, [text] * 2, [0.0, 0.0], known)
    assert [action[5] for action in detail["actions"]] == ['add(title="tea")']


def test_a_rollout_of_another_stage_is_not_shown_as_the_profiles(tmp_path):
    build_workdir(tmp_path)
    profile = records.read_records(tmp_path / "profiles.jsonl", Profile)[0]
    other = Rollout(profile.candidate_id, 0, [1], [0.0], [0.0], True, "later", 1 - profile.rewards[0], "ok")
    write_lines(tmp_path / "rollouts" / "a_train.jsonl", [other])
    report.write_report(tmp_path)
    data = data_of(tmp_path)
    detail = detail_of(data, rows_of(data["index"])[0])
    assert "later" not in [action[5] for action in detail["actions"]]
    assert sum(action[2] for action in detail["actions"]) == len(profile.rewards)


@pytest.mark.parametrize("word", [str, lambda i: f"{'&' * 300} {i}", lambda i: f"{'語' * 300} {i}"])
def test_the_most_candidates_of_one_page_stay_under_three_megabytes(tmp_path, word):
    build_workdir(tmp_path, candidates=candidates.MOST_INSIDE, group=16, long=500, word=word)
    path = report.write_report(tmp_path)
    assert path.stat().st_size < 3_000_000
    source = path.read_text(encoding="utf-8")
    assert Outline(source).outside[-1] == ("/html", [])
    data = data_of(tmp_path)
    assert len(data["index"]["rows"]) == candidates.MOST_INSIDE
    assert all(len(detail["actions"]) == 16 for name in data if name != "index" for detail in data[name])


def test_candidates_without_rollouts_or_profile_are_there_too(tmp_path):
    build_workdir(tmp_path, candidates=520, group=2)
    lines = (tmp_path / "profiles.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "profiles.jsonl").write_text("".join(lines[1:]))
    lost = json.loads(lines[1])["candidate_id"]
    rollouts = (tmp_path / "rollouts" / "profile.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in rollouts if json.loads(line)["candidate_id"] != lost]
    (tmp_path / "rollouts" / "profile.jsonl").write_text("".join(kept))
    report.write_report(tmp_path)
    data = data_of(tmp_path)
    first, second, *_ = rows_of(data["index"])
    assert (first["outcome"], first["mean"]) == ("not profiled", None)
    assert second["outcome"] != "not profiled"
    for row in (first, second):
        detail = detail_of(data, row)
        assert detail["actions"] == [] and detail["gold"].startswith("add_event")


def test_only_files_that_a_report_wrote_are_replaced_or_deleted(tmp_path):
    build_workdir(tmp_path, candidates=520, group=2)
    (tmp_path / "report_data" / "sub").mkdir(parents=True)
    of_earlier = ["00009.js", "00007.js.tmp"]
    of_others = ["notes.txt", "000.js", "mine.js", "0000x.js", "sub/00001.js"]
    for name in (*of_earlier, *of_others):
        (tmp_path / "report_data" / name).write_text("here")
    report.write_report(tmp_path)
    for name in of_others:
        assert (tmp_path / "report_data" / name).read_text() == "here"
    assert not any((tmp_path / "report_data" / name).exists() for name in of_earlier)
    assert (tmp_path / "report_data" / "index.js").is_file()

    build_workdir(tmp_path, candidates=20, group=2)  # now all of them are in the page
    report.write_report(tmp_path)
    left = {str(p.relative_to(tmp_path / "report_data")) for p in (tmp_path / "report_data").rglob("*.*")}
    assert left == set(of_others)


def test_an_empty_folder_of_an_earlier_report_goes(tmp_path):
    build_workdir(tmp_path, candidates=520, group=2)
    report.write_report(tmp_path)
    build_workdir(tmp_path, candidates=20, group=2)
    report.write_report(tmp_path)
    assert not (tmp_path / "report_data").exists()


def test_a_report_that_cannot_be_made_leaves_the_earlier_one(tmp_path):
    build_workdir(tmp_path, candidates=520, group=2)
    before = report.write_report(tmp_path).read_bytes(), data_of(tmp_path)
    (tmp_path / "rollouts" / "z.jsonl").write_text("{}\n{\n")
    with pytest.raises(records.InputError, match=r"z\.jsonl"):
        report.write_report(tmp_path)
    assert before == ((tmp_path / "report.html").read_bytes(), data_of(tmp_path))


def test_without_candidates_jsonl_the_pivots_are_shown(tmp_path):
    build_workdir(tmp_path)
    (tmp_path / "candidates.jsonl").unlink()
    report.write_report(tmp_path)
    pivots = records.read_records(tmp_path / "pivots.jsonl", Pivot)
    rows = rows_of(data_of(tmp_path)["index"])
    assert pivots and [row["id"] for row in rows] == [pivot.candidate.id for pivot in pivots]


@pytest.mark.parametrize("count", [40, 520])
def test_hostile_text_stays_text(tmp_path, count):
    build_workdir(tmp_path, candidates=count, group=2, word=lambda i: HOSTILE[i % len(HOSTILE)] + "x" * 2000)
    source = report.write_report(tmp_path).read_text("utf-8")
    data = data_of(tmp_path)
    shown = json.dumps(data, ensure_ascii=False)
    assert not re.search("[\x00\x07\u202e\ud800]", shown) and r"lone\\ud800" in shown
    assert re.search(r" … \d+,\d+ more characters", shown)
    if count < candidates.MOST_INSIDE:  # nothing ends the block of JSON, or opens a comment in it
        block = source.partition('id="data">')[2].partition("</script>")[0]
        assert not set("<>&") & set(block) and len(block) > 10_000
    room = candidates.BESIDE if count > candidates.MOST_INSIDE else candidates.INSIDE
    details = [detail for name, value in data.items() if name != "index" for detail in value]
    assert max(len(json.dumps(detail)) for detail in details) < 4 * room + 5000
    # the script makes text nodes alone, and a page that is opened as a file may add these scripts alone
    script = page.asset("report.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", script)
    assert script.count("script.src") == 1 and "'strict-dynamic'" in source


def test_short_texts_leave_their_room_to_long_ones():
    level = lambda texts, room: candidates.level_of(map(candidates._size, texts), room)  # noqa: E731
    assert level(["a" * 10, "b" * 500, "c" * 30, "d" * 900], 240) == 100
    assert level(["a" * 10, "b" * 20], 240) == 20
    assert level(["&" * 100, "b" * 5], 105) == 100


@pytest.mark.parametrize("text", ["a<b" * 100, "語" * 99, "\ud800\x00" * 70, "😀" * 40])
def test_a_text_is_cut_to_its_room_in_json(text):
    shown = candidates._cut(text, 100)
    kept, _, more = shown.partition(" … ")
    assert 88 < candidates._size(kept) <= 100
    left = int(more.removesuffix(" more characters"))
    assert kept == page.visible(text[: len(text) - left])


# ---- the script, in node: what it makes of the data


@pytest.fixture(scope="module")
def in_node(tmp_path_factory):
    """A function from the steps that a reader takes to what is then shown."""
    workdir = build_workdir(tmp_path_factory.mktemp("node"), candidates=150, group=4)
    report.write_report(workdir)
    return browser.in_node(workdir)


def shown(state: dict) -> list[str]:
    return [row["id"] for row in state["rows"]]


@pytest.mark.parametrize("files", [False, True])
def test_all_fail_stand_first_and_the_rest_comes_on_demand(in_node, files):
    first, then = in_node(["click", "more"], files=files)
    order = list(SHOWN.values())
    wanted = [row["id"] for row in sorted(in_node.rows, key=lambda row: order.index(row["outcome"]))]
    assert shown(first) == wanted[:100] and first["found"] == "100 shown, 150 found of 150"
    assert shown(then) == wanted and then["rows"][0]["outcome"] == "all fail"


@pytest.mark.parametrize(
    "field, value, holds",
    [
        ("words", "ADD_EVENT 0_14", lambda row: "0_14" in row["id"] and "add_event" in row["gist"]),
        ("outcome", "too easy", lambda row: row["outcome"] == "too easy"),
        ("reason", "ok", lambda row: "ok" in row["reasons"]),
        ("tool", "(talk)", lambda row: row["tool"] == "(talk)"),
        ("turn-from", "3", lambda row: row["turn"] >= 3),
        ("turn-to", "1", lambda row: row["turn"] <= 1),
        ("mean-from", "0.5", lambda row: row["mean"] >= 0.5),
        ("mean-to", "0.25", lambda row: row["mean"] <= 0.25),
    ],
)
def test_each_filter_keeps_what_it_names(in_node, field, value, holds):
    _, state = in_node(["set", field, value])
    wanted = {row["id"] for row in in_node.rows if holds(row)}
    assert 0 < len(wanted) < 150 and state["found"].endswith(f" {len(wanted)} found of 150")
    assert set(shown(state)) <= wanted and len(state["rows"]) == min(100, len(wanted))


def test_the_sort_orders_by_mean_and_by_turn(in_node):
    _, up, down, late = in_node(["set", "sort", "up"], ["set", "sort", "down"], ["set", "sort", "late"])
    means = {row["id"]: row["mean"] for row in in_node.rows}
    turns = {row["id"]: row["turn"] for row in in_node.rows}
    for state, values, sign in ((up, means, 1), (down, means, -1), (late, turns, -1)):
        found = [sign * values[id] for id in shown(state)]
        assert found == sorted(found) and found[0] != found[-1]


def test_a_link_opens_its_candidate_and_an_open_candidate_links_to_itself(in_node):
    id = in_node.rows[140]["id"]
    first, every = in_node(["click", "reset"], hash=f"#c={id.replace(' ', '%20')}")
    (row,) = [row for row in first["rows"] if row["open"]]
    assert row["id"] == id and id in row["text"] and f'title="{"word 140"}"' in row["text"]
    assert row["links"] == ["#c=" + id.replace("@", "%40").replace(" ", "%20")]
    assert len(every["rows"]) == 100
    (lost,) = in_node(hash="#c=nobody")
    assert lost["found"] == "No candidate has the id of this link: nobody"


def test_a_sample_shows_what_it_changes_in_the_demonstration(in_node):
    id = in_node.rows[1]["id"]
    marked, plain = in_node(["check", "diff", False], hash=f"#c={id.replace(' ', '%20')}")
    row = next(row for row in marked["rows"] if row["open"])
    by_text = {"".join(text for mark, text in sample if mark != "del"): sample for sample in row["samples"]}
    sample = by_text['add_event(title="word 1", hour=3)']
    assert ["ins", "3"] in sample and ["del", "1"] in sample and sample[-1] == ["span", ")"]
    row = next(row for row in plain["rows"] if row["open"])
    assert {mark for sample in row["samples"] for mark, _ in sample} == {"span"}


def test_candidates_that_were_not_profiled_have_no_mean_and_no_outcome(tmp_path):
    build_workdir(tmp_path, candidates=5)
    for name in ("profiles.jsonl", "pivots.jsonl", "rollouts/profile.jsonl"):
        (tmp_path / name).unlink()
    source = report.write_report(tmp_path).read_text("utf-8")
    assert "all fail first" not in source and "mean, low to high" not in source
    (state,) = browser.in_node(tmp_path)(sort="file")
    assert len(state["rows"]) == 5 and {row["outcome"] for row in state["rows"]} == {None}
