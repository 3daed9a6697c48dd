"""`pivotrl completion`: what Tab offers, asked of bash itself."""

import re
import shutil
import subprocess
import sys

import pytest
from support.paths import ROOT

from pivotrl_jax import completion
from pivotrl_jax.__main__ import PROGRAMS

ASK = """
source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; COMP_WORDS=("${@:3}"); COMP_CWORD=$(($# - 3))
_pivotrl; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """What Tab offers at the end of a line."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    file = tmp_path_factory.mktemp("completion") / "script"
    file.write_text(completion.script("bash"), "utf-8")

    def ask(line: str) -> list[str]:
        words = [part for word in line.split(" ") for part in re.split("(=)", word)]  # as bash splits them
        command = ["bash", "-u", "-c", ASK, "bash", file, line]
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


def test_the_first_word_is_a_program(offered):
    assert offered("pivotrl ") == [*PROGRAMS, "--help", "--version"]
    assert offered("pivotrl me") == ["merge_profiles"]


def test_flags_are_those_of_the_program(offered):
    assert offered("pivotrl rescore --j") == ["--judge_url=", "--judge_model="]
    assert offered("pivotrl push --") == "--workdir= --repo= --adapter --public --dry_run --help".split()
    assert offered("pivotrl plan --de") == ["--device="]


def test_fields_of_a_config_and_their_values(offered):
    assert offered("pivotrl train --config=bfcl --config.grpo.gr") == ["--config.grpo.group_size="]
    assert offered("pivotrl verify --config.grpo.gr") == []
    assert offered("pivotrl train --config=t") == ["tau2", "terminal"]
    assert offered("pivotrl train --config.resume=") == ["True", "False"]
    assert offered("pivotrl train --config.grpo.router=re") == ["replay"]


def test_what_is_a_file_is_left_to_the_shell(offered):
    assert offered("pivotrl candidates ") == offered("pivotrl export --workdir=ru") == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_of_the_help_is_offered(program):
    """The source is read, not run; the program's own --help says what there is."""
    command = [sys.executable, "-m", f"pivotrl_jax.{program}", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"(?m)^  (?:-\w, )?(--\w+)", text))
    assert named and named <= {flag.rstrip("=") for flag in completion.program_flags(program)}


def test_writing_the_script_loads_no_jax():
    code = "import sys; from pivotrl_jax import completion; completion.script('zsh')\n"
    code += "print(sorted({'jax', 'flax', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
