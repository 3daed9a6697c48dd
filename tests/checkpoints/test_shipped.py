"""The checkpoints that the package ships, by name."""

import json
import re

import pytest
from safetensors import safe_open

from pivotrl_jax.checkpoints import gguf, locate, peft, peft_merge
from pivotrl_jax.records import InputError


def test_pi_0_of_smollm2_is_a_small_adapter_with_a_template():
    folder = locate.SHIPPED["smollm2_pi0"]
    assert peft_merge.is_adapter(folder) and peft_merge.base_of(folder) == "smollm2"
    settings = json.loads((folder / peft.CONFIG).read_text("utf-8"))
    with safe_open(folder / peft.WEIGHTS, "numpy") as file:
        names = list(file.keys())
        assert len(names) == 30 * 7 * 2
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}
        assert {min(file.get_slice(name).get_shape()) for name in names} == {settings["r"]}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    assert "<tool_call>" in (folder / "chat_template.jinja").read_text("utf-8")


def test_without_its_base_one_command_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(gguf.SMOLLM2_COMMAND)):
        locate.locate("smollm2_pi0")
