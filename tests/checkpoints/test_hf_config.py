"""config.json: its numbers are read by transformers' rules, written back for transformers 4 and 5, and what
cannot be read gets one sentence."""

import dataclasses
import json
import math

import pytest
from support.paths import GOLDEN

from pivotrl_jax.checkpoints import hf_config
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.rope import Linear, Llama3, Yarn
from pivotrl_jax.records import InputError

NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


def yarn(**fields):
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16} | fields


LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 16,
}


def write(directory, values):
    (directory / "config.json").write_text(json.dumps(values))
    return directory


@pytest.fixture
def edited(tmp_path):
    """edited(name, field=value, ...) -> a directory with a fixture's config.json; None removes a field."""

    def make(name, **fields):
        values = json.loads((GOLDEN / name / "config.json").read_text()) | fields
        return write(tmp_path, {k: v for k, v in values.items() if k not in fields or v is not None})

    return make


@pytest.fixture
def rope(edited):
    """rope(theirs, ...) -> our YaRN of dense_tied with the given `rope_scaling`, in both spellings."""

    def read(settings, **fields):
        spellings = [
            {"rope_scaling": settings, "rope_theta": 1e6, "rope_parameters": None},
            {"rope_parameters": {"rope_theta": 1e6, **settings}},
        ]
        configs = [hf_config.load_config(edited("dense_tied", **s, **fields)) for s in spellings]
        assert configs[0] == configs[1]
        return configs[0].rope_scaling

    return read


# What is read.


def test_numbers_are_the_files():
    config = hf_config.load_config(GOLDEN / "moe_sharded", "float32")
    assert config == ModelConfig(
        model_type="qwen3_moe",
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        mlp_size=0,
        expert_size=8,
        num_experts=4,
        experts_per_token=2,
        dense_layers=(),
        norm_topk_prob=True,
        attention_bias=False,
        mlp_bias=False,
        rope_theta=5e6,
        rope_scaling=None,
        rms_norm_eps=1e-6,
        tie_embeddings=False,
        dtype="float32",
        lora=None,
    )
    assert hf_config.load_config(GOLDEN / "moe_sharded").dtype == "bfloat16"


def test_dense_numbers_are_the_files():
    config = hf_config.load_config(GOLDEN / "dense_untied")
    assert (config.mlp_size, config.expert_size, config.num_experts, config.dense_layers) == (40, 0, 0, ())


def test_rope_theta_is_read_from_both_places(edited):
    directory = edited("dense_tied", rope_parameters=None, rope_theta=5e6, rope_scaling={})
    assert hf_config.load_config(directory).rope_theta == 5e6


def test_a_moe_config_without_head_dim_follows_transformers_rule(edited):
    whole = hf_config.load_config(GOLDEN / "moe_normed")
    assert hf_config.load_config(edited("moe_normed", head_dim=None)) == whole  # 32 / 4 heads
    with pytest.raises(InputError, match="head_dim is missing"):
        hf_config.load_config(edited("dense_tied", head_dim=None))


@pytest.mark.parametrize(
    "fields, dense",
    [
        ({}, ()),
        ({"mlp_only_layers": None, "decoder_sparse_step": None}, ()),
        ({"mlp_only_layers": [3, 0]}, (0, 3)),
        ({"decoder_sparse_step": 2}, (0, 2, 4)),
        ({"decoder_sparse_step": 3}, (0, 1, 3, 4)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [5, 2]}, (0, 2, 4, 5)),
    ],
)
def test_layers_without_experts_are_those_of_transformers_rule(edited, fields, dense):
    config = hf_config.load_config(edited("moe_normed", num_hidden_layers=6, **fields))
    assert config.dense_layers == dense
    assert config.mlp_size == (64 if dense else 0) and config.expert_size == 16


def test_attention_bias_is_read_and_may_be_missing(edited):
    assert hf_config.load_config(edited("moe_normed", attention_bias=True)).attention_bias
    assert not hf_config.load_config(edited("moe_normed", attention_bias=None)).attention_bias


YARN = Yarn(4.0, 16, 32.0, 1.0, 0.1 * math.log(4) + 1, True)


@pytest.mark.parametrize(
    "settings, fields, expected",
    [
        (yarn(), {}, {}),
        ({"type": "yarn", "factor": 4, "original_max_position_embeddings": 16}, {}, {}),
        (yarn(rope_type="default"), {}, None),
        (yarn(beta_fast=16, beta_slow=2), {}, {"beta_fast": 16.0, "beta_slow": 2.0}),
        (yarn(beta_fast=None, beta_slow=0), {}, {}),  # `or`, as transformers has it
        (yarn(truncate=False), {}, {"truncate": False}),
        (yarn(attention_factor=1.5, mscale=2.0, mscale_all_dim=1.0), {}, {"attention_factor": 1.5}),
        (yarn(mscale=2.0), {}, {}),
        (yarn(mscale=2.0, mscale_all_dim=0), {}, {}),
        (
            yarn(mscale=2.0, mscale_all_dim=0.5),
            {},
            {"attention_factor": (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1)},
        ),
        (yarn(factor=1.0), {}, {"factor": 1.0, "attention_factor": 1.0}),
        (
            yarn(factor=None),
            {"max_position_embeddings": 40},
            {"factor": 2.5, "attention_factor": 0.1 * math.log(2.5) + 1},
        ),
        (
            yarn(original_max_position_embeddings=None),
            {"max_position_embeddings": 40},
            {"original_max_position_embeddings": 40},
        ),
        (
            yarn(),
            {"original_max_position_embeddings": 24},
            {"original_max_position_embeddings": 24},
        ),
    ],
)
def test_yarn_has_transformers_defaults(rope, settings, fields, expected):
    read = rope(settings, **fields)
    assert read == (None if expected is None else dataclasses.replace(YARN, **expected))


@pytest.mark.parametrize("head_dim", [8, 128])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"original_max_position_embeddings": 32768},
        {"truncate": False, "beta_fast": 3, "beta_slow": 0.5},
        {"mscale": 1.3, "mscale_all_dim": 0.7},
        {"attention_factor": 1.2, "factor": 32.0},
        {"original_max_position_embeddings": 4},
        {"factor": None, "original_max_position_embeddings": 4096},
        {"beta_fast": 1.0, "beta_slow": 1.0, "truncate": False},  # a ramp without length
    ],
)
def test_yarn_frequencies_equal_transformers(edited, settings, head_dim):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    from transformers import Qwen3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    fields = {"max_position_embeddings": 40960, "head_dim": head_dim}
    directory = edited(
        "dense_tied", rope_parameters=None, rope_theta=1e6, rope_scaling=yarn(**settings), **fields
    )
    ours = hf_config.load_config(directory)
    theirs, factor = ROPE_INIT_FUNCTIONS["yarn"](Qwen3Config.from_pretrained(directory))
    assert ours.rope_scaling.attention_factor == factor
    torch.testing.assert_close(torch.tensor(ours.rope_frequencies()), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    "settings, fields, expected",
    [
        (LLAMA3, {}, Llama3(8.0, 1.0, 4.0, 16)),
        (LLAMA3 | {"type": "llama3"}, {}, Llama3(8.0, 1.0, 4.0, 16)),
        (LLAMA3 | {"original_max_position_embeddings": None}, {}, Llama3(8.0, 1.0, 4.0, 64)),
        (LLAMA3, {"original_max_position_embeddings": 32}, Llama3(8.0, 1.0, 4.0, 32)),
        ({"rope_type": "linear", "factor": 2}, {}, Linear(2.0)),
    ],
)
def test_other_scalings_are_read_in_both_spellings(edited, spelling, settings, fields, expected):
    given = {"rope_parameters": None, "rope_theta": 1e4, "max_position_embeddings": 64} | fields
    for name in ("llama_tied", "qwen2", "dense_tied"):
        assert hf_config.load_config(edited(name, **given | {spelling: settings})).rope_scaling == expected


def test_llama_files_may_leave_out_what_their_config_class_derives(edited):
    """Llama 2's have no rope_theta and no head_dim, Llama 1's no num_key_value_heads."""
    names = "head_dim num_key_value_heads rope_parameters attention_bias mlp_bias tie_word_embeddings".split()
    config = hf_config.load_config(edited("llama_tied", **dict.fromkeys(names)))
    assert (config.head_dim, config.num_kv_heads, config.rope_theta) == (4, 9, 1e4)
    assert not (config.attention_bias or config.mlp_bias or config.tie_embeddings or config.rope_scaling)


def test_qwen2_has_no_usual_rope_theta_and_no_window(edited):
    with pytest.raises(InputError, match="rope_theta is missing"):
        hf_config.load_config(edited("qwen2", rope_parameters=None))
    with pytest.raises(InputError, match="use_sliding_window True is not implemented"):
        hf_config.load_config(edited("qwen2", use_sliding_window=True))


# What is written.


@pytest.mark.parametrize(
    "name, architecture", [("llama_scaled", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM")]
)
def test_an_export_names_its_family(name, architecture):
    config = hf_config.load_config(GOLDEN / name)
    for source in (GOLDEN / name, None):
        values = hf_config.config_to_json(config, source, "bfloat16")
        assert (values["model_type"], values["architectures"]) == (config.model_type, [architecture])


def test_the_length_of_a_scaled_llama_is_the_sources_or_factor_times_the_original(edited):
    config = hf_config.load_config(GOLDEN / "llama_scaled")
    assert hf_config.config_to_json(config, None, "float32")["max_position_embeddings"] == 128
    directory = edited("llama_scaled", max_position_embeddings=256)
    assert hf_config.config_to_json(config, directory, "float32")["max_position_embeddings"] == 256


def assert_written_again(directory, tmp_path):
    """Load -> write -> load is equal, with the fields of the source and without."""
    config = hf_config.load_config(directory)
    out = tmp_path / "out"
    out.mkdir()
    for source in (directory, None):
        assert (
            hf_config.load_config(write(out, hf_config.config_to_json(config, source, config.dtype)))
            == config
        )


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_the_fixtures(name, tmp_path):
    assert_written_again(GOLDEN / name, tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"attention_bias": True},
        {"mlp_only_layers": [1]},
        {"num_hidden_layers": 6, "decoder_sparse_step": 3, "mlp_only_layers": [2]},
        {"rope_scaling": yarn(), "rope_parameters": None, "rope_theta": 1e6},
        {"rope_parameters": yarn(rope_theta=1e7, truncate=False, mscale=2.0, mscale_all_dim=0.5)},
        {"rope_parameters": yarn(rope_theta=1e7), "original_max_position_embeddings": 24},
        {"rope_parameters": yarn(rope_theta=1e7, factor=None), "max_position_embeddings": 40},
    ],
)
def test_round_trip_of_edited_fields(edited, tmp_path, fields):
    assert_written_again(edited("moe_normed", **fields), tmp_path)


def test_a_mixed_model_is_written_as_a_list_of_layers(edited):
    directory = edited("moe_normed", num_hidden_layers=4, decoder_sparse_step=2)
    values = hf_config.config_to_json(hf_config.load_config(directory), directory, "float32")
    assert (values["decoder_sparse_step"], values["mlp_only_layers"]) == (1, [0, 2])
    assert (values["intermediate_size"], values["moe_intermediate_size"]) == (64, 16)


def test_yarn_is_written_in_both_spellings_and_whole(edited):
    directory = edited("dense_tied", rope_parameters=yarn(rope_theta=1e6), max_position_embeddings=40960)
    values = hf_config.config_to_json(hf_config.load_config(directory), directory, "float32")
    assert values["rope_scaling"] == {"rope_type": "yarn", **dataclasses.asdict(YARN)}
    assert values["rope_parameters"] == {**values["rope_scaling"], "rope_theta": 1e6}
    assert values["rope_theta"] == 1e6
    assert values["max_position_embeddings"] == 64  # before 4.57, 64 / 16 is the factor


def test_the_length_of_a_model_without_yarn_is_the_sources(edited):
    directory = edited("dense_tied", max_position_embeddings=40960)
    config = hf_config.load_config(directory)
    assert hf_config.config_to_json(config, directory, "float32")["max_position_embeddings"] == 40960
    assert hf_config.config_to_json(config, None, "float32")["max_position_embeddings"] == 32768


# Bad input: one sentence that names the place.


def default(**fields):
    return {"rope_type": "default", "rope_theta": 1e7} | fields


@pytest.mark.parametrize(
    "fields, words",
    [
        (
            {"model_type": "mistral"},
            r"model_type 'mistral' is not implemented; use one of \['llama', 'qwen2', 'qwen3', 'qwen3_moe'\]",
        ),
        ({"model_type": None}, "model_type None"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification"),
        ({"rope_parameters": None}, "rope_theta is missing"),
        ({"rope_theta": 1e4}, "rope_theta is 10000.0 but rope_parameters says"),
        ({"rope_scaling": {"rope_theta": 1e4}}, "rope_theta is 10000.0 but rope_parameters says"),
        ({"mlp_only_layers": [2]}, r"mlp_only_layers is \[2\], want a list of different layers from 0 to 1"),
        ({"mlp_only_layers": [-1]}, r"mlp_only_layers is \[-1\]"),
        ({"mlp_only_layers": [0, 0]}, r"mlp_only_layers is \[0, 0\]"),
        ({"mlp_only_layers": [True]}, r"mlp_only_layers is \[True\]"),
        ({"mlp_only_layers": "0"}, "mlp_only_layers is '0'"),
        ({"mlp_only_layers": [0, 1]}, "leave none of 2 layers with experts"),
        ({"decoder_sparse_step": 3}, "decoder_sparse_step 3 leave none of 2 layers"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0, want a whole number above 0"),
        ({"decoder_sparse_step": 2, "intermediate_size": None}, "intermediate_size is missing"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes', want true or false"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types .* is not implemented"),
        ({"layer_types": 2}, "layer_types 2 is not implemented"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than num_experts 4"),
        ({"num_experts": 0}, "num_experts is 0"),
        ({"norm_topk_prob": None}, "norm_topk_prob is None"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
    ],
)
def test_refusals_name_the_field(edited, fields, words):
    directory = edited("moe_normed", **fields)
    with pytest.raises(InputError, match=words) as e:
        hf_config.load_config(directory)
    assert str(directory / "config.json") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "settings, words",
    [
        *(
            (default(rope_type=kind), f"rope scaling of type '{kind}' is not implemented")
            for kind in ("dynamic", "longrope", "proportional")
        ),
        (default(rope_type=5), "rope scaling of type 5 is not implemented"),
        ({"rope_type": "linear"}, "factor is missing"),
        ({"rope_type": "linear", "factor": 0.5}, "factor 0.5, want at least 1"),
        (LLAMA3 | {"factor": None}, "factor is missing"),
        (LLAMA3 | {"low_freq_factor": "1"}, "low_freq_factor is '1', want a number above 0"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "want the second above the first"),
        (yarn(type="linear"), "rope scaling of type 'yarn' and 'linear'"),
        ("yarn", "is 'yarn', want an object"),
        ({"full_attention": default()}, "with an entry per type of layer is not implemented"),
        (default(partial_rotary_factor=0.5), "partial_rotary_factor 0.5 is not implemented"),
        ({"rope_type": "yarn", "original_max_position_embeddings": 16}, "factor of YaRN is missing"),
        (yarn(factor="4"), "factor is '4', want a number above 0"),
        (yarn(factor=0.5), "YaRN with factor 0.5, .* want a factor of at least 1"),
        (yarn(factor=float("nan")), "factor is nan"),
        (yarn(original_max_position_embeddings=16.5), "original_max_position_embeddings is 16.5"),
        (yarn(beta_fast=1, beta_slow=2), "beta_fast not below beta_slow"),
        (yarn(beta_fast="32"), "beta_fast is '32'"),
        (yarn(attention_factor=0), "attention_factor is 0"),
        (yarn(mscale=-1, mscale_all_dim=1), "mscale is -1"),
        (yarn(truncate=1), "truncate is 1, want true or false"),
    ],
)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_refusals_of_rope_settings_name_them(edited, spelling, settings, words):
    directory = edited("moe_normed", **({"rope_parameters": None} | {spelling: settings}), rope_theta=1e7)
    with pytest.raises(InputError, match=words) as e:
        hf_config.load_config(directory)
    assert str(directory / "config.json") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("odd", [None, True, 0, -1, 1.5, 10**30, "1", [], [[]], {}, {"a": {}}], ids=repr)
def test_whatever_a_field_holds_it_is_read_or_refused_in_a_sentence(tmp_path, odd):
    whole = json.loads((GOLDEN / "moe_mixed" / "config.json").read_text())
    settings = {**whole["rope_parameters"], "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32}
    variants = [whole | {name: odd} for name in whole]
    variants += [whole | {"rope_scaling": settings | {name: odd}} for name in settings]
    for values in variants:
        try:
            hf_config.load_config(write(tmp_path, values))
        except InputError as e:
            assert "\n" not in str(e)


def test_yarn_without_any_length_is_refused(edited):
    settings = yarn()
    del settings["original_max_position_embeddings"]
    directory = edited("dense_tied", rope_scaling=settings, max_position_embeddings=None)
    with pytest.raises(InputError, match="original_max_position_embeddings is missing"):
        hf_config.load_config(directory)


def test_two_spellings_that_differ_are_refused(edited):
    directory = edited("dense_tied", rope_scaling=yarn())  # rope_parameters is plain RoPE
    with pytest.raises(InputError, match="rope_scaling and rope_parameters differ; remove the wrong one"):
        hf_config.load_config(directory)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        hf_config.load_config(tmp_path)


def test_a_missing_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        hf_config.load_config(tmp_path)


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({}, 4096),
        ({"max_position_embeddings": None}, None),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 16384),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}},
            16384,
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}},
            4096,
        ),
        ({"rope_scaling": None}, 4096),
    ],
)
def test_the_context_that_a_model_was_made_for(tmp_path, fields, want):
    values = json.loads((GOLDEN / "dense_tied" / "config.json").read_text("utf-8"))
    for name in ("rope_scaling", "rope_parameters"):
        values.pop(name, None)
    values |= {"max_position_embeddings": 4096, "rope_theta": 1e6} | fields
    (tmp_path / "config.json").write_text(json.dumps(values), "utf-8")
    assert hf_config.context_length(tmp_path) == want
