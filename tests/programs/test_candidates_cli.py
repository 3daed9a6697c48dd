"""The candidates program: what it writes, what it reports, how it fails."""

import json
import subprocess
import sys

import pytest
from support.paths import ROOT
from support.reader_samples import MINI, OPENAI, TAU

from pivotrl_jax import candidates as candidates_lib
from pivotrl_jax.records import Candidate, read_records


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.candidates", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path):
    """A good file of each of three formats, and a bad one."""
    for name, value in {"a.json": OPENAI, "b.traj.json": MINI, "c.json": TAU, "d.json": {}}.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(json.dumps(value), encoding="utf-8")
    return tmp_path / "in"


def test_candidates_are_written_and_everything_left_out_is_said(folder, tmp_path):
    out = tmp_path / "new" / "candidates.jsonl"
    done = run(folder, f"--out={out}")
    assert done.returncode == 0, done.stderr
    candidates = read_records(out, Candidate)
    assert [(c.id, c.verifier) for c in candidates] == [
        ("o@3", "swe"),
        ("b@2", "swe"),
        ("b@6", "swe"),
        ("c:3:1@6", "tau2"),
    ]
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "context 1, greeting 1" in rows["a.json"] and "unparseable_call 1" in rows["b.traj.json"]
    assert rows["total"].split("│")[5].strip() == "4"
    assert "left out " in done.stderr and "d.json: the format is not known" in done.stderr
    assert "4 candidates in" in done.stdout and "turn depth" in done.stdout and "█" in done.stdout


@pytest.mark.parametrize("program", ["candidates", "exchange"])
def test_an_input_is_not_written_over(program, folder, tmp_path):
    file, link = folder / "a.json", tmp_path / "candidates.jsonl"
    link.symlink_to(file)
    before = file.read_bytes()
    command = [sys.executable, "-m", f"pivotrl_jax.{program}", *["import"][: program == "exchange"]]
    for out in (file, link):
        arguments = [str(file), f"--out={out}", *["--kind=candidates"][: program == "exchange"]]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and "is an input, which would be written over" in done.stderr
        assert file.read_bytes() == before


def test_the_filters_have_flags(folder, tmp_path):
    out, tools = tmp_path / "c.jsonl", tmp_path / "tools.json"
    tools.write_text('[{"name": "cancel", "parameters": {}}]', encoding="utf-8")
    flags = (
        "--keep_error_turns",
        "--min_reward=0.5",
        "--max_repeats=1",
        "--verifier=exact",
        f"--tools={tools}",
    )
    done = run(folder, folder / "a.json", f"--out={out}", *flags)
    assert done.returncode == 0, done.stderr
    candidates = read_records(out, Candidate)
    assert [(c.id, c.verifier) for c in candidates] == [("o@3", "exact"), ("b@2", "exact"), ("b@6", "exact")]
    assert len(out.read_text("utf-8").splitlines()) == 2, "a line per trajectory"
    assert candidates[0].tools == [{"name": "cancel", "parameters": {}}]
    assert "1 trajectories have no recorded reward" in done.stdout


def test_long_prompts_are_left_out(folder, tmp_path):
    done = run(folder / "b.traj.json", folder / "a.json", f"--out={tmp_path / 'c'}", "--max_prompt_tokens=64")
    assert done.returncode == 0, done.stderr
    assert "prompt_too_long" in done.stdout


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "no input; name files, folders or hf:owner/name"),
        (["x.json"], "no output; name one"),
        (["missing.json", "--out=x"], "missing.json: no such file or folder"),
        (["README.md", "--out=x"], "README.md: not valid JSON"),
        (["README.md", "--out=x", "--format=xml"], "--format is 'xml', which is none of the readers"),
        (["README.md", "--out=x", "--max_repeats=-1"], "--max_repeats=-1; want 0 or more"),
        (["README.md", "--out=x", "--tools=none.json"], "none.json cannot be read (No such file"),
        (["README.md", "--out=gs://b/x"], "--out is 'gs://b/x', and only paths of this machine's"),
        (["README.md", "--out=x", "--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["README.md", "--out=x", "--max_repeats=many"], "max_repeats=many"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, sentence):
    done = run(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("candidates: ") and sentence in done.stderr


def test_a_folder_as_output_leaves_nothing_behind(folder, tmp_path):
    (tmp_path / "out").mkdir()
    done = run(folder, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1 and "out cannot be written (Is a directory)" in done.stderr
    assert not list(tmp_path.glob("*.tmp")) and not list((tmp_path / "out").iterdir())


def test_when_nothing_is_left_it_says_why(folder, tmp_path):
    done = run(folder / "c.json", f"--out={tmp_path / 'c.jsonl'}", "--min_reward=1")
    assert done.returncode == 1 and not (tmp_path / "c.jsonl").exists()
    assert "no candidate is left (low_reward_trajectory 1); loosen the filters" in done.stderr


def test_histograms():
    assert candidates_lib.histogram([0, 1, 2, 3, 4, 5]) == [
        ("0", 1),
        ("1", 1),
        ("2", 1),
        ("3-4", 2),
        ("5-8", 1),
    ]
    assert candidates_lib.histogram([]) == [] and candidates_lib.histogram([9, 40])[-1] == ("33-64", 1)
    assert candidates_lib.spark([1, 2, 2]) == "1 ▄█ 2"
    assert candidates_lib.bars("t", [1, 2, 2], width=2) == "t\n  1 █ 1\n  2 ██ 2"


def test_no_jax_is_loaded():
    code = "import sys, pivotrl_jax.candidates; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
