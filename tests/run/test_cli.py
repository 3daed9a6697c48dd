"""How programs are called: the pivotrl command, names of configs, --help and --explain."""

import subprocess
import sys

import pytest
from support.paths import ROOT

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


def test_help_of_a_program_prints_its_flags_and_every_field():
    code, out, err = call("find_pivots", "--help")
    assert code == 0, err
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
