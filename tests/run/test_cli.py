"""How programs are called: the pivotrl command, names of configs, --help and --explain."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from support.paths import ROOT

import pivotrl_jax
from pivotrl_jax import __main__ as command
from pivotrl_jax.records import InputError
from pivotrl_jax.run import configs
from pivotrl_jax.run.options import OPTIONS


def call(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `python -m pivotrl_jax ...`, which the pivotrl command is."""
    done = subprocess.run(
        [sys.executable, "-m", "pivotrl_jax", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_lists_every_program_and_each_of_them_is_there():
    code, out, _ = call("--help")
    assert code == 0
    for name in command.PROGRAMS:
        assert f"  {name} " in out
        package = ROOT / "pivotrl_jax" / name
        assert package.with_suffix(".py").exists() or (package / "__main__.py").exists()


def test_a_program_that_is_not_there_is_one_sentence():
    assert call("trian") == (1, "", "error: pivotrl has no program 'trian'; did you mean train?\n")


def test_the_version_is_that_of_the_package():
    assert call("--version") == (0, f"pivotrl_jax {pivotrl_jax.__version__}\n", "")


@pytest.fixture(scope="module")
def helps():
    """(exit code, stdout, stderr) of every program's --help."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(command.PROGRAMS, pool.map(lambda name: call(name, "--help"), command.PROGRAMS)))


@pytest.mark.parametrize("name", command.PROGRAMS)
def test_help_says_what_a_program_does_and_lists_its_flags(helps, name):
    code, out, err = helps[name]
    assert (code, err) == (0, "")
    assert re.search(r"(?m)^ +--\w+|^  \{bash,zsh\}$", out), out
    assert not re.search(r"/\S+\.py:\n|--helpfull", out), out
    assert len(out.splitlines()) > 5 and max(map(len, out.splitlines())) <= 115


def test_help_of_verify_shows_a_case_that_it_scores(helps):
    case = re.search(r'(?s)\{"id": "first",.*?\}\]\}', helps["verify"][1])[0]
    done = subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.verify", "--verifier=tool_call"],
        input=" ".join(case.split()),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == {"id": "first", "reward": 1.0, "reason": "ok"}, done.stderr


def test_help_loads_no_model_code():
    code = (
        "import atexit, runpy, sys\n"
        "heavy = {'transformers', 'flax', 'orbax', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "sys.argv = ['train', '--help']\n"
        "runpy.run_module('pivotrl_jax.train', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_help_of_a_program_with_a_config_has_every_field(helps):
    _, out, _ = helps["find_pivots"]
    assert "--self_check" in out and "--explain" in out
    assert not [name for name, option in OPTIONS.items() if f"{name} = {option.default!r}" not in out]


def test_explain_prints_the_value_of_this_config_and_ends():
    arguments = ("--config=bfcl:real", "--config.grpo.steps=7", "--explain=grpo.steps")
    code, out, err = call("find_pivots", *arguments)
    assert code == 0, err
    assert out.splitlines()[0] == "grpo.steps" and out.endswith("default 40; here 7\n")


@pytest.mark.parametrize("value", ["nosuch.py", "configs/bfcl.py:real", "/home/me/mine.py"])
def test_a_path_of_a_config_stays_as_it_is(value):
    assert configs.find_config(value) == value


def test_a_name_is_one_of_the_packages_configs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configs.find_config("bfcl:real") == f"{ROOT / 'configs' / 'bfcl.py'}:real"
    assert configs.find_config("swe") == str(ROOT / "configs" / "swe.py")
    with pytest.raises(InputError, match="no config is called 'bfgl'; known are bfcl, browsecomp, swe"):
        configs.find_config("bfgl")


# ---- how programs end


def test_a_config_file_that_is_not_there_is_one_line():
    """Without overrides, which fail earlier."""
    code, out, err = call("train", "--config=nosuch.py")
    assert (code, out) == (1, "")
    assert err.startswith("error: the config file cannot be read") and err.count("\n") == 1, err


def with_nobody_reading(*arguments: str) -> subprocess.CompletedProcess:
    """A program whose standard output fails whatever is written."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, "-m", "pivotrl_jax", *arguments],
            cwd=ROOT,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["verify", "--help"],
        ["train", "--config=bfcl", "--explain=grpo"],
    ],
    ids=" ".join,
)
def test_a_reader_that_has_left_is_no_error(arguments):
    done = with_nobody_reading(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_a_run_is_one_line():
    """Nothing of it is lost, so it says how to go on."""
    data = ["--config.data.demonstrations=1", "--config.data.held_out_tasks=1"]
    done = with_nobody_reading("find_pivots", "--config=bfcl", "--self_check", *data)
    assert done.returncode == 1
    assert done.stderr == "error: whoever read the output has left; the same command goes on from here\n"


def test_an_interrupt_is_one_line():
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pivotrl_jax", "verify", "--verifier=tool_call"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what runs the tests may ignore it, as a shell's background job does
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write(json.dumps({"id": "a", "expected_action": call, "candidate": [call]}) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["reward"] == 1  # it is at work, and waits for more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "verify: interrupted\n")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["verify"], "verify: no verifier; name one"),
        (["verify", "--nosuch"], "verify: Unknown command line flag 'nosuch'"),
        (["verify", "--mode=x", "--verifier=exact"], "verify: flag --mode=x: value should be one of"),
        (["candidates"], "candidates: no input; name files"),
        (["exchange"], "exchange: the first argument is ''"),
        (["report", "--workdir=/nowhere"], "report: /nowhere: no such directory"),
        (["candidates", "", "--out=x"], "candidates: the input is empty; name a path"),
        (["find_pivots", "--config=bfcl", "--explain="], "error: --explain=: the config has no field"),
        (["evaluate", "--config=bfcl", "--checkpoint="], "error: config.model.checkpoint is empty"),
        (["find_pivots", "--config=bfcl", "--config.workdir="], "error: config.workdir is empty"),
        (
            ["find_pivots", "--config=bfcl", "--config.grpo.steps=1e3"],
            "error: config.grpo.steps is '1e3'; want a",
        ),
        (
            ["find_pivots", "--config=bfcl", "--config.grpo=3"],
            "error: config.grpo is '3'; it is a section, so",
        ),
        (
            ["find_pivots", "--config=bfcl", "--config.resume=maybe"],
            "error: config.resume is 'maybe'; want True",
        ),
        (["score", "--model="], "score: --model is empty; name a checkpoint"),
        (["find_pivots", "--config=bfcl", "--config.data.source=a,"], "error: config.data.source "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_are_one_line(arguments, words):
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(words) and err.count("\n") == 1, err
