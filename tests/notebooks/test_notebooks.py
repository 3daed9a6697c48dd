"""The notebooks: each is what its script says, those for accelerators run with the tiny model, and their real
configs pass the checks."""

import ast
import importlib.util
import json
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from pivotrl_jax import api, pipeline
from pivotrl_jax.run import check_config

pytest.importorskip("jupytext", reason="pip install -e '.[notebooks]'")
FOLDER = ROOT / "notebooks"


def load_builder():
    spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_builder()


def test_every_script_has_its_notebook_and_no_other_is_there():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(build.EXTRAS)
    assert {path.stem for path in FOLDER.glob("*.py")} == {*build.EXTRAS, "build"}


@pytest.mark.parametrize("name", build.EXTRAS)
def test_a_notebook_is_what_its_script_says(name):
    text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
    assert text == build.text_of(name), "write it again: python notebooks/build.py"
    cells = json.loads(text)["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert f"github/{build.REPOSITORY}/blob/main/notebooks/{name}.ipynb" in "".join(cells[0]["source"])
    install = "".join(cells[1]["source"])
    assert 'if importlib.util.find_spec("pivotrl_jax") is None:' in install
    ast.parse(install)


def test_the_repository_is_named_in_one_place():
    scripts = [path for path in FOLDER.glob("*.py") if path.stem != "build"]
    assert not [path for path in scripts if "github.com" in path.read_text("utf-8")]


@pytest.mark.parametrize(
    "name, kind, count, dtype",
    [
        ("colab_gpu", "Tesla T4", 1, "float32"),
        ("colab_gpu", "NVIDIA L4", 1, "bfloat16"),
        ("colab_tpu", "TPU v5 lite", 1, "bfloat16"),
        ("colab_tpu", "TPU v5 lite", 8, "bfloat16"),
    ],
)
def test_the_configs_for_accelerators_pass_the_checks(name, kind, count, dtype):
    (cell,) = [c.source for c in build.notebook(name).cells if c.source.startswith("if TINY:")]
    jax = SimpleNamespace(devices=lambda: [SimpleNamespace(device_kind=kind)] * count)
    scope = {"pivotrl": api, "TINY": False, "jax": jax}
    exec(cell, scope)
    config = scope["config"]
    pipeline.check_names(config)
    check_config.check_training(config)
    assert (config.model.checkpoint, config.model.dtype) == ("Qwen/Qwen3-0.6B", dtype)
    assert config.grpo.batch.rows == config.grpo.microbatch_rows == count


@pytest.mark.slow
@pytest.mark.parametrize("name", ["colab_gpu", "colab_tpu"])
def test_the_notebooks_for_accelerators_run_with_the_tiny_model(name, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.setenv("PIVOTRL_TINY", "1")
    monkeypatch.setattr(build, "OUT", tmp_path / "out")
    monkeypatch.setattr(build, "WORKDIR", tmp_path)
    page = build.execute(name).read_text("utf-8")
    assert "Samples" in page and "<svg" in page and (tmp_path / "runs" / f"{name}_tiny" / "hf").is_dir()
