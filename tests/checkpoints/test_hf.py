"""Hugging Face checkpoints: exports are bit-exact, bad files get one sentence."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.forests import MOE
from support.paths import GOLDEN

from pivotrl_jax.checkpoints import hf, hf_config
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import InputError

NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


def load(directory, dtype="float32"):
    config = hf_config.load_config(directory, dtype)
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
    config = dataclasses.replace(MOE, tie_embeddings=False, dtype="bfloat16")
    rng = np.random.default_rng(0)
    shapes = decoder.param_shapes(config)
    return config, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.bfloat16), shapes)


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


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "policy.net."])
def test_a_wrappers_prefix_is_named(copy, prefix):
    directory = copy("dense_tied")
    edit_weights(directory, lambda x: [x.update({prefix + name: x.pop(name)}) for name in list(x)])
    with pytest.raises(
        InputError, match=f"'{re.escape(prefix)}' is a wrapper's prefix; save the model inside"
    ):
        load(directory, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.self_attn.v_proj.weight"])
def test_a_weight_that_is_not_finite_is_named(copy, name, value):
    directory = copy("dense_tied")
    edit_weights(directory, lambda x: np.copyto(x[name].reshape(-1)[-1:], value, casting="unsafe"))
    with pytest.raises(InputError, match=f"{re.escape(name)} holds NaN or infinite values"):
        load(directory, None)


def test_old_files_of_llama_hold_frequencies_that_are_not_read(copy):
    directory = copy("llama_tied")
    more = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32) for i in range(2)}
    _, before = load(directory, None)
    edit_weights(directory, lambda x: x.update(more))
    assert_same_bits(load(directory, None)[1], before)


def test_an_export_has_one_chat_template_if_one_is_given(tiny, tmp_path):
    config, params = tiny
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "chat_template.json").write_text('{"chat_template": "old"}')
    (source / "tokenizer_config.json").write_text('{"chat_template": "old", "eos_token": "</s>"}')
    hf.save(out, config, params, source, chat_template="new")
    assert (out / "chat_template.jinja").read_text() == "new" and not (out / "chat_template.json").exists()
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"eos_token": "</s>"}
    hf.save(out, config, params, source)
    assert not (out / "chat_template.jinja").exists() and (out / "chat_template.json").exists()


def test_an_export_has_the_chat_templates_with_names(tiny, tmp_path):
    config, params = tiny
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "additional_chat_templates").mkdir(parents=True)
    files = ("tokenizer.model", "chat_template.jinja", "additional_chat_templates/tool_use.jinja")
    for name in files:
        (source / name).write_text(name)
    hf.save(out, config, params, source)
    assert [(out / name).read_text() for name in files] == list(files)
    hf.save(out, config, params, source, chat_template="new")
    assert (out / "chat_template.jinja").read_text() == "new"
    assert not (out / "additional_chat_templates").exists()
    hf.save(out, config, params, source)
    hf.save(out, config, params, None)
    assert {p.name for p in out.iterdir()} == {"config.json", "model.safetensors"}


def test_a_failed_export_leaves_the_old_checkpoint(tiny, tmp_path, monkeypatch):
    config, params = tiny
    hf.save(tmp_path / "out", config, params, None)
    before = hf.checkpoint_fingerprint(tmp_path / "out")
    monkeypatch.setattr(hf, "write_tensors", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        hf.save(tmp_path / "out", config, jax.tree.map(lambda x: x + 1, params), None)
    assert hf.checkpoint_fingerprint(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export_never_replaces_something_else(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a checkpoint"):
        hf.save(tmp_path, *tiny, None)
    assert (tmp_path / "thesis.txt").is_file()


def test_misshapen_params_and_adapters_are_not_written(tiny, tmp_path):
    config, params = tiny
    adapted = dataclasses.replace(config, lora=model_config.Lora(2, 4.0))
    short = {**params, "final_norm": params["final_norm"][:-1]}
    with pytest.raises(ValueError, match=r"do not fit the config: final_norm \(15,\) != \(16,\);"):
        hf.save(tmp_path / "out", config, short, None)
    with pytest.raises(ValueError, match=r"layers.down_lora_a \(2, 5, 12, 2\) != None, .* and 10 more"):
        hf.save(tmp_path / "out", adapted, decoder.param_shapes(adapted), None)
    assert not (tmp_path / "out").exists()


def test_whoever_may_read_the_config_may_read_the_weights(tiny, tmp_path):
    hf.save(tmp_path / "out", *tiny, None, max_shard_bytes=3000)
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


def test_fingerprint_follows_weights_and_config(copy):
    directory = copy("dense_tied")
    first = hf.checkpoint_fingerprint(directory)
    assert first == hf.checkpoint_fingerprint(GOLDEN / "dense_tied") and len(first) == 16
    edit_weights(directory, lambda t: t["model.norm.weight"].__setitem__(0, 3.0))
    second = hf.checkpoint_fingerprint(directory)
    edit_config(directory, rms_norm_eps=1e-5)
    assert len({first, second, hf.checkpoint_fingerprint(directory)}) == 3


# Bad input: one sentence that names the place.


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


@pytest.mark.parametrize(
    "lie",
    [
        lambda name, entry, size: entry.update(data_offsets=[size, size + 64]),  # beyond the end
        lambda name, entry, size: entry.update(data_offsets=[0, 64]),  # on another tensor
        lambda name, entry, size: entry.update(data_offsets=[64, 0]),
        lambda name, entry, size: entry.update(shape=[2**31, 2**31]),
        lambda name, entry, size: entry.update(shape=[*entry["shape"], 2]),
        lambda name, entry, size: entry.update(dtype="F32"),
        lambda name, entry, size: entry.pop("shape"),
    ],
)
@pytest.mark.parametrize("shardings", [False, True])
def test_a_header_that_lies_about_its_tensors_is_refused(copy, lie, shardings):
    directory = copy("dense_untied")
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    lie("model.norm.weight", header["model.norm.weight"], len(data))
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    config = hf_config.load_config(directory)
    places = sharding.param_shardings(decoder.abstract_params(config), sharding.make_mesh({}))
    with pytest.raises(InputError, match=r"model\.safetensors: truncated or corrupt \(.*; download it again"):
        hf.load_params(directory, config, None, places if shardings else None)


def test_experts_that_do_not_halve_into_gate_and_up_are_refused(copy):
    directory, name = copy("moe_raw"), "model.layers.0.mlp.experts.gate_up_proj"

    def lengthen(tensors):
        tensors[name] = np.concatenate([tensors[name], tensors[name][:, :1]], axis=1)

    edit_weights(directory, lengthen)
    with pytest.raises(InputError, match=rf"missing \(.*1 unexpected \({name}\)"):
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
