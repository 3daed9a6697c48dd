"""Progress on a terminal is a bar, and in a file it is lines."""

import io
import sys

from pivotrl_jax.rollouts import progress


def test_redirected_progress_is_lines(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress.bar(4, "profiling", "rollouts") as bar:
        for _ in range(4):
            bar.update(1)
            bar.refresh()
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and file.getvalue().endswith("\n")
    assert [line.split("[")[0].split() for line in lines] == [
        ["profiling", ":", f"{25 * n}%|", f"{n}/4"] for n in range(5)
    ]


def test_progress_without_a_total_is_lines_too(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress.bar(None, "scoring", "tokens") as bar:
        bar.write("score: line 3: bad", file=sys.stderr)
        bar.update(7)
    assert "score: line 3: bad" in file.getvalue().splitlines() and "\r" not in file.getvalue()
    assert "7" in file.getvalue().splitlines()[-1]
