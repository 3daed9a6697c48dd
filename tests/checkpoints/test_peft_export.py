"""Adapters on disk: base + adapter = merged export, tensor for tensor, and PEFT computes what we compute."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.forests import DENSE, LLAMA, MIXED, MOE, QWEN2, sharp_params

from pivotrl_jax.checkpoints import hf
from pivotrl_jax.checkpoints import peft as peft_lib
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.records import InputError

RANK, ALPHA = 3, 5.0
BASES = {"dense": DENSE, "moe": MOE, "mixed": dataclasses.replace(MIXED, num_layers=3, dense_layers=(1,))}
BASES |= {"llama": LLAMA, "qwen2": QWEN2}
ATTENTION = {f"self_attn.{x}_proj": (16, 12) for x in "kv"} | {
    "self_attn.q_proj": (16, 24),
    "self_attn.o_proj": (24, 16),
}  # (inputs, outputs): hidden 16, 4 heads and 2 key/value heads of 6


def mlp(prefix: str, width: int) -> dict[str, tuple[int, int]]:
    return {f"{prefix}.{name}_proj": (16, width) for name in ("gate", "up")} | {
        f"{prefix}.down_proj": (width, 16)
    }


EXPERTS = {name: size for e in range(5) for name, size in mlp(f"mlp.experts.{e}", 12).items()}
LAYERS = {
    **dict.fromkeys(("dense", "llama", "qwen2"), [mlp("mlp", 20)] * 2),
    "moe": [EXPERTS] * 2,
    "mixed": [EXPERTS, mlp("mlp", 20), EXPERTS],
}


@pytest.fixture(scope="module", params=BASES)
def exported(request, tmp_path_factory):
    """(name, config with adapters, params, directory with base/, adapter/ and merged/)"""
    base = BASES[request.param]
    config = dataclasses.replace(base, lora=model_config.Lora(RANK, ALPHA))
    params, out = sharp_params(config), tmp_path_factory.mktemp(request.param)
    hf.save(out / "base", base, lora.base(params), None)
    hf.save(out / "merged", base, lora.merged(config, params), None)
    peft_lib.save_adapter(out / "adapter", config, params, "someone/base")
    return request.param, config, params, out


def test_the_adapter_holds_these_tensors(exported):
    name, _, _, out = exported
    want = {}
    for i, layer in enumerate(LAYERS[name]):
        for module, (inputs, outputs) in (ATTENTION | layer).items():
            prefix = f"base_model.model.model.layers.{i}.{module}"
            want |= {f"{prefix}.lora_A.weight": (RANK, inputs), f"{prefix}.lora_B.weight": (outputs, RANK)}
    tensors = load_file(out / "adapter" / "adapter_model.safetensors")
    assert {key: x.shape for key, x in tensors.items()} == want
    assert {x.dtype for x in tensors.values()} == {np.dtype(np.float32)}


def test_base_and_adapter_make_the_merged_export(exported):
    """By hand in float64, from the files alone; what has no adapter is bit-equal."""
    _, _, _, out = exported
    base, merged = (load_file(out / name / "model.safetensors") for name in ("base", "merged"))
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    assert base.keys() == merged.keys()
    seen = 0
    for name, w in base.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{prefix}.lora_A.weight" not in adapter:
            assert np.array_equal(merged[name], w), name
            continue
        a, b = (adapter[f"{prefix}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        np.testing.assert_allclose(merged[name], w + ALPHA / RANK * b @ a, rtol=1e-6, atol=1e-6, err_msg=name)
        seen += 2
    assert seen == len(adapter)


def test_the_merged_export_is_read_back_as_it_was_merged(exported):
    name, config, params, out = exported
    again = hf.load_params(out / "merged", BASES[name])
    view = lora.merged(config, params)
    for group, leaves in again.items():
        for matrix, x in leaves.items() if isinstance(leaves, dict) else ():
            for layer in range(len(x)):
                assert np.array_equal(x[layer], view[group][matrix][layer]), (group, matrix)


def test_adapter_config_says_what_the_tensors_are(exported):
    name, _, _, out = exported
    values = json.loads((out / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert values["peft_type"] == "LORA" and values["task_type"] == "CAUSAL_LM"
    assert values["r"] == RANK and values["lora_alpha"] == ALPHA and values["bias"] == "none"
    assert values["base_model_name_or_path"] == "someone/base" and values["use_rslora"] is False
    assert set(values["target_modules"]) == {f"{x}_proj" for x in "q k v o gate up down".split()}
    assert ("target_parameters" in values) == (name == "mixed")


def test_peft_computes_what_we_compute(exported):
    """PEFT on transformers' model of the base, and merged by PEFT: logits equal those with our adapters."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", "5")
    _, config, params, out = exported
    tokens = np.random.default_rng(0).integers(0, 61, (2, 12)).astype(np.int32)
    want = np.asarray(decoder.logits(config, params, tokens))
    plain = transformers.AutoModelForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
    with torch.no_grad():
        assert np.abs(plain(torch.tensor(tokens).long()).logits.numpy() - want).max() > 0.5
        adapted = peft.PeftModel.from_pretrained(plain, out / "adapter")
        got = adapted(torch.tensor(tokens).long()).logits.numpy()
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-4)
        merged = adapted.merge_and_unload()(torch.tensor(tokens).long()).logits.numpy()
    np.testing.assert_allclose(merged, want, rtol=0, atol=2e-4)


def test_an_adapter_replaces_an_older_one_or_leaves_it_whole(exported, tmp_path, monkeypatch):
    _, config, params, out = exported
    for base in ("first", "second"):
        peft_lib.save_adapter(tmp_path / "adapter", config, params, base)
    before = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(
        peft_lib, "write_tensors", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        peft_lib.save_adapter(tmp_path / "adapter", config, params, "third")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == before
    assert "second" in (tmp_path / "adapter" / "adapter_config.json").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]  # nothing temporary is left


def test_an_adapter_never_replaces_something_else(exported, tmp_path):
    _, config, params, _ = exported
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not an adapter"):
        peft_lib.save_adapter(tmp_path, config, params, "base")
    assert (tmp_path / "thesis.txt").is_file()
