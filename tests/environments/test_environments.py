"""Environments: the table, those of the user's own, and which of them a task id belongs to."""

import importlib.metadata
import re
import sys

import pytest
from support.configs import CONFIGS

from pivotrl_jax import environments, plugins
from pivotrl_jax.environments import base
from pivotrl_jax.records import Action, Call, InputError
from pivotrl_jax.rollouts import episodes
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import check_config
from pivotrl_jax.trajectories import sources
from pivotrl_jax.trajectories.extract import extract

EXAMPLE = re.search(r"\n( {4}class Riddle:.*?riddles = Riddles\(\)\n)", base.__doc__, re.DOTALL)[1]
MODULE = (
    "from pivotrl_jax.environments.base import Environment, Episode\n"
    "from pivotrl_jax.records import Trajectory, Verdict\n\n"
    + "\n".join(line[4:] for line in EXAMPLE.split("\n"))
    + "\nNUMBER = 3\n"
)


@pytest.fixture(autouse=True)
def riddles(tmp_path, monkeypatch):
    """The example of the contract as an importable module; what a test names is forgotten again."""
    (tmp_path / "my_riddles.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(environments, "_named", {})
    yield "my_riddles:riddles"
    sys.modules.pop("my_riddles", None)


def config_of(source, **changes):
    config = CONFIGS.get_config()
    config.data.source, config.data.demonstrations = source, 8
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def test_the_example_is_read_as_demonstrations_and_held_out_tasks(riddles):
    config = config_of(riddles, validation__every=1, validation__share=0.5)
    check_config.check(config)
    data, validation = sources.load_with_validation(config)
    parts = [data.demonstrations, data.held_out, validation.trajectories]
    assert [len(part) for part in parts] == [3, 2, 3]
    assert len({t.id for part in parts for t in part}) == 8, "every riddle is on one side"
    tasks = [data.train_tasks, data.held_out_tasks, validation.tasks]
    assert [[t.id for t in part] for part in tasks] == [[t.id for t in part] for part in parts]
    assert {c.verifier for c in extract(data.demonstrations)} == {"exact"}


class Policy:
    """Stands for a sampler and a chat: a prompt is the length of the text, a completion the answer's text."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def act(self, params, requests, key, *more):
        self.requests += requests
        return [[Completion(self.answer(r.name), [], [], True)] for r in requests]

    def prompt_ids(self, messages, tools):
        return [1] * sum(len(m["content"]) for m in messages)

    def unknown_ids(self, text):
        return []

    def decode(self, text):
        return text

    def parse(self, text, tools=()):
        return Action(content=text)


def test_the_example_is_played_as_episodes(riddles):
    tasks = sources.load(config_of(riddles).data, 0).train_tasks[:3]
    policy = Policy(lambda name: "2" if name.startswith("riddle_1#") else "hm")
    played = episodes.play(Rollouts(policy, policy), None, tasks, 2, 5, 100, None)
    assert [e.id for e in played] == [f"{task.id}#{n}" for task in tasks for n in range(2)]
    assert {e.id: (e.success, e.reason) for e in played} == {
        f"{task.id}#{n}": (1.0, "ok") if task.id == "riddle_1" else (0.0, "wrong")
        for task in tasks
        for n in range(2)
    }
    assert all(len(e.turns) == 1 for e in played)


def calls(*names):
    return Action(calls=tuple(Call(name, {}) for name in names))


def test_an_episode_shows_its_actions_and_what_answered_them():
    class Echo(base.Episode):
        def respond(self, action):
            self.done = not action.calls
            return [self.tool_message(call, "done") for call in action.calls]

        def check(self):
            return None

    episode = Echo([{"role": "user", "content": "Go."}], [])
    first = episode.step(calls("f", "g"))
    second = episode.step(calls("h"))
    assert [m["tool_call_id"] for m in first + second] == ["call_0", "call_1", "call_2"]
    assert episode.messages[2:4] == first and episode.messages[5:] == second
    assert episode.step(Action(content="bye")) == [] and episode.turns == 3
    with pytest.raises(ValueError, match="is done"):
        episode.step(Action(content="bye"))


# ---- names and ids


def test_the_built_in_environments_go_by_their_names_and_by_their_tasks_ids():
    assert environments.names() == ["bfcl", "toolbox"]
    assert environments.find("toolbox") is environments.environment_of("toolbox_train_0_17")
    assert environments.find("bfcl") is environments.environment_of("multi_turn_base_0")


def test_an_installed_environment_goes_by_its_name(riddles, monkeypatch):
    point = importlib.metadata.EntryPoint("riddles", riddles, "pivotrl_jax.environments")
    found = {"pivotrl_jax.environments": [point]}
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: found.get(group, []))
    assert environments.names() == ["bfcl", "riddles", "toolbox"]
    with pytest.raises(InputError, match="belongs to no environment"):
        environments.find_task("riddle_3")  # an id from a data file loads nothing
    assert "my_riddles" not in sys.modules
    assert len(sources.load(config_of("riddles").data, 0).demonstrations) == 6


def test_a_task_id_imports_nothing_that_no_config_named(riddles):
    with pytest.raises(InputError, match=r"ids start with multi_turn_ or toolbox_$"):
        environments.find_task("riddle_3")
    with pytest.raises(InputError, match="belongs to no environment"):
        environments.find_task("my_riddles:riddles")
    assert "my_riddles" not in sys.modules
    environments.find(riddles)
    assert environments.find_task("riddle_3").number == 3
    with pytest.raises(InputError, match="'riddles' executes no BFCL tasks"):
        environments.backends_for("riddle_3")


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("toolbx", r"neither an environment \(bfcl, toolbox\) nor the path .* as 'package.module:name'"),
        ("no/such.jsonl,nor/this", "neither an environment .* nor the path of a file or folder that exists"),
        ("no_such_module:x", "no_such_module cannot be imported"),
        ("my_riddles:nothing", "has no 'nothing'"),
        ("my_riddles:NUMBER", "type is int; an environment is an instance of a subclass of"),
        ("my_riddles:Riddles", "type is ABCMeta; an environment is an instance of a subclass of"),
    ],
)
def test_a_source_that_is_nothing_is_one_sentence(source, want):
    with pytest.raises(InputError, match=rf"^config\.data\.source is '{source}'.*{want}"):
        sources.load(config_of(source).data, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.style", "slow"),
        ("data.words", "all"),
        ("data.user_turns", (8, 6)),
        ("data.user_turns", (6, 12)),
        ("data.user_turns", (6,)),
        ("data.demonstrations", 0),
        ("data.held_out_tasks", 0),
        ("validation.seed", 0),
    ],
)
def test_the_toolbox_refuses_what_does_not_fit_it(field, value):
    config = config_of("toolbox", validation__every=1)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=rf"config\.{field} is"):
        check_config.check(config)
