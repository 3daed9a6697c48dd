"""The programs from the command line: one sentence for whatever is wrong, and runs that survive a kill.

from support.train_cli import CONFIG, MICRO, checkpoint, micro, subprocess_of
Most bad inputs go through `cli.start` in this process, which saves an import of JAX each; one goes through
the real command.
"""

import concurrent.futures
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from safetensors.numpy import load_file
from support.hosts import free_port
from support.paths import TESTS
from support.train_cli import CONFIG, MICRO, lines_of, micro, subprocess_of

from pivotrl_jax import evaluate, find_pivots, pipeline, train
from pivotrl_jax.checkpoints import hf
from pivotrl_jax.checkpoints.locate import EMBEDDED
from pivotrl_jax.environments.bfcl import tasks as bfcl_tasks
from pivotrl_jax.pivots import profiling, rollout_files
from pivotrl_jax.records import Profile, read_records
from pivotrl_jax.run import cli, interrupts, lock
from pivotrl_jax.run import run as run_lib

PROGRAMS = {"train": train.main, "find_pivots": find_pivots.main, "evaluate": evaluate.main}

USER, DONE = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hello to you."}
GOOD = {"messages": [USER, DONE], "scenario": "a"}


@pytest.fixture
def program(checkpoint, tmp_path, monkeypatch, capsys):
    """Run a program in this process: `program("train", "data.limit=3")` -> (exit code, stdout, stderr)."""

    def run(name, *overrides, config=CONFIG, more=()):
        here = [f"model.checkpoint={checkpoint}", f"workdir={tmp_path / 'run'}", *overrides]
        argv = [f"--config={config}", *(f"--config.{o}" for o in here), *more] if config else [*more]
        monkeypatch.setattr(sys, "argv", [name, *argv])
        forget_flags()
        with pytest.raises(SystemExit) as ended:
            cli.start(PROGRAMS[name])
        lock.release()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def forget_flags():
    """As in a fresh process: overrides are flags that parsing defines, also when it fails half-way."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


def write_jsonl(path: Path, *lines) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), "utf-8")
    return path


def sentence(found) -> str:
    """The one sentence of a program that ended as it should on bad input."""
    code, _, err = found
    lines = [line for line in err.splitlines() if line.strip() and "%|" not in line]
    assert code == 1, err
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0].removeprefix("error: ")


# ---- the config


@pytest.mark.parametrize(
    ("overrides", "config", "words"),
    [
        ([], "nosuch.py", r"^the config file cannot be read \(.*'nosuch.py'\); check the path"),
        ([], f"{CONFIG}:nosuch", "no size 'nosuch'; choose one of tiny, real"),
        (
            ["data.limt=4"],
            CONFIG,
            "--config.data.limt=4: the config has no field 'limt'; did you mean 'limit'?",
        ),
        (["nosuch.field=4"], CONFIG, "the config has no field 'nosuch'"),
        (["grpo.steps=abc"], CONFIG, "config.grpo.steps is 'abc'; want a whole number from 1 up"),
        (["grpo.learning_rate=high"], CONFIG, "config.grpo.learning_rate is 'high'; want a number above 0"),
        (["resume=perhaps"], CONFIG, "config.resume is 'perhaps'; want True or False"),
        ([], None, "no config; name one"),
    ],
    ids=["file", "size", "field", "section", "integer", "float", "flag", "none"],
)
def test_a_wrong_config_is_one_sentence(program, overrides, config, words):
    found = sentence(program("train", *overrides, config=config))
    assert re.search(words, found), found


def test_the_real_command_ends_with_one_sentence_too():
    found = subprocess_of("train", f"--config={CONFIG}", "data.limt=4")
    assert found[1] == "" and sentence(found).startswith("--config.data.limt=4: the config has no field")


def test_a_config_that_is_not_python_is_one_sentence(program, tmp_path):
    (tmp_path / "broken.py").write_text("import nosuchmodule\n")
    found = sentence(program("train", config=tmp_path / "broken.py"))
    assert "ModuleNotFoundError: No module named 'nosuchmodule'" in found


def test_arguments_that_are_no_flags_are_one_sentence(program):
    assert "'extra'" in sentence(program("train", more=["extra"]))
    assert "Unknown command line flag 'nosuch'" in sentence(program("train", more=["--nosuch=1"]))


# ---- the checkpoint and the machine


def test_a_missing_checkpoint_is_one_sentence(program):
    found = sentence(program("train", "model.checkpoint=/nosuch"))
    assert found.startswith("/nosuch: no such directory; give a checkpoint in Hugging Face layout")
    assert "/nosuch: no such directory" in sentence(program("evaluate", more=["--checkpoint=/nosuch"]))


def test_a_checkpoint_of_another_model_is_one_sentence(program, checkpoint, tmp_path):
    """Of an architecture that is not there; and weights that are not those of the config."""
    for change, words in (
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not implemented"),
        ({"hidden_size": 48}, "embed_tokens"),
    ):
        other = tmp_path / next(iter(change))
        other.mkdir()
        for file in checkpoint.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        values = json.loads((other / "config.json").read_text("utf-8"))
        (other / "config.json").write_text(json.dumps({**values, **change}), "utf-8")
        assert words in sentence(program("train", f"model.checkpoint={other}"))


@pytest.mark.parametrize("method", ["pivotrl", "sft", "random_turns", "e2e_rl"])
def test_a_base_checkpoint_or_a_short_context_is_one_sentence_at_the_start(
    program, checkpoint, tmp_path, method
):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    settings = other / "config.json"
    values = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**values, "max_position_embeddings": 900}), "utf-8")
    found = sentence(program("train", f"model.checkpoint={other}", f"method={method}"))
    assert "is 1024, more than the 900 positions" in found and "lower them" in found
    settings.write_text(json.dumps(values), "utf-8")
    tokenizer = json.loads((other / "tokenizer_config.json").read_text("utf-8"))
    tokenizer["eos_token"] = "a"
    (other / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    (other / "generation_config.json").unlink()
    found = sentence(program("train", f"model.checkpoint={other}", f"method={method}"))
    assert "which has none of the stop tokens ['a'], so no completion would finish" in found


def test_a_mesh_that_does_not_fit_is_one_sentence(program):
    found = sentence(program("train", "mesh.data=3", "mesh.fsdp=1"))
    assert "the mesh (data: 3, fsdp: 1, expert: 1, tensor: 1) does not fit" in found


def test_a_workdir_that_is_a_file_is_one_sentence(program, tmp_path):
    (tmp_path / "file").write_text("")
    assert "name another directory" in sentence(program("train", f"workdir={tmp_path / 'file'}"))


def test_a_second_program_in_the_same_workdir_is_refused_by_name(program, tmp_path):
    (tmp_path / "run").mkdir()
    code = "import sys, pathlib; from pivotrl_jax.run import lock; lock.acquire(pathlib.Path(sys.argv[1]))"
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "; print(flush=True); input()", str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    for name in PROGRAMS:
        found = sentence(program(name))
        assert f"run: process {holder.pid} on " in found and " has been working there since " in found
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
    holder.communicate(b"\n")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    "field", ["workdir=gs://bucket/x", "model.checkpoint=s3://bucket/x", "data.source=/tmp/a.jsonl,hf://x/y"]
)
def test_an_address_of_another_store_is_refused(program, field):
    name, _, address = field.partition("=")
    found = sentence(program("train", field))
    assert found.startswith(f"config.{name} is {address.split(',')[-1]!r}, and only paths of this machine's")


def test_a_tilde_is_the_home_directory(program, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = program("train", "workdir=~/x", "data.demonstrations=1", "data.max_prompt_tokens=9")
    assert "no candidate is left" in sentence(found)
    assert (tmp_path / "home" / "x" / "skipped.jsonl").is_file()


def test_a_full_or_vanished_disk_is_one_sentence(program, tmp_path, monkeypatch):
    def fail(*_):
        raise errors.pop()

    run, file = tmp_path / "run", str(tmp_path / "run" / "candidates.jsonl")
    monkeypatch.setattr(pipeline.candidates_lib, "make_candidates", fail)
    errors = [OSError(errno.ENOSPC, "No space left on device")]
    assert sentence(program("train")).startswith(
        f"{run}: No space left on device; free space there; what was"
    )
    errors = [FileNotFoundError(errno.ENOENT, "No such file or directory", file)]
    assert "candidates.jsonl: No such file or directory; it was removed while" in sentence(program("train"))
    errors = [FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere")]
    with pytest.raises(FileNotFoundError):  # none of the work directory: this project's own error
        cli._run(lambda: fail(), SimpleNamespace(workdir=str(run)))
    monkeypatch.setattr(run_lib.Run, "write", lambda self: None)

    def vanish(*_):
        shutil.rmtree(run)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)

    monkeypatch.setattr(pipeline.sources, "load_with_validation", vanish)
    assert sentence(program("train")).startswith(f"{run}: the work directory is gone; put it back")


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_with_its_status_and_how_to_go_on(program, tmp_path, monkeypatch, which):
    handlers = [signal.getsignal(number) for number in interrupts.SIGNALS]
    monkeypatch.setattr(pipeline.sources, "load_with_validation", lambda config: os.kill(os.getpid(), which))
    code, _, err = program("train")
    assert code == 128 + which and "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"stopped by {which.name}; what was finished is in {tmp_path / 'run'}, and the same command goes on "
        "from there"
    )
    assert handlers == [signal.getsignal(number) for number in interrupts.SIGNALS]


def test_missing_bfcl_data_is_one_sentence_with_the_command_that_gets_it(program, monkeypatch):
    monkeypatch.delenv("BFCL_ROOT", raising=False)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / "bfcl_eval").exists()])
    for name in [name for name in sys.modules if name.split(".")[0] == "bfcl_eval"]:
        monkeypatch.delitem(sys.modules, name)
    bfcl_tasks.root.cache_clear()
    try:
        found = sentence(program("train", "data.source=bfcl"))
    finally:
        bfcl_tasks.root.cache_clear()
    assert "bfcl_eval is not installed" in found and bfcl_tasks.INSTALL in found


def test_work_of_another_run_is_refused_and_kept(program, tmp_path):
    settings = tmp_path / "run" / "rollouts" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"candidates": "those of another run"}')
    (settings.parent / "00000.jsonl").write_text("dear\n")
    data = write_jsonl(tmp_path / "data.jsonl", GOOD, {**GOOD, "scenario": "b"})
    found = sentence(program("find_pivots", f"data.source={data}"))
    assert "holds rollouts of another run: candidates is 'those of another run' there" in found
    assert (settings.parent / "00000.jsonl").read_text() == "dear\n"


# ---- the data

RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
BAD_ROWS = {
    "malformed JSON": ('{"messages": [', "not valid JSON"),
    "no assistant turn": ({"messages": [USER]}, "no assistant turn"),
    "unknown role": ({"messages": [{"role": "robot", "content": ""}, DONE]}, "unknown role 'robot'"),
    "result without a call": ({"messages": [USER, RESULT, DONE]}, "without a matching"),
}


def test_a_missing_data_file_is_one_sentence(program):
    found = sentence(program("train", "data.source=nosuch.jsonl"))
    assert found.startswith(
        "config.data.source is 'nosuch.jsonl', which is neither an environment (bfcl, toolbox"
    )
    assert found.endswith("an environment of your own as 'package.module:name'")


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_stops_the_run_with_file_and_line(program, tmp_path, name):
    row, words = BAD_ROWS[name]
    data = write_jsonl(tmp_path / "data.jsonl", GOOD, row)
    found = sentence(program("train", f"data.source={data}", "data.on_bad_row=stop"))
    assert found.startswith(f"{data}:2: ") and words in found


def test_bad_rows_are_skipped_counted_and_named(program, tmp_path, monkeypatch):
    """`find_pivots` up to the profiling, which this test leaves out."""

    class Reached(SystemExit):
        pass

    def stop(run, candidates):
        raise Reached([c.id for c in candidates])

    monkeypatch.setattr(profiling, "find_pivots", stop)
    rows = [GOOD, *(row for row, _ in BAD_ROWS.values()), {**GOOD, "scenario": "b"}]
    data = write_jsonl(tmp_path / "data.jsonl", *rows)
    candidates, out, _ = program("find_pivots", f"data.source={data}")
    assert len(candidates) == 1, "one of two scenarios is held out"
    lines = (tmp_path / "run" / "skipped.jsonl").read_text("utf-8").splitlines()
    skipped = {line["where"]: line["why"] for line in map(json.loads, lines)}
    assert list(skipped) == [f"{data}:{n}" for n in (2, 3, 4, 5)]
    for (_, words), (where, why) in zip(BAD_ROWS.values(), skipped.items()):
        assert words in why and f"left out {where}: " in out
    facts = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert facts["skipped"] == {
        "rows": 4,
        "pass_rate": 0,
        "without_pass_rate_kept": 0,
        "prompts_too_long": 0,
        "self_check": 0,
    }


def test_when_every_prompt_is_too_long_nothing_is_left(program, tmp_path):
    found = program("train", "data.demonstrations=1", "data.held_out_tasks=1", "data.max_prompt_tokens=9")
    assert "no candidate is left of 1 trajectories; see skipped.jsonl" in sentence(found)
    lines = (tmp_path / "run" / "skipped.jsonl").read_text("utf-8").splitlines()
    assert lines and all("tokens, more than the limit of 9; raise the limit" in line for line in lines)
    assert "left out toolbox_train_0_0@1: " in found[1]


def test_an_unknown_verifier_is_one_sentence(program, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", GOOD, {**GOOD, "scenario": "b"})
    found = sentence(program("train", f"data.source={data}", "data.verifier=nosuch"))
    assert "config.data.verifier is 'nosuch', which is none of the verifiers" in found


def test_the_self_check_needs_a_tokenizer_and_no_weights(program, tmp_path):
    """It leaves through the front door: exit code None, and the table on stdout."""
    for file in EMBEDDED.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    code, out, _ = program(
        "find_pivots", f"model.checkpoint={tmp_path}", "data.demonstrations=2", "data.held_out_tasks=1",
        more=["--self_check"],
    )  # fmt: skip
    assert code is None and out.startswith("self-check: ")


# ---- the real command

WRAPPER = """
import os, sys
sys.path.insert(0, {tests!r})
from support import tiny_run
from pivotrl_jax import {program}
from pivotrl_jax.checkpoints import orbax
from pivotrl_jax.run import cli
tiny_run.flip_coins()
save = orbax.Checkpoints.save
def save_and_die(self, step, *args):
    save(self, step, *args)
    if step == int(os.environ.get("DIE_AFTER", 0)):
        os.kill(os.getpid(), {signal})
orbax.Checkpoints.save = save_and_die
cli.start({program}.main)
"""


def coins(program="train"):
    return WRAPPER.format(tests=str(TESTS), signal=int(signal.SIGKILL), program=program)


@pytest.mark.slow
def test_finding_no_pivots_ends_with_the_table(checkpoint, tmp_path):
    """Greedy samples of one turn are equal, so none is mixed. (Training stops there: `require_pivots`.)"""
    overrides = [f"workdir={tmp_path}", f"model.checkpoint={checkpoint}", *MICRO, "sampling.temperature=0.0"]
    code, out, err = subprocess_of("find_pivots", f"--config={CONFIG}", *overrides)
    assert code == 0, err
    assert "all fail" in out and "uninformative" in out and f"0 pivots: {tmp_path / 'pivots.jsonl'}" in out
    assert (tmp_path / "profiles.jsonl").is_file() and not (tmp_path / "pivots.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """(workdir, stdout) of a run from end to end, judged by coins so that there are pivots."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = micro(workdir, checkpoint, code=coins())
    assert code == 0, err
    return workdir, out


@pytest.mark.slow
def test_the_main_job_leaves_every_file_and_a_table(whole):
    workdir, out = whole
    for name in (
        "candidates.jsonl", "rollouts/00001.jsonl", "rollouts/00001.npz", "profiles.jsonl", "pivots.jsonl",
        "checkpoints/2", "metrics.jsonl", "evaluations/before.json", "evaluations/after.json",
        "evaluation.json", "resampled/rollouts/00000.jsonl", "resampled/profiles.jsonl",
        "hf/model.safetensors", "hf/tokenizer.json", "report.html", "run.json",
    ):  # fmt: skip
        assert (workdir / name).exists(), name
    for words in ("candidates", "uninformative", "pivots kept", "episode success", "rollout turns", "report"):
        assert words in out
    facts = json.loads((workdir / "run.json").read_text("utf-8"))
    counts = facts["counts"]
    assert counts["candidates"] == sum(counts[f] for f in ("pivot", "all_fail", "all_pass", "too_easy"))
    assert counts["training_rollout_turns"] == 2 * 2 * 4
    assert counts["profiling_rollout_turns"] == 4 * counts["candidates"]
    again = read_records(workdir / "resampled" / "profiles.jsonl", Profile)
    assert len(again) == min(16, counts["pivot"]) and facts["resampled"]["pivots"] == len(again)
    assert counts["resampled_rollout_turns"] == 4 * len(again) and "pivots sampled again" in out
    assert {p.policy for p in again} == {hf.checkpoint_fingerprint(workdir / "hf")}
    assert "The same pivots before and after" in (workdir / "report.html").read_text("utf-8")
    assert len((workdir / "metrics.jsonl").read_text("utf-8").splitlines()) == 2


@pytest.mark.slow
def test_a_killed_run_ends_bit_identical(whole, checkpoint, tmp_path):
    workdir = tmp_path / "run"
    code, _, _ = micro(workdir, checkpoint, code=coins(), env={"DIE_AFTER": "1"})
    assert code == -signal.SIGKILL and not (workdir / "hf").exists()
    code, _, err = micro(workdir, checkpoint, code=coins())
    assert code == 0, err
    again = "resampled/profiles.jsonl"
    for name in ("hf/model.safetensors", "pivots.jsonl", "profiles.jsonl", "evaluation.json", again):
        assert (workdir / name).read_bytes() == (whole[0] / name).read_bytes(), name
    assert lines_of(workdir) == lines_of(whole[0])


@pytest.mark.slow
def test_a_finished_run_says_it_all_again_at_once(whole, checkpoint):
    before = (whole[0] / "hf" / "model.safetensors").read_bytes()
    code, out, err = micro(whole[0], checkpoint, code=coins())
    assert code == 0, err
    assert (whole[0] / "hf" / "model.safetensors").read_bytes() == before and "pivots kept" in out


@pytest.mark.slow
def test_a_checkpoint_of_another_recipe_is_refused_and_kept(whole, checkpoint):
    found = micro(whole[0], checkpoint, "grpo.learning_rate=0.5", code=coins())
    assert found[0] == 1 and "Traceback" not in found[2]
    assert "grpo.learning_rate is 0.01 there and 0.5 here" in found[2].splitlines()[-1]
    assert (whole[0] / "checkpoints" / "2").is_dir()


@pytest.mark.slow
def test_a_killed_lora_run_goes_on_and_leaves_an_adapter_and_its_merged_weights(checkpoint, tmp_path):
    workdir, lora = tmp_path / "run", ("model.lora.rank=2", "model.lora.alpha=3.0")
    code, _, err = micro(workdir, checkpoint, *lora, code=coins(), env={"DIE_AFTER": "1"})
    assert code == -signal.SIGKILL, err
    assert not (workdir / "hf").exists() and not (workdir / "adapter").exists()
    code, out, err = micro(workdir, checkpoint, *lora, code=coins())
    assert code == 0, err
    assert "PEFT adapter" in out and "100.0% in float32; " in " ".join(out.split())
    assert len((workdir / "metrics.jsonl").read_text("utf-8").splitlines()) == 2
    base, merged = (load_file(path / "model.safetensors") for path in (checkpoint, workdir / "hf"))
    adapter = load_file(workdir / "adapter" / "adapter_model.safetensors")
    assert base.keys() == merged.keys()
    for name, w in base.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{prefix}.lora_A.weight" in adapter:
            a, b = (adapter[f"{prefix}.lora_{x}.weight"] for x in "AB")
            assert np.abs(b).max() > 1e-4 or "experts" in name, name  # an expert may have seen no token
            w = w + 1.5 * b @ a
        np.testing.assert_allclose(merged[name], w, rtol=0, atol=1e-6)
    values = json.loads((workdir / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert values["base_model_name_or_path"] == str(checkpoint)
    # what "evaluation after" says is what anybody finds in hf/
    again = [f"--config={CONFIG}", f"workdir={tmp_path / 'again'}", f"--checkpoint={workdir / 'hf'}", *MICRO]
    code, _, err = subprocess_of("evaluate", *again, code=coins("evaluate"))
    assert code == 0, err
    (found,) = (tmp_path / "again" / "evaluations").glob("*.json")
    after = workdir / "evaluations" / "after.json"
    found, after = (json.loads(file.read_text("utf-8")) for file in (found, after))
    assert found["results"] == after["results"]
    assert found["identity"]["policy"] == after["identity"]["policy"]


@pytest.mark.slow
def test_two_processes_end_as_one(whole, checkpoint, tmp_path):
    """Two processes with a device each: one writes, both agree, and a resumed run finds everything done."""
    workdir, address = tmp_path / "run", f"127.0.0.1:{free_port()}"

    def together():
        env = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(micro, workdir, checkpoint, code=coins(), env={**env, "JAX_PROCESS_ID": str(i)})
                for i in (0, 1)
            ]
            return [job.result() for job in jobs]

    (code, out, err), (other, quiet, more) = together()
    assert (code, other) == (0, 0), err + more
    assert "pivots kept" in out and "pivots kept" not in quiet
    drawn = [rollout_files.read(w / "rollouts/00000.jsonl") for w in (workdir, whole[0])]
    ids = [[rollout.token_ids for rollout in rollouts] for rollouts in drawn]
    assert ids[0] == ids[1]  # the same samples as one device draws
    again = [read_records(w / "resampled/profiles.jsonl", Profile) for w in (workdir, whole[0])]
    assert [p.candidate_id for p in again[0]] == [p.candidate_id for p in again[1]] != []
    shards = (workdir / "resampled" / "rollouts").glob("*.jsonl")
    assert [r.reward for shard in shards for r in rollout_files.read(shard)]
    losses = [
        [json.loads(line)["loss"] for line in (w / "metrics.jsonl").read_text("utf-8").splitlines()]
        for w in (workdir, whole[0])
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3, atol=1e-5)
    exported = (workdir / "hf" / "model.safetensors").read_bytes()
    (code, out, err), (other, _, more) = together()
    assert (code, other) == (0, 0), err + more
    assert "pivots kept" in out and (workdir / "hf" / "model.safetensors").read_bytes() == exported


@pytest.mark.parametrize("name", ["train", "find_pivots"])
def test_data_that_the_verifier_does_not_know_is_said_before_weights_are_loaded(
    program, tmp_path, monkeypatch, name
):
    """So is a wrong path: nobody waits for a download to learn of either."""

    def loaded(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(hf, "load_params", loaded)
    row = {**GOOD, "messages": [*GOOD["messages"][:1], {"role": "assistant", "content": "It is five."}]}
    data = write_jsonl(tmp_path / "data.jsonl", *({**row, "scenario": str(i)} for i in range(4)))
    found = sentence(program(name, f"data.source={data}", "data.verifier=bfcl_ast"))
    assert "the self-check rejects all" in found and "no model was loaded" in found
    assert f"{tmp_path}/nowhere" in sentence(program(name, f"data.source={tmp_path}/nowhere"))
    assert not (tmp_path / "run").exists()
