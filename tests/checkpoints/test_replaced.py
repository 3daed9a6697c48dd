"""What stands beside a checkpoint's own files when another one takes its place."""

import os

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.configs import CONFIGS

from pivotrl_jax.checkpoints import hf
from pivotrl_jax.checkpoints.hf_files import appearing
from pivotrl_jax.run import run as run_lib


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "hf"
    (folder / "notes").mkdir(parents=True)
    for name, text in (
        ("config.json", '{"model_type": "qwen3"}'),
        ("model.safetensors", "old"),
        ("model-00001-of-00002.safetensors", "old"),
        ("model-q4.gguf", "mine"),
        ("notes/a.md", "mine"),
    ):
        (folder / name).write_text(text)
    return folder


def replace(folder):
    with appearing(folder, hf.FILES) as temporary:
        (temporary / "config.json").write_text("new")
        (temporary / "model.safetensors").write_text("new")


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


NEW = {"config.json": "new", "model.safetensors": "new", "model-q4.gguf": "mine", "notes/a.md": "mine"}


def test_files_of_others_stay(folder):
    replace(folder)
    assert files_of(folder) == NEW and os.listdir(folder.parent) == ["hf"]


def test_a_link_stays_a_link(folder, tmp_path):
    link = tmp_path / "run" / "hf"
    link.parent.mkdir()
    link.symlink_to(folder, target_is_directory=True)
    replace(link)
    assert link.is_symlink() and files_of(folder) == NEW
    assert os.listdir(link.parent) == ["hf"] and sorted(os.listdir(tmp_path)) == ["hf", "run"]


def test_a_failed_write_changes_nothing(folder):
    before = files_of(folder)
    with pytest.raises(RuntimeError), appearing(folder, hf.FILES) as temporary:
        (temporary / "config.json").write_text("half")
        raise RuntimeError
    assert files_of(folder) == before and os.listdir(folder.parent) == ["hf"]


def test_another_programs_config_is_no_checkpoint(folder, tmp_path):
    assert hf.replaceable(folder)
    (folder / "config.json").write_text('{"theme": "dark"}')
    assert not hf.replaceable(folder)
    (folder / "config.json").unlink()
    assert not hf.replaceable(folder)
    (tmp_path / "empty").mkdir()
    assert hf.replaceable(tmp_path / "empty")


def test_weights_in_float32_are_evaluated_in_float32(tmp_path, capsys):
    """Rounded to bfloat16, an export of adapters would lose what was learnt."""
    for name, kinds, want in (("a", ("float32", "float16"), "float32"), ("b", ("float16",), "bfloat16")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer_config.json").write_text("{}")
        save_file({k: np.zeros(2, k) for k in kinds}, folder / "model.safetensors")
        config = CONFIGS.get_config()
        config.model.checkpoint, config.model.param_dtype = str(folder), "bfloat16"
        found = run_lib.as_stored(config)
        assert found.model.param_dtype == want and (found.model.dtype == "float32" or want != "float32")
        assert config.model.param_dtype == "bfloat16"
        assert ("float32" in capsys.readouterr().out) == (want == "float32")
