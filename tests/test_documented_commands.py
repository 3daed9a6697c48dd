"""Every command in the README, the docs and the experiments' pages can be typed: its program is there and
knows the flags, its config exists and takes the values. Those of docs/data.md and the quick ones are run."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documented import PAGES, commands, flags_of, inline_commands, program_of
from support.paths import ROOT

from pivotrl_jax.run import check_config, configs, fields
from pivotrl_jax.run.options import OPTIONS

CASES = [(page, words) for page in PAGES for words in (*commands(page), *inline_commands(page))]
IDS = [f"{page.parent.name}/{page.name}-{' '.join(words)}"[:120] for page, words in CASES]
# what is run as it is written, and something that it must say
QUICK = {
    "pivotrl --version": "pivotrl_jax 0.",
    "pivotrl completion bash": "complete -o default -F _pivotrl pivotrl",
    "pivotrl candidates my_runs/ --out=candidates.jsonl": "12 candidates in candidates.jsonl",
    "pivotrl verify --verifier=swe": '{"id": "first", "reward": 1.0, "reason": "ok"}',
    "python -m pivotrl_jax.verify --verifier=swe --mode=nemo_gym": '"reward": 1.0',
    "python -m pivotrl_jax.report runs/bfcl": "runs/bfcl/report.html",
    "pivotrl rescore --workdir=runs/bfcl": "train goes on from it by",
    "python -m pivotrl_jax.exchange export --workdir=runs/gym --rows=candidates --out=runs/gym/rows": (
        "6 rows in"
    ),
}
COMMON = ["pivotrl_jax/run/cli.py", "pivotrl_jax/run/hosts.py"]  # flags of every program with a config


def declared(file: str) -> set[str]:
    """The flags that a program's own file or folder declares, with absl or argparse."""
    path = ROOT / file
    text = "".join(p.read_text("utf-8") for p in ([path] if path.is_file() else path.glob("*.py")))
    absl = re.findall(r'DEFINE_\w+\(\s*(?:\w+,\s*)?"(\w+)"', text)
    return {*absl, *re.findall(r'"--(\w+)"', text)}


def config_of(flags: dict[str, str]):
    """The config that a command names, with its overrides."""
    path, _, size = configs.find_config(flags["config"]).partition(":")
    spec = importlib.util.spec_from_file_location("documented_config", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(size) if size else module.get_config()
    for name, text in flags.items():
        if name.startswith("config."):
            *section, last = name.removeprefix("config.").split(".")
            is_text = isinstance(fields.value_of(config, ".".join([*section, last])), str)
            (fields.value_of(config, ".".join(section)) if section else config)[last] = (
                text if is_text else ast.literal_eval(text)
            )
    return config


@pytest.mark.parametrize("page, words", CASES, ids=IDS)
def test_a_documented_command_can_be_typed(page, words):
    file, flags = program_of(words), flags_of(words)
    assert (ROOT / file).exists(), file
    known = set().union(*map(declared, [file, *COMMON]))
    own = {name for name in flags if not name.startswith("config.")}
    assert own <= known, own - known
    if "..." not in words and flags.get("config", "...") != "...":
        config = config_of(flags)
        fields.check_values(config, OPTIONS.values())
        if config.data.source in ("toolbox", "bfcl"):
            check_config.check(config)


def test_every_page_is_read_and_every_program_is_documented():
    programs = {program_of(words) for page, words in CASES}
    assert len(CASES) > 60 and len({page for page, _ in CASES}) > 15
    parts = {
        "train",
        "find_pivots",
        "merge_profiles",
        "rescore",
        "export",
        "evaluate",
        "candidates",
        "verify",
    }
    assert {f"pivotrl_jax/{name}.py" for name in parts} <= programs


def typed(words: list[str], place: Path, stdin: str = "") -> str:
    """What a command prints when it is typed in that place."""
    start = ["-m", "pivotrl_jax"] if words[0] == "pivotrl" else []
    command = [sys.executable, *start, *words[1:]]
    done = subprocess.run(command, cwd=place, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def five_minutes(tmp_path_factory):
    """(place, what was printed) of docs/data.md, word for word: its example is the file, its commands run in
    order."""
    place = tmp_path_factory.mktemp("five_minutes")
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    example = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)[1]
    rows = [{**json.loads(example), "id": f"room-{i}", "scenario": f"room-{i}"} for i in range(4)]
    (place / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return place, "".join(typed(words, place) for words in commands(ROOT / "docs" / "data.md"))


def test_five_minutes(five_minutes):
    place, said = five_minutes
    assert "candidates in candidates.jsonl" in said and "self-check: 8 of 8 candidates kept" in said
    assert re.search(r"^all +\d+ ", said, re.MULTILINE) and (place / "runs/mine/pivots.jsonl").is_file()


@pytest.fixture(scope="module")
def place(five_minutes):
    """A directory with the runs and the trajectories that the documentation's commands name."""
    place, _ = five_minutes
    for name in ("bfcl", "gym"):
        shutil.copytree(place / "runs/mine", place / "runs" / name)
    shutil.copytree(ROOT / "configs/samples/swe", place / "my_runs")
    return place


@pytest.mark.parametrize("command", QUICK)
def test_a_quick_command_does_what_it_says(place, command):
    assert command.split() in [words for _, words in CASES], "it is not documented any more"
    call = {"type": "function_call", "name": "bash", "arguments": '{"command": "ls"}'}
    case = json.dumps({"id": "first", "expected_action": call, "candidate": [call]})
    assert QUICK[command] in typed(command.split(), place, case if "verify" in command else "")
