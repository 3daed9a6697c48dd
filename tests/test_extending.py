"""The examples of docs/extending.md, written into a package of the user's own and run."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from support import learning, tiny_run
from support.forests import MOE
from support.paths import ROOT

from pivotrl_jax import environments, plugins, verifiers
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Action, Call, InputError
from pivotrl_jax.training import losses, recipe
from pivotrl_jax.trajectories import extract, reading

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [text for language, _, text in BLOCKS if language == "console"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The page's files in a directory that can be imported from, which is also the working directory."""
    for _, name, text in BLOCKS:
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # a registry that forgets what a test adds
    monkeypatch.setattr(verifiers, "VERIFIERS", type(verifiers.VERIFIERS)(verifiers.VERIFIERS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.fixture
def installed(package, monkeypatch):
    """The same package as pip would have installed it, with the entry points of the page's pyproject.toml."""
    groups = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    info = package / "my_pkg-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_pkg\nVersion: 1\n")
    with (info / "entry_points.txt").open("w") as f:
        for group, names in groups.items():
            f.write(f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in names.items()))
    importlib.invalidate_caches()
    return package


def run(command: str, where) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{where}{os.pathsep}{ROOT}", "JAX_PLATFORMS": "cpu"}
    command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
    return subprocess.run(command, shell=True, cwd=where, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("example", COMMANDS, ids=[c.split("pivotrl_jax.")[1].split()[0] for c in COMMANDS])
def test_commands_print_what_the_page_says(package, example):
    command, _, expected = example.removeprefix("$ ").partition("\n")
    done = run(command, package)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)


def test_installed_entry_points_are_found_by_their_names(installed):
    assert verifiers.get("any_case").name == "any_case"
    assert environments.find("safes").name == "safes"
    assert callable(plugins.find("losses", "reinforce", losses.LOSSES, "config.grpo.loss"))
    assert callable(plugins.find("readers", "tickets", reading.READERS, "config.data.format").trajectory)


def test_the_verifier_accepts_demonstrations_and_rejects_garbage(package, monkeypatch):
    from my_pkg.checks import any_case

    monkeypatch.setitem(verifiers.VERIFIERS, "any_case", any_case)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "A"}}}
    for demonstration in ({"content": "", "tool_calls": [call]}, {"content": "Hello."}):
        candidate = tiny_run.candidate("t", verifier="any_case")
        candidate = dataclasses.replace(candidate, demonstration={"role": "assistant", **demonstration})
        assert not self_check([candidate]).left_out


def test_the_reader_reads_an_episode_and_refuses_another(package):
    from my_pkg import tickets

    document = json.loads((package / "tickets.jsonl").read_text())
    trajectory = tickets.trajectory(document, "tickets.jsonl:1")
    assert [m["role"] for m in trajectory.messages] == ["user", "assistant"] and trajectory.reward == 1
    assert not tickets.recognise({"messages": []}, package)


@pytest.mark.parametrize("log", [None, ["Hello."], [{"who": "bot", "says": "Hello."}], [{"who": "customer"}]])
def test_the_reader_says_what_is_wrong_with_a_row(package, log):
    from my_pkg import tickets

    with pytest.raises(InputError):
        tickets.trajectory({"ticket": "T1", "log": log}, "tickets.jsonl:1")


def test_an_episode_of_the_environment_is_won_by_the_code_and_lost_without_it(package):
    from my_pkg.safes import safes

    task = safes.find_task("safe_3")
    for code, reward in ((task.code, 1.0), (0, 0.0)):
        episode = task.start(max_steps=5)
        episode.step(Action(calls=(Call("open_safe", {"code": code}),)))
        episode.step(Action(content="Done."))
        assert episode.done and episode.check().reward == reward
    assert extract.extract([safes.demonstrate(task)])[1].demonstration["tool_calls"]


def test_the_loss_trains(package, monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    changes = {"steps": 2, "loss": "my_pkg.losses:reinforce"}
    learner = recipe.grpo_learner(learning.config_of(**changes), MOE, tiny_run.mesh())
    learning.learn(package, learner=learner, **changes)
    lines = learning.metrics(package)
    assert len(lines) == 2 and all(line["ratio"] == pytest.approx(1, abs=1e-3) for line in lines)
