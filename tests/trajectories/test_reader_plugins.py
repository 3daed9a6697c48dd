"""Readers of the user's own: named by their path, or installed as entry points."""

import importlib.metadata
import json
import re
import subprocess
import sys
import types

import pytest
from support.paths import ROOT
from support.reader_samples import OPENAI

from pivotrl_jax.records import Candidate, InputError, Trajectory, read_records
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import base, building

ACME = {
    "ticket": "T-7",
    "solved": True,
    "log": [{"who": "customer", "says": "It is broken."}, {"who": "clerk", "says": "Turn it on."}],
}


def docstring_example() -> str:
    """The reader that base.py shows."""
    indented = re.search(r'( {4}"""Acme.*?\n)\n`', base.__doc__, re.DOTALL)[1]
    return "\n".join(line.removeprefix("    ") for line in indented.splitlines())


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A module `acme_reader` of the user's on the path, and a file in its format."""
    (tmp_path / "acme_reader.py").write_text(docstring_example(), encoding="utf-8")
    (tmp_path / "tickets.json").write_text(json.dumps(ACME), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "tickets.json"
    sys.modules.pop("acme_reader", None)


def install(monkeypatch, **readers):
    """Stand in for installed packages with these entry points in the group of readers."""
    points = [importlib.metadata.EntryPoint(n, v, "pivotrl_jax.readers") for n, v in readers.items()]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == "pivotrl_jax.readers" else []
    )


def test_the_example_in_the_contract_is_a_reader_that_is_named_by_its_module(acme):
    (trajectory,), left_out = reading.read(acme, "acme_reader:")
    assert left_out == {}
    assert (trajectory.id, trajectory.scenario, trajectory.reward) == ("tickets", "T-7", 1.0)
    assert trajectory.messages == [
        {"role": "user", "content": "It is broken."},
        {"role": "assistant", "content": "Turn it on."},
    ]


def test_the_loop_takes_lists_apart_and_names_bad_documents(acme):
    acme.write_text(json.dumps([ACME, {**ACME, "log": 3}, ACME]), encoding="utf-8")
    trajectories, left_out = reading.read(acme, "acme_reader:")
    assert [t.id for t in trajectories] == ["tickets:1", "tickets:3"]
    assert left_out == {f"{acme}:2": '"log" is a int, want a list'}


class Words:
    """Reads a file by `documents` and takes each document apart by `episodes`."""

    def recognise(self, sample, path):
        return False

    def documents(self, path):
        return [(str(path), "a b")]

    def episodes(self, document, where):
        return [(f"{where}#{word}", word) for word in document.split()]

    def trajectory(self, document, where):
        messages = [{"role": "user", "content": document}, {"role": "assistant", "content": document}]
        return building.checked(Trajectory(document, messages, [], "words", document, "exact"))


def test_an_object_with_the_two_functions_is_a_reader(acme, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_readers", types.SimpleNamespace(words=Words()))
    trajectories, _ = reading.read(acme, "my_readers:words")
    assert [t.id for t in trajectories] == ["a", "b"]


def test_an_installed_reader_goes_by_its_name_and_recognises_files(acme, monkeypatch):
    with pytest.raises(InputError, match="the format is not known"):
        reading.read(acme)
    install(monkeypatch, acme="acme_reader")
    assert reading.read(acme, "acme")[0] == reading.read(acme)[0]
    assert reading.recognise(acme) == "acme"


def test_built_in_readers_are_asked_first(tmp_path, monkeypatch):
    greedy = types.SimpleNamespace(recognise=lambda sample, path: True, trajectory=None)
    monkeypatch.setitem(sys.modules, "greedy_reader", greedy)
    install(monkeypatch, greedy="greedy_reader", openai_chat="greedy_reader")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(OPENAI), encoding="utf-8")
    assert reading.recognise(path) == "openai_chat"
    assert reading.read(path, "openai_chat")[0][0].source == "openai"


@pytest.mark.parametrize(
    "name, says",
    [
        ("acme", "config.data.format is 'acme', which is none of the readers; known are .*tau_bench"),
        ("no_such_module:reader", "config.data.format is 'no_such_module:reader', but no_such_module cannot"),
        ("acme_reader:none", "config.data.format is 'acme_reader:none', but the module acme_reader has no"),
        ("acme_reader:ROLES", "'acme_reader:ROLES', which has no function recognise and no trajectory"),
    ],
)
def test_a_name_that_is_no_reader_blames_the_field_that_gave_it(acme, name, says):
    with pytest.raises(InputError, match=says):
        reading.read(acme, name, field="config.data.format")


def test_an_installed_reader_that_cannot_be_loaded_is_named(acme, monkeypatch):
    install(monkeypatch, broken="no_such_module")
    with pytest.raises(InputError, match=r"entry point 'broken' of pivotrl_jax\.readers cannot be loaded"):
        reading.read(acme)


def test_the_candidates_program_takes_a_reader_by_its_path(acme, tmp_path):
    out = tmp_path / "candidates.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.candidates", str(acme), f"--out={out}", "--format=acme_reader:"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [c.id for c in read_records(out, Candidate)] == ["tickets@1"]
