"""A PEFT adapter as a checkpoint: merged into its base once, with every tensor accounted for."""

import dataclasses
import json
import math
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import tiny_run
from support.forests import DENSE, LLAMA, MIXED, MOE, QWEN2, sharp_params

from pivotrl_jax.checkpoints import hf, hf_config, locate, peft_merge
from pivotrl_jax.checkpoints import peft as peft_lib
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import lora
from pivotrl_jax.records import InputError

BASES = {"dense": DENSE, "moe": MOE, "mixed": MIXED, "llama": LLAMA, "qwen2": QWEN2}
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(out, base=DENSE):
    """base/, adapter/ and hf/, as a run writes them."""
    config = dataclasses.replace(base, lora=model_config.Lora(3, 5.0))
    params = sharp_params(config)
    hf.save(out / "base", base, lora.base(params), tiny_run.ASSETS)
    hf.save(out / "hf", base, lora.merged(config, params), out / "base", dtype="float32")
    peft_lib.save_adapter(out / "adapter", config, params, str(out / "base"))
    return out


@pytest.fixture
def run(tmp_path):
    return write(tmp_path)


def change(run, **fields):
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def tensors(run, edit):
    path = run / "adapter" / "adapter_model.safetensors"
    found = load_file(path)
    edit(found)
    save_file(found, path)


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", BASES)
def test_an_adapter_is_merged_to_what_the_run_exported(name, tmp_path, cache, capsys):
    run = write(tmp_path, BASES[name])
    folder = locate.locate(str(run / "adapter"))
    assert folder.parent == cache / "adapters" and "reading adapter into" in capsys.readouterr().err
    got, want = weights(folder), weights(run / "hf")
    assert got.keys() == want.keys()
    for key, x in got.items():
        np.testing.assert_allclose(x, want[key], rtol=1e-6, atol=1e-6, err_msg=key)
    files = {p.name: p.read_bytes() for p in (run / "hf").iterdir() if p.name != "model.safetensors"}
    for key, content in files.items():
        assert (folder / key).read_bytes() == content, key
    assert hf_config.load_config(folder) == hf_config.load_config(run / "hf")
    assert locate.locate(str(run / "adapter"), files=locate.TOKENIZER_FILES) == folder
    assert not capsys.readouterr().err  # nothing is written twice


def test_a_bfloat16_base_is_merged_in_float32(run):
    """By hand, from the files alone: W in bfloat16, the sum in float32."""
    small = hf.load_params(run / "base", DENSE, "bfloat16")
    hf.save(run / "base", DENSE, small, tiny_run.ASSETS)
    base, got = weights(run / "base"), weights(locate.locate(str(run / "adapter")))
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    for name, w in base.items():
        want, prefix = w.astype(np.float64), peft_lib.PREFIX + name.removesuffix(".weight")
        if f"{prefix}.lora_A.weight" in adapter:
            a, b = (adapter[f"{prefix}.lora_{x}.weight"].astype(np.float64) for x in "AB")
            want = want + 5 / 3 * b @ a
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_bits_of_a_merge_do_not_depend_on_the_order_of_sums():
    rng = np.random.default_rng(0)
    b, a = (as_bfloat16(rng.normal(size=shape)) for shape in ((64, 12), (12, 96)))
    whole = peft_merge._product(b, a, 1 / 3)
    for _ in range(5):
        order = rng.permutation(12)
        assert (peft_merge._product(b[:, order], a[order], 1 / 3) == whole).all()
    wanted = [[math.fsum(float(x) * float(y) for x, y in zip(row, column)) for column in a.T] for row in b]
    np.testing.assert_array_equal(whole, (np.array(wanted) * (1 / 3)).astype(np.float32))


def as_bfloat16(values):
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_the_scale_of_rslora(run):
    plain, base = weights(locate.locate(str(run / "adapter"))), weights(run / "base")
    change(run, use_rslora=True)
    other = weights(locate.locate(str(run / "adapter")))
    for name, w in base.items():
        np.testing.assert_allclose(other[name] - w, (plain[name] - w) * 3**0.5, rtol=0, atol=1e-5)


def test_content_decides_where_it_is_cached(run):
    first = locate.locate(str(run / "adapter"))
    change(run, lora_alpha=6.0)
    second = locate.locate(str(run / "adapter"))
    tensors(run, lambda found: found.update({f"{Q}.lora_B.weight": found[f"{Q}.lora_B.weight"] * 2}))
    third = locate.locate(str(run / "adapter"))
    hf.save(run / "base", DENSE, lora.base(sharp_params(DENSE, 5)), tiny_run.ASSETS)
    assert len({first, second, third, locate.locate(str(run / "adapter"))}) == 4


def test_the_base_may_have_any_name_that_a_checkpoint_has(run, monkeypatch):
    monkeypatch.chdir(run)
    asked = []

    def snapshot(name, allow_patterns):
        asked.append(name)
        return str(run / {"someone/adapter": "adapter", "someone/base": "base"}[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    change(run, base_model_name_or_path="someone/base")
    folder = locate.locate("someone/adapter")
    assert set(asked) == {"someone/adapter", "someone/base"} and folder == locate.locate("adapter")
    change(run, base_model_name_or_path="embedded")
    with pytest.raises(InputError, match="belong to no matrix of the base"):
        locate.locate("adapter")


def test_a_tokenizer_beside_the_adapter_is_the_one_it_was_trained_with(run):
    assert not (run / "adapter" / "tokenizer.json").exists()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(run / "base" / name, run / "adapter" / name)
    (run / "adapter" / "chat_template.jinja").write_text("mine", "utf-8")
    folder = locate.locate(str(run / "adapter"))
    assert (folder / "chat_template.jinja").read_text("utf-8") == "mine"
    for name in ("tokenizer.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (run / "base" / name).read_bytes()


def test_chat_templates_with_names_come_along(run):
    named = "additional_chat_templates/tool_use.jinja"
    before = locate.locate(str(run / "adapter"))
    for folder in ("base", "adapter"):
        (run / folder / "additional_chat_templates").mkdir()
        (run / folder / named).write_text(folder, "utf-8")
    of_base = locate.locate(str(run / "adapter"))
    assert of_base != before and (of_base / named).read_text("utf-8") == "base"
    shutil.copyfile(run / "base" / "tokenizer.json", run / "adapter" / "tokenizer.json")
    (run / "adapter" / "chat_template.jinja").write_text("mine", "utf-8")
    assert (locate.locate(str(run / "adapter")) / named).read_text("utf-8") == "adapter"


def test_a_chat_template_beside_the_adapter_is_the_one_it_was_trained_with(run):
    config = dataclasses.replace(DENSE, lora=model_config.Lora(3, 5.0))
    before = locate.locate(str(run / "adapter"))
    peft_lib.save_adapter(run / "adapter", config, sharp_params(config), str(run / "base"), "mine {{ ä }}")
    folder = locate.locate(str(run / "adapter"))
    assert folder != before and (folder / "chat_template.jinja").read_text("utf-8") == "mine {{ ä }}"
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert (folder / "tokenizer.json").read_bytes() == (run / "base" / "tokenizer.json").read_bytes()


# ---- what is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"use_dora": True}, "use_dora = true is not merged here; merge it with PEFT"),
        ({"alpha_pattern": {"q_proj": 32}}, "alpha_pattern = "),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern = "),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = "),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights = "pissa"'),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights = "),
        ({"bias": "all"}, 'bias = "all"'),
        ({"lora_bias": True}, "lora_bias = true"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = true"),
        ({"layer_replication": [[0, 1]]}, "layer_replication = "),
        ({"trainable_token_indices": [1]}, "trainable_token_indices = "),
        ({"a_field_of_next_year": 1}, "a_field_of_next_year = 1"),
        ({"revision": "v2"}, 'revision = "v2"'),
        ({"r": 4}, r"gate_proj.lora_A.weight is \[3, 16\], want \[4, 16\]"),
        ({"r": 0}, "r is 0, want a whole number above 0"),
        ({"lora_alpha": None}, "lora_alpha is missing"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', want true or false"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; name the base"),
        ({"base_model_name_or_path": "some/where/else"}, "its base some/where/else is not here; name it in"),
    ],
    ids=lambda x: str(sorted(x)[0]) if isinstance(x, dict) else "",
)
def test_more_than_lora_is_refused_by_name(run, cache, fields, words):
    change(run, **fields)
    with pytest.raises(InputError, match=words):
        locate.locate(str(run / "adapter"))
    assert not list(cache.glob("adapters/*"))


@pytest.mark.parametrize(
    "fields",
    [
        {
            "init_lora_weights": True,
            "megatron_core": "megatron.core",
            "qalora_group_size": 16,
            "revision": None,
        },
        {"layers_to_transform": [0, 1], "target_modules": "all-linear", "lora_dropout": 0.1},
        {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "use_qalora": False},
    ],
)
def test_what_peft_writes_by_default_is_taken(run, fields):
    change(run, **fields)
    assert locate.locate(str(run / "adapter")).is_dir()


def drop(name):
    return lambda found: found.pop(name)


def put(name, shape, value=1.0):
    return lambda found: found.update({name: np.full(shape, value, np.float32)})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop(f"{Q}.lora_B.weight"), r"q_proj.lora_B.weight is missing, want \[24, 3\]"),
        (put(f"{Q}.lora_B.weight", (3, 24)), r"q_proj.lora_B.weight is \[3, 24\], want \[24, 3\]"),
        (
            put("base_model.model.lm_head.lora_A.weight", (3, 16)),
            r"lm_head.lora_B.weight is missing, want \[61, 3\]",
        ),
        (put("base_model.model.model.embed_tokens.weight", (61, 16)), "belong to no matrix .*embed_tokens"),
        (put(f"{Q}.lora_magnitude_vector", (24,)), "belong to no matrix .*lora_magnitude_vector"),
        (
            put(f"{Q.replace('layers.0', 'layers.9')}.lora_A.weight", (3, 16)),
            "belong to no matrix .*layers.9",
        ),
        (put(f"{Q}.bias", (24,)), "belong to no matrix .*bias"),
        (put("base_model.model.model.norm.lora_A.weight", (3, 16)), "belong to no matrix .*norm"),
        (lambda found: found.clear(), "do not fit the base .*there are none"),
        (put(f"{Q}.lora_B.weight", (24, 3), np.nan), "lora_B.weight holds NaN"),
    ],
)
def test_every_tensor_is_accounted_for(run, cache, edit, words):
    tensors(run, edit)
    with pytest.raises(InputError, match=words):
        locate.locate(str(run / "adapter"))
    assert not list(cache.glob("adapters/*"))


def test_the_unembedding_of_a_tied_base_has_no_adapter(tmp_path):
    run = write(tmp_path, dataclasses.replace(LLAMA, tie_embeddings=True))
    tensors(run, put("base_model.model.lm_head.lora_A.weight", (3, 16)))
    with pytest.raises(InputError, match=r"belong to no matrix .*lm_head"):
        locate.locate(str(run / "adapter"))


def test_folders_that_are_no_adapter_alone_are_refused(run):
    both = shutil.copytree(run / "base", run / "both")
    shutil.copyfile(run / "adapter" / "adapter_config.json", both / "adapter_config.json")
    with pytest.raises(InputError, match="holds both a model and an adapter"):
        locate.locate(str(both))
    nested = shutil.copytree(run / "adapter", run / "nested")
    change(run, base_model_name_or_path=str(nested))
    with pytest.raises(InputError, match="is an adapter, too; merge that one first"):
        locate.locate(str(run / "adapter"))
    (nested / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="only adapters in safetensors are read"):
        locate.locate(str(nested))
    for text in ("[]", "{", "\xff"):
        (nested / "adapter_config.json").write_text(text, "latin-1")
        with pytest.raises(InputError, match=r"cannot be read|want a JSON object"):
            peft_merge.base_of(nested)
