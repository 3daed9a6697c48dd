"""Disks that are full, limited or gone, for real where this machine lets a test make one."""

import errno
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pivotrl_jax.checkpoints import hf_files, orbax
from pivotrl_jax.records import InputError, write_records
from pivotrl_jax.report import report
from pivotrl_jax.run import disk, metrics, paths


@pytest.fixture
def small_files():
    """No file may grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


STATE = {"w": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, capfd, request):
    with orbax.Checkpoints(tmp_path, {}, 2) as checkpoints:
        checkpoints.save(1, STATE, {"n": 1})
        request.getfixturevalue("small_files")
        with pytest.raises(InputError) as found:
            checkpoints.save(2, STATE, {"n": 2})
    words = str(found.value)
    assert words.startswith(f"{tmp_path / '2'}: cannot write the checkpoint (File too large")
    assert "earlier checkpoints are whole: free space or mend the disk, and the same command" in words
    assert "Traceback" not in capfd.readouterr().err
    with orbax.Checkpoints(tmp_path, {}, 2) as checkpoints:
        state, host = checkpoints.restore_latest(STATE)
    assert host == {"n": 1} and np.array_equal(state["w"], STATE["w"])


def test_weights_that_do_not_fit_are_one_sentence_and_the_old_ones_stay(tmp_path, small_files):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("old")
    with pytest.raises(InputError, match=r"model.safetensors: cannot be written \(.*File too large"):
        with hf_files.appearing(tmp_path / "hf") as temporary:
            hf_files.write_tensors(temporary / "model.safetensors", STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert (tmp_path / "hf" / "config.json").read_text() == "old"


def test_metrics_that_do_not_fit_end_the_run_and_do_not_hang(tmp_path, small_files):
    """Also those of TensorBoard, and lines before are whole."""
    values = {f"metric {i}": 0.5 for i in range(100)}
    with pytest.raises(OSError) as found, metrics.MetricsWriter(tmp_path, 0) as writer:
        for step in range(1000):
            writer.write(step, values)
    assert found.value.errno == errno.EFBIG
    assert "raise the limit of the size of a file (ulimit -f); what" in disk.sentence(found.value, tmp_path)
    assert [line["step"] for line in metrics.read_metrics(tmp_path)][:2] == [0, 1]


FULL = """
import sys
from pathlib import Path
from pivotrl_jax.records import write_lines
from pivotrl_jax.run import disk
directory = Path(sys.argv[1])
write_lines(directory / "x.jsonl", ["old"])
try:
    write_lines(directory / "x.jsonl", ["new" * 1000] * 1000)
except OSError as e:
    print(disk.sentence(e, directory))
print((directory / "x.jsonl").read_text())
try:
    disk.require_space(directory, 10**9, "the checkpoint of step 7")
except ValueError as e:
    print(e)
"""


def test_a_full_disk(tmp_path):
    """A disk of 300 kB, in a name space of its own."""
    mount = f"mount -t tmpfs -o size=300k tmpfs {tmp_path}"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("this machine mounts nothing for a test")
    script = tmp_path.with_suffix(".py")
    script.write_text(FULL)
    command = f"{mount} && exec {sys.executable} {script} {tmp_path}"
    out = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True).stdout
    full, old, _, short = out.splitlines()
    assert (
        full.startswith(f"{tmp_path}: No space left on device; free space there; what was finished")
        and old == "old"
    )
    assert (
        short.startswith(f"{tmp_path}: 0.")
        and "MB are free, and the checkpoint of step 7 takes 1000.0" in short
    )


def test_a_report_that_does_not_fit_is_one_sentence(tmp_path, monkeypatch, capsys):
    def full(workdir):
        raise OSError(errno.ENOSPC, "No space left on device", str(workdir / "report.html.tmp"))

    monkeypatch.setattr(report, "write_report", full)
    monkeypatch.setattr(sys, "argv", ["report", f"--workdir={tmp_path}"])
    with pytest.raises(InputError, match=r".*report\.html\.tmp: No space left on device; free space"):
        report.main()
    monkeypatch.setattr(sys, "argv", ["report", "--workdir=gs://bucket/run"])
    with pytest.raises(SystemExit):
        report.main()
    assert "the path is 'gs://bucket/run', and only paths of this machine's" in capsys.readouterr().err


def test_other_errors_are_no_sentence(tmp_path):
    for e in (
        OSError(),
        OSError(errno.ENOENT, "x"),
        PermissionError(errno.EACCES, "x", "/elsewhere"),
        TimeoutError(),
    ):
        assert disk.sentence(e, tmp_path) is None


def test_of_a_copy_the_sentence_names_what_was_to_be_written(tmp_path):
    e = OSError(errno.ENOSPC, "No space left on device", "/source", None, str(tmp_path / "hf"))
    assert disk.sentence(e, tmp_path).startswith(f"{tmp_path / 'hf'}: No space")


def test_a_read_only_disk(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "x.jsonl.tmp"))

    monkeypatch.setattr("pathlib.Path.open", read_only)
    with pytest.raises(OSError) as found:
        write_records(tmp_path / "x.jsonl", [])
    assert "x.jsonl.tmp: Read-only file system; make it writable, or name" in disk.sentence(
        found.value, tmp_path
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("runs/~x", "runs/~x"),
        ("hf:a/b", "hf:a/b"),
        ("C:x", "C:x"),
        ("", ""),
    ],
)
def test_a_leading_tilde_is_expanded(text, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.local(text, "--out") == path


@pytest.mark.parametrize("text", ["gs://b/x", "s3://b", "file:///x", "https://x", "Az0://x"])
def test_an_address_is_refused(text):
    with pytest.raises(InputError, match=f"--out is '{text}'.*mount the bucket"):
        paths.local(text, "--out")
