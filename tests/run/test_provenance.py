"""Claims about what run.json says of where a run comes from."""

import datetime
import json
import subprocess
import sys

from pivotrl_jax.run import provenance


def git(folder, *words) -> str:
    name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_a_checkout_and_says_if_files_differ(tmp_path):
    assert provenance.commit_of(tmp_path) == ""
    git(tmp_path, "init", "-q")
    assert provenance.commit_of(tmp_path) == "", "no commit yet"
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert provenance.commit_of(tmp_path) == commit
    (tmp_path / "notes").write_text("not of the code")
    assert provenance.commit_of(tmp_path) == commit
    (tmp_path / "code.py").write_text("2\n")
    assert provenance.commit_of(tmp_path) == f"{commit} + changes"
    (tmp_path / "installed").mkdir()
    assert provenance.commit_of(tmp_path / "installed") == "", "of a folder inside of another's checkout"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit_of(tmp_path) == ""


def test_a_process_says_when_where_and_by_which_command_it_was_started():
    code = "import json; from pivotrl_jax.run import provenance; print(json.dumps(provenance.of_process()))"
    done = subprocess.run([sys.executable, "-c", code, "a b"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["command"].startswith("python -c ") and found["command"].endswith(" 'a b'")
    assert {"directory", "host", "platform", "python"} <= found.keys()
    age = datetime.datetime.now().astimezone() - datetime.datetime.fromisoformat(found["started"])
    assert abs(age) < datetime.timedelta(hours=1)
