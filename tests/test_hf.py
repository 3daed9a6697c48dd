"""Hugging Face checkpoints: logits equal transformers', exports are bit-exact, bad files get one sentence."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pivotrl_jax import hf, model
from pivotrl_jax.records import InputError

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["dense_tied", "dense_untied", "moe_normed", "moe_raw", "moe_sharded"]


def load(directory, dtype="float32"):
    config = hf.load_config(directory, dtype)
    return config, hf.load_params(directory, config, dtype)


def flat(params):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(params)}


def assert_same_bits(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name


def edit_config(directory, **fields):
    path = directory / "config.json"
    values = json.loads(path.read_text())
    for name, value in fields.items():
        values[name] = value
        if value is None:
            del values[name]
    path.write_text(json.dumps(values))


def edit_weights(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, directory / "model.safetensors")


@pytest.fixture
def copy(tmp_path):
    """copy(name) -> a private copy of a fixture."""

    def make(name):
        return Path(shutil.copytree(GOLDEN / name, tmp_path / name))

    return make


@pytest.fixture(scope="module")
def tiny():
    """A MoE config and random params in our own tree, bfloat16."""
    config = model.ModelConfig(50, 16, 2, 4, 2, 6, 8, 3, 2, True, 1e6, 1e-6, False, "bfloat16")
    rng = np.random.default_rng(0)
    shapes = model.param_shapes(config)
    return config, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.bfloat16), shapes)


# What we compute equals what transformers computes.


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_tokens_equal_transformers(name):
    config, params = load(GOLDEN / name)
    answers = np.load(GOLDEN / name / "answers.npz")
    jitted = jax.jit(lambda params, tokens: model.logits(config, params, tokens))
    length = answers["tokens"].shape[1]
    tokens = np.pad(answers["tokens"], ((0, 0), (0, answers["greedy"].shape[1])))

    def run():
        return np.asarray(jitted(params, tokens))

    for i in range(length, tokens.shape[1]):
        tokens[:, i] = run()[:, i - 1].argmax(-1)
    np.testing.assert_array_equal(tokens[:, length:], answers["greedy"])
    np.testing.assert_allclose(run()[:, :length], answers["logits"], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("moe_normed", "norm_topk_prob", False),
        ("moe_normed", "experts_per_token", 3),
        ("dense_untied", "rope_theta", 1e6),
        ("dense_untied", "rms_norm_eps", 1e-2),
    ],
)
def test_the_fixtures_would_show_a_wrong_field(name, field, value):
    config, params = load(GOLDEN / name)
    answers = np.load(GOLDEN / name / "answers.npz")
    wrong = model.logits(dataclasses.replace(config, **{field: value}), params, answers["tokens"])
    assert np.abs(wrong - answers["logits"]).max() > 2e-2


def test_config_numbers_are_the_files():
    config = hf.load_config(GOLDEN / "moe_sharded", "float32")
    assert config == model.ModelConfig(64, 32, 2, 4, 2, 16, 8, 4, 2, True, 5e6, 1e-6, False, "float32")
    assert hf.load_config(GOLDEN / "moe_sharded").dtype == "bfloat16"


def test_rope_theta_is_read_from_both_places(copy):
    directory = copy("dense_tied")
    edit_config(directory, rope_parameters=None, rope_theta=5e6, rope_scaling={})
    assert hf.load_config(directory).rope_theta == 5e6


def test_a_moe_config_without_head_dim_follows_transformers_rule(copy):
    directory = copy("moe_normed")
    edit_config(directory, head_dim=None)
    assert hf.load_config(directory) == hf.load_config(GOLDEN / "moe_normed")  # 32 / 4 heads
    directory = copy("dense_tied")
    edit_config(directory, head_dim=None)
    with pytest.raises(InputError, match="head_dim is missing"):
        hf.load_config(directory)


# Round trips.


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_is_bit_exact(name, tmp_path):
    config, params = load(GOLDEN / name, None)
    assert params["embed"].dtype == jnp.bfloat16
    hf.save(tmp_path / "out", config, params, GOLDEN / name)
    config_again, again = load(tmp_path / "out", None)
    assert config_again == config
    assert_same_bits(again, params)


def test_export_equals_transformers_files_tensor_by_tensor(tmp_path):
    config, params = load(GOLDEN / "moe_normed", None)
    hf.save(tmp_path / "out", config, params, GOLDEN / "moe_normed")
    ours, theirs = (load_file(d / "model.safetensors") for d in (tmp_path / "out", GOLDEN / "moe_normed"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_round_trip_of_jax_arrays_over_shards(tiny, tmp_path):
    config, params = tiny
    hf.save(tmp_path / "out", config, params, None, max_shard_bytes=3000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    assert_same_bits(hf.load_params(tmp_path / "out", config), params)


def test_dtype_is_kept_or_cast(tiny, tmp_path):
    config, params = tiny
    hf.save(tmp_path / "out", config, params, None)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    cast = hf.load_params(tmp_path / "out", config, "float32")
    assert_same_bits(cast, jax.tree.map(lambda x: x.astype(jnp.float32), params))


def test_export_carries_the_companions_and_replaces_an_older_one(tiny, tmp_path):
    config, params = tiny
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "notes.txt"):
        (source / name).write_text(name)
    out = tmp_path / "out"
    hf.save(out, config, params, None)
    hf.save(out, config, params, source)
    assert {p.name for p in out.iterdir()} == {
        *(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
            "generation_config.json",
        )
    }
    assert {p.name for p in tmp_path.iterdir()} == {"source", "out"}  # nothing temporary is left


def test_a_failed_export_leaves_the_old_checkpoint(tiny, tmp_path, monkeypatch):
    config, params = tiny
    hf.save(tmp_path / "out", config, params, None)
    before = hf.fingerprint(tmp_path / "out")
    monkeypatch.setattr(hf, "save_file", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        hf.save(tmp_path / "out", config, jax.tree.map(lambda x: x + 1, params), None)
    assert hf.fingerprint(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export_never_replaces_something_else(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a checkpoint"):
        hf.save(tmp_path, *tiny, None)
    assert (tmp_path / "thesis.txt").is_file()


def test_misshapen_params_are_not_written(tiny, tmp_path):
    config, params = tiny
    with pytest.raises(ValueError, match="do not fit"):
        hf.save(tmp_path / "out", config, {**params, "final_norm": params["final_norm"][:-1]}, None)
    assert not (tmp_path / "out").exists()


def test_fingerprint_follows_weights_and_config(copy):
    directory = copy("dense_tied")
    first = hf.fingerprint(directory)
    assert first == hf.fingerprint(GOLDEN / "dense_tied") and len(first) == 16
    edit_weights(directory, lambda t: t["model.norm.weight"].__setitem__(0, 3.0))
    second = hf.fingerprint(directory)
    edit_config(directory, rms_norm_eps=1e-5)
    assert len({first, second, hf.fingerprint(directory)}) == 3


# Bad input: one sentence that names the place.


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"model_type": "llama"}, "model_type 'llama' is not implemented"),
        ({"model_type": None}, "model_type None"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling of type 'yarn'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6}}, "rope scaling of type 'linear'"),
        ({"rope_parameters": None}, "rope_theta is missing"),
        ({"rope_theta": 1e4}, "rope_theta is 10000.0 but rope_parameters says"),
        ({"mlp_only_layers": [0]}, r"mlp_only_layers \[0\]"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step 2"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than num_experts 4"),
        ({"norm_topk_prob": None}, "norm_topk_prob is None"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
    ],
)
def test_config_refusals_name_the_field(copy, fields, words):
    directory = copy("moe_normed")
    edit_config(directory, **fields)
    with pytest.raises(InputError, match=words) as e:
        hf.load_config(directory)
    assert str(directory / "config.json") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        hf.load_config(tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("model.norm.weight"), r"1 missing \(model.norm.weight\)"),
        (lambda t: t.update({"visual.weight": np.zeros(3, np.float32)}), r"1 unexpected \(visual.weight\)"),
        (
            lambda t: t.update({"model.norm.weight": np.ones(31, np.float32)}),
            r"1 misshapen \(model.norm.weight \[31\], want \[32\]\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(32, np.int8)}),
            "model.norm.weight is I8",
        ),
    ],
)
def test_weights_refusals_name_the_tensor(copy, change, words):
    directory = copy("moe_normed")
    edit_weights(directory, change)
    with pytest.raises(InputError, match=words):
        load(directory)


def test_a_second_copy_of_tied_embeddings_must_be_the_same(copy):
    directory = copy("dense_tied")
    edit_weights(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    load(directory)
    edit_weights(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}))
    with pytest.raises(InputError, match=r"1 unexpected \(lm_head.weight\)"):
        load(directory)


@pytest.mark.parametrize("keep", [0, 5, 200, 30_000])
def test_a_truncated_file_is_named(copy, keep):
    directory = copy("dense_untied")
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors: truncated or corrupt"):
        load(directory)


def test_an_lfs_pointer_is_called_that(copy):
    directory = copy("dense_untied")
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match="git-lfs pointer"):
        load(directory)


def test_missing_weights_shards_and_a_lying_index(copy):
    directory = copy("moe_sharded")
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shard = directory / "model-00002-of-00003.safetensors"
    shard.rename(directory / "elsewhere")
    with pytest.raises(InputError, match=r"model-00002-of-00003\.safetensors: the index names this shard"):
        load(directory)
    (directory / "elsewhere").rename(shard)
    dropped = next(name for name, file in index["weight_map"].items() if file == shard.name)
    for weight_map, words in [
        ({k: v for k, v in index["weight_map"].items() if k != dropped}, "disagree about " + dropped),
        ({**index["weight_map"], dropped: "../../etc/passwd"}, "outside the checkpoint"),
        ([], "not a safetensors index"),
    ]:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(InputError, match=words):
            load(directory)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match="only safetensors weights are read"):
        load(directory)


# Live, where torch is installed (the `parity` extra).


def golden_script():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn_config(seed):
    """Fields of a random config: GQA ratios, head_dim off hidden/heads, tied and untied, odd vocabularies."""
    rng = np.random.default_rng(seed)
    kv = int(rng.choice([1, 2, 3]))
    fields = {
        "vocab_size": int(rng.integers(40, 90)),
        "hidden_size": int(rng.choice([16, 24, 40])),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_key_value_heads": kv,
        "num_attention_heads": kv * int(rng.choice([1, 2, 4])),
        "head_dim": int(rng.choice([4, 6, 16])),
        "intermediate_size": int(rng.choice([24, 36])),
        "tie_word_embeddings": bool(rng.integers(2)),
        "rms_norm_eps": float(rng.choice([1e-6, 1e-5])),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(rng.choice([1e4, 1e6, 5e6, 1e7]))},
    }
    if seed % 2:
        experts = int(rng.integers(2, 9))
        fields |= {
            "num_experts": experts,
            "num_experts_per_tok": int(rng.integers(1, experts + 1)),
            "moe_intermediate_size": int(rng.choice([8, 12])),
            "norm_topk_prob": bool(rng.integers(2)),
        }
    return fields


@pytest.mark.parametrize("seed", range(6))
def test_live_parity_both_ways(seed, tmp_path):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    make = golden_script()
    theirs = make.draw(seed, **drawn_config(seed))
    theirs.save_pretrained(tmp_path / "theirs")
    expected = make.answers(theirs, seed, new=1)
    config, params = load(tmp_path / "theirs", "float32")
    ours = model.logits(config, params, expected["tokens"])
    np.testing.assert_allclose(ours, expected["logits"], atol=2e-4, rtol=0)

    hf.save(tmp_path / "ours", config, params, tmp_path / "theirs")
    again, info = type(theirs).from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.tensor(expected["tokens"])).logits, expected["logits"])
