"""The report's browser of candidates: the data that its page is given, and what its script shows of them."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pivotrl_jax.report import page
from support.fabricated_run import data_in, rows_of
from support.paths import TESTS

SCRIPT = TESTS / "report" / "browser_in_node.js"


def data_of(workdir: Path) -> dict:
    """Everything that the page is given, from inside of it or from the files of report_data/."""
    if not (workdir / "report_data").exists():
        return data_in((workdir / "report.html").read_text("utf-8"))
    found = {}
    for path in (workdir / "report_data").glob("*.js"):
        raw, name = path.read_bytes(), path.stem
        assert raw.isascii() and raw.count(b"\n") == 1, "one call, whatever is in the data"
        found[name] = json.loads(raw.decode().removeprefix(f'pivotrlData("{name}", ').removesuffix(");\n"))
    return found


def detail_of(data: dict, row: dict) -> dict:
    return data[f"{row['file']:05d}"][row["place"]]


def in_node(workdir: Path) -> Callable:
    """A function from the steps that a reader takes on a run's report to what is then shown."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed, and the script needs it")
    data = workdir / "data.json"
    data.write_text(json.dumps(data_of(workdir)))

    def run(*steps: list, hash: str = "", files: bool = False, sort: str = "outcome") -> list:
        command = [node, str(SCRIPT), str(page.ASSETS / "report.js"), str(data)]
        asked = json.dumps({"steps": steps, "hash": hash, "files": files, "sort": sort})
        done = subprocess.run(command, input=asked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.rows = rows_of(data_of(workdir)["index"])
    return run
