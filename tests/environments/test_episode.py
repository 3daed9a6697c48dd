"""Episodes: the expert's replay, and BFCL's rule on what a policy plays."""

import json

import pytest
from support.tiny_world import BACKENDS, LATE, make_task

from pivotrl_jax.environments.episode import ScriptedEpisode, play_expert, replay
from pivotrl_jax.environments.tasks import task_from_dict
from pivotrl_jax.records import Action, Call, InputError

MILK = Call("add_note", {"text": "milk"})
EGGS = Call("add_note", {"text": "eggs", "pinned": True})
LIST = Call("list_notes", {})
WORK = Call("open_folder", {"folder": "work"})
PLAY = Call("open_folder", {"folder": "play"})
TEXT = Action(content="ok")


def calls(*made):
    return Action(calls=made)


def play(*actions, **options):
    episode = ScriptedEpisode(make_task(), backends=BACKENDS, **options)
    for action in actions:
        episode.step(action)
    return episode


def test_the_replay_is_one_call_per_action_then_a_text():
    trajectory = replay(make_task(replies=["noted", "", ""]), backends=BACKENDS)
    roles = [message["role"] for message in trajectory.messages]
    steps = ["assistant", "tool"]
    assert roles == ["user", *steps * 3, "assistant", "user", "assistant", "user", *steps, "assistant"]
    points = [(case["turn"], case["k"]) for case in trajectory.cases.values()]
    assert points == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (2, 1)]
    assert all(trajectory.messages[i]["role"] == "assistant" for i in trajectory.cases)
    assert trajectory.messages[7]["content"] == "noted"
    call = trajectory.messages[3]["tool_calls"][0]
    assert call["function"] == {"name": "add_note", "arguments": {"text": "eggs", "pinned": True}}
    assert trajectory.messages[4] == {
        "role": "tool", "tool_call_id": call["id"], "name": "add_note", "content": '{"id": 2}'
    }  # fmt: skip


def test_bundles_group_the_experts_calls():
    trajectory = replay(make_task(bundles=[[2, 1], [], []]), backends=BACKENDS)
    sizes = [len(m.get("tool_calls", [])) for m in trajectory.messages if m["role"] == "assistant"]
    assert sizes == [2, 1, 0, 0, 1, 0]
    assert [case["k"] for case in trajectory.cases.values()] == [0, 2, 3, 0, 0, 1]
    ids = [m["tool_call_id"] for m in trajectory.messages if m["role"] == "tool"]
    assert ids == ["call_0", "call_1", "call_2", "call_3"]


def test_late_functions_are_announced_and_not_among_the_tools():
    trajectory = replay(task_from_dict(LATE, "x:1"), backends=BACKENDS)
    assert "open_folder" not in [tool["name"] for tool in trajectory.tools]
    assert "What about now?" in trajectory.messages[8]["content"]


def test_ground_truth_that_fails_is_refused_with_its_call():
    task = make_task(ground_truth=[["add_note('tea')"], [], []])
    assert play_expert(task, BACKENDS).failures
    with pytest.raises(InputError, match=r"tiny_0: ground truth fails at turn 0, call 0: add_note\('tea'\)"):
        replay(task, backends=BACKENDS)


@pytest.mark.parametrize(
    "actions",
    [
        [calls(MILK), calls(EGGS), calls(LIST), TEXT, TEXT, calls(WORK), TEXT],
        [calls(MILK, EGGS, LIST), TEXT, TEXT, calls(WORK), TEXT],
        [calls(MILK, MILK), calls(LIST, EGGS), calls(LIST), TEXT, calls(LIST), TEXT, calls(WORK), TEXT],
        [calls(Call("fly", {})), calls(MILK, EGGS, LIST), TEXT, TEXT, calls(PLAY), TEXT],  # BFCL ignores cwd
    ],
    ids=["as the expert", "merged", "extra, failed and reordered calls", "another working directory"],
)
def test_what_bfcl_passes(actions):
    episode = play(*actions)
    assert episode.done and episode.check().reward == 1.0


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ([TEXT], "no_call"),
        ([calls(LIST), TEXT], "state"),
        ([calls(MILK, EGGS), TEXT], "response"),
        ([calls(EGGS, MILK, LIST), TEXT], "state"),
        ([calls(MILK, EGGS, LIST), TEXT, TEXT, calls(LIST), TEXT], "response"),
        ([Action(content="x", text="x", calls=(MILK, EGGS, LIST), malformed="cut off")], "no_call"),
    ],
)
def test_what_bfcl_fails(actions, reason):
    episode = play(*actions)
    assert episode.done
    assert (episode.check().reward, episode.check().reason) == (0.0, reason)


def test_an_unfinished_episode_has_no_reward_and_a_finished_one_takes_no_steps():
    episode = play(calls(MILK))
    assert (episode.check().reward, episode.check().reason, episode.done) == (0.0, "unfinished", False)
    with pytest.raises(ValueError, match="is done"):
        play(TEXT, TEXT)


def test_more_calling_actions_than_allowed_in_one_user_turn_fail():
    assert not play(*[calls(LIST)] * 3, max_steps=3).done
    assert play(*[calls(LIST)] * 4, max_steps=3).check().reason == "too_many_steps"


def test_turns_and_calls_are_counted_and_messages_answer_every_call():
    episode = play(calls(MILK, EGGS), calls(LIST), TEXT)
    assert (episode.turns, episode.calls, episode.user_turn) == (3, 3, 1)
    made = [c["id"] for m in episode.messages for c in m.get("tool_calls", [])]
    answered = [m["tool_call_id"] for m in episode.messages if m["role"] == "tool"]
    assert made == answered == ["call_0", "call_1", "call_2"]
    assert episode.messages[-1]["role"] == "user"


@pytest.mark.parametrize("arguments", [None, "x", {"text": "\ud800"}, {"text": float("nan")}])
def test_odd_arguments_do_not_break_play(arguments):
    episode = play(calls(Call("add_note", arguments)), calls(MILK, EGGS, LIST), TEXT)
    assert (episode.turns, episode.calls) == (3, 4)
    answers = [message["content"] for message in episode.messages if message["role"] == "tool"]
    assert len(answers) == 4 and '"milk", "eggs"' in answers[-1]
    assert json.dumps(episode.messages, ensure_ascii=False).encode("utf-8")  # no lone surrogate is left
