"""Verifiers of the user's own: named in a config or on the command line, or installed as entry points."""

import dataclasses
import importlib.metadata
import json
import os
import re
import subprocess
import sys

import pytest
from support.configs import CONFIGS
from support.paths import ROOT

from pivotrl_jax import api, plugins, verifiers
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Action, Candidate, InputError, Verdict
from pivotrl_jax.run import check_config
from pivotrl_jax.verifiers import base, get, register
from pivotrl_jax.verifiers.cases import calls_message

EXAMPLE = re.search(r"( {4}# my_pkg/checks.py\n.*?)\n\nName it", base.__doc__, re.DOTALL)[1]
MODULE = "\n".join(line[4:] for line in EXAMPLE.split("\n")) + (
    "\n\ndef plain(candidate, action):\n    return Verdict(0.5, 'half')\n\nNUMBER = 3\n"
)
STATE = Candidate("t@1", "t", 0, [], [], calls_message([("f", {"a": 1})]), "x", {}, "t")
OTHER = Action("Hello", text="Hello")


def action(*names):
    items = [{"type": "function_call", "name": name, "arguments": "{}"} for name in names]
    return get("tool_call").read_case({"id": "c", "expected_action": items[0], "candidate": items})[1]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry that forgets what a test adds."""
    monkeypatch.setattr(verifiers, "VERIFIERS", type(verifiers.VERIFIERS)(verifiers.VERIFIERS))
    return verifiers.VERIFIERS


@pytest.fixture
def my_pkg(tmp_path, monkeypatch):
    """The example of the contract, as an importable package."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg/__init__.py").write_text("")
    (tmp_path / "my_pkg/checks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.fixture
def installed(monkeypatch, my_pkg):
    """The same, installed with an entry point."""
    point = importlib.metadata.EntryPoint("same_names", "my_pkg.checks:same_names", "pivotrl_jax.verifiers")
    broken = importlib.metadata.EntryPoint("broken", "my_pkg.nothing:x", "pivotrl_jax.verifiers")
    points = {"pivotrl_jax.verifiers": [point, broken]}
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: points.get(group, []))


def config(verifier):
    c = CONFIGS.get_config()
    c.data.verifier = verifier
    return c


# ---- named by a config or a flag


def test_a_config_names_a_verifier_of_the_users_package(my_pkg):
    name = "my_pkg.checks:same_names"
    check_config.check(config(name))
    found = get(name)  # as a candidate names it
    assert found.label == "my_pkg.checks:same_names/1"
    assert found.verify(STATE, action("f")).reward == 1
    assert found.verify(STATE, action("g")).reason == "names"
    assert found.verify(STATE, Action(malformed="x")).reason == "malformed"


def test_the_example_of_the_contract_passes_the_self_check(my_pkg):
    register("my_pkg.checks:same_names", "config.data.verifier")
    call = dataclasses.replace(STATE, verifier="my_pkg.checks:same_names")
    text = dataclasses.replace(call, demonstration={"role": "assistant", "content": "Done."})
    assert self_check([call, text]).left_out == {}


def test_a_plain_function_is_a_verifier_of_version_0(my_pkg):
    found = register("my_pkg.checks:plain", "config.data.verifier")
    assert found.label == "my_pkg.checks:plain/0" and found.verify(STATE, OTHER).reward == 0.5


def test_without_read_case_rows_are_read_as_tool_calls(my_pkg):
    found = register("my_pkg.checks:same_names", "--verifier")
    item = {"type": "function_call", "name": "f", "arguments": "{}"}
    assert (
        found.verify(*found.read_case({"id": "c", "expected_action": item, "candidate": [item]})).reward == 1
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "tool_cal",
            "config.data.verifier is 'tool_cal', which is none of the verifiers; .*exact, .*tool_call",
        ),
        (
            "swe:nemo_gim",
            "config.data.verifier is 'swe:nemo_gim', which is none of the verifiers; .*swe:nemo_gym",
        ),
        ("tau2:nemo_gym", "config.data.verifier is 'tau2:nemo_gym', which is none of the verifiers"),
        ("my_pkg.chekcs:same_names", "config.data.verifier .* my_pkg.chekcs cannot be imported"),
        ("my_pkg.checks:same_name", "config.data.verifier .* the module my_pkg.checks has no 'same_name'"),
        (
            "my_pkg.checks:NUMBER",
            "config.data.verifier 'my_pkg.checks:NUMBER' is of type int; want",
        ),
    ],
)
def test_what_cannot_be_used_blames_the_field(my_pkg, name, words):
    with pytest.raises(InputError, match=words):
        check_config.check(config(name))


def test_the_command_line_names_one(my_pkg):
    item = {"type": "function_call", "name": "f", "arguments": "{}"}
    line = json.dumps({"id": "c", "expected_action": item, "candidate": [item]})
    path = os.pathsep.join([str(my_pkg), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.verify", "--verifier=my_pkg.checks:same_names"],
        input=line.encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert json.loads(done.stdout) == {"id": "c", "reward": 1.0, "reason": "ok"}, done.stderr


# ---- named by a row of data


def test_a_row_imports_no_module(my_pkg):
    with pytest.raises(InputError, match=r"no verifier is called 'my_pkg.checks:same_names'; known are"):
        get("my_pkg.checks:same_names")
    assert "my_pkg.checks:same_names" not in verifiers.VERIFIERS and "my_pkg.checks" not in sys.modules


def test_a_row_names_an_installed_entry_point(installed):
    assert "same_names" in verifiers.VERIFIERS and "my_pkg.checks" not in sys.modules
    assert get("same_names").verify(STATE, action("f")).reward == 1
    assert get("same_names") is register("same_names", "--verifier") is verifiers.VERIFIERS["same_names"]


def test_entry_points_are_listed_and_a_broken_one_is_named(installed):
    with pytest.raises(InputError, match=r"known are .*same_names"):
        get("same_name")
    with pytest.raises(
        InputError, match=r"the entry point 'broken' of pivotrl_jax.verifiers cannot be loaded"
    ):
        get("broken")


def test_what_is_built_in_wins(installed, monkeypatch):
    point = importlib.metadata.EntryPoint("exact", "my_pkg.checks:plain", "pivotrl_jax.verifiers")
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: [point])
    assert get("exact").verify(STATE, OTHER).reward == 0


def test_a_verifier_that_gives_a_number_is_told_to_give_a_verdict(tmp_path, monkeypatch):
    (tmp_path / "numbers_pkg.py").write_text("def verify(candidate, action):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numbers_pkg", raising=False)
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    case = {"id": "a", "expected_action": call, "candidate": [call]}
    (scored,) = api.verify([case], "numbers_pkg:verify")
    assert "the verifier numbers_pkg:verify gave 1.0 at a; want a Verdict" in scored.error
    (why,) = self_check([dataclasses.replace(STATE, verifier="numbers_pkg:verify")]).left_out.values()
    assert "the verifier numbers_pkg:verify gave 1.0 at" in why


@pytest.mark.parametrize("reward", [2.0, -0.5, float("nan"), "1"])
def test_a_reward_that_is_none_is_refused(monkeypatch, reward):
    monkeypatch.setattr(plugins, "find", lambda *_: lambda candidate, action: Verdict(reward, "ok"))
    with pytest.raises(InputError, match=rf"my_pkg:verify gave the reward {reward!r} at .*from 0 to 1"):
        verifiers.register("my_pkg:verify", "--verifier").verify(STATE, OTHER)


@pytest.mark.parametrize("reward", [True, 0, 0.25, None])
def test_rewards_from_0_to_1_are_taken(monkeypatch, reward):
    monkeypatch.setattr(plugins, "find", lambda *_: lambda candidate, action: Verdict(reward, "ok"))
    given = verifiers.register("my_pkg:verify", "--verifier").verify(STATE, OTHER).reward
    assert given == reward and not isinstance(given, bool)
