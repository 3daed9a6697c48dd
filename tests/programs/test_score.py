"""python -m pivotrl_jax.score: log-probs as transformers has them, a line out for a line in, errors named."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support import tiny_run
from support.paths import ROOT

from pivotrl_jax import score
from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import hf_config
from pivotrl_jax.records import InputError

GOLDEN = ROOT / "tests" / "golden"


def run(model, *lines, more=()):
    """(exit code, output lines, stderr)."""
    stdin = "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)
    command = [sys.executable, "-m", "pivotrl_jax.score", f"--model={model}", *more]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def log_softmax(logits):
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", ["dense_untied", "moe_normed", "moe_mixed", "llama_scaled", "qwen2"])
def test_golden_models_have_transformers_log_probs(name):
    answers = np.load(GOLDEN / name / "answers.npz")
    tokens, truth = answers["tokens"], log_softmax(answers["logits"])
    scorer = score.Scorer(GOLDEN / name, "float32")
    got = scorer([row.tolist() for row in tokens])
    for row, log_probs, want in zip(tokens, got, truth):
        assert len(log_probs) == len(row) - 1
        np.testing.assert_allclose(log_probs, want[np.arange(len(row) - 1), row[1:]], atol=2e-5)


def test_every_line_gets_its_log_probs_in_order_whatever_its_neighbours():
    scorer = score.Scorer(GOLDEN / "dense_tied", "float32")
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 67, n).tolist() for n in (5, 1, 1100, 2, 40, 5)]
    together, alone = scorer(sequences), [scorer([ids])[0] for ids in sequences]
    assert [len(x) for x in together] == [4, 0, 1099, 1, 39, 4]
    for a, b in zip(together, alone):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_run.save_random(tmp_path_factory.mktemp("checkpoint") / "hf")


def test_the_program_scores_ids_and_messages_and_names_bad_lines(checkpoint):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hello to you."}]
    talk = template.load_chat(checkpoint, False)
    ids = talk.encode(talk.render(messages, [], add_generation_prompt=False))
    code, out, err = run(
        checkpoint,
        {"id": "b", "token_ids": ids},
        "",
        {"id": "a", "messages": messages},
        "{",
        {"id": "c", "token_ids": [1, 99999]},
        {"id": "d"},
        {"id": 7, "token_ids": [4]},
    )
    assert code == 1
    assert [line["id"] for line in out] == ["b", "a", 7]
    np.testing.assert_allclose(out[0]["logprobs"], out[1]["logprobs"], atol=1e-5)
    assert len(out[0]["logprobs"]) == len(ids) - 1
    assert out[2]["logprobs"] == [] and max(out[0]["logprobs"]) < 0
    said = [line for line in err.splitlines() if line.startswith("score: ")]
    assert said[0].startswith("score: line 4: not valid JSON")
    assert "line 5: token_ids[1] is 99999; want a whole number from 0 to" in said[1]
    assert 'line 6: want either "token_ids" or "messages"' in said[2] and len(said) == 3


def test_another_chat_template_renders_the_messages(checkpoint, tmp_path):
    messages = [{"role": "user", "content": "hello"}]
    file = tmp_path / "plain.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}{% endfor %}", "utf-8")
    ids = template.load_chat(checkpoint, False).encode("hello")
    lines = {"id": "ids", "token_ids": ids}, {"id": "messages", "messages": messages}
    code, out, err = run(checkpoint, *lines, more=[f"--chat_template={file}"])
    assert code == 0, err
    np.testing.assert_allclose(out[0]["logprobs"], out[1]["logprobs"], atol=1e-5)


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    code, out, err = run(tmp_path / "nothing", {"id": 1, "token_ids": [1]})
    assert (code, out) == (1, []) and "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"score: {tmp_path / 'nothing'}/config.json: no such file")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"token_ids": [1]}, '"id" is missing'),
        ({"id": 1, "token_ids": [1], "messages": []}, "want either"),
        ({"id": 1, "token_ids": []}, "empty"),
        ({"id": 1, "token_ids": "1 2"}, "non-empty list"),
        ({"id": 1, "token_ids": [True]}, r"token_ids\[0\] is True"),
        ({"id": 1, "token_ids": [0.5]}, r"token_ids\[0\] is 0.5"),
        ({"id": 1, "token_ids": [-1]}, r"token_ids\[0\] is -1"),
        ({"id": 1, "messages": [{"role": "wizard", "content": ""}]}, r"messages\[0\]"),
    ],
)
def test_bad_lines(line, sentence):
    with pytest.raises(InputError, match=sentence):
        score.read_line(json.dumps(line).encode(), 10, None)


@pytest.mark.slow
def test_random_checkpoints_equal_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(GOLDEN))
    import make

    for seed, fields in enumerate((make.CASES["dense_yarn_bias"], make.CASES["moe_normed"])):
        model = make.draw(seed, **{k: v for k, v in fields.items() if k not in ("fused", "shard")})
        model.save_pretrained(tmp_path / str(seed))
        assert hf_config.load_config(tmp_path / str(seed)).vocab_size == model.config.vocab_size
        rng = np.random.default_rng(seed)
        rows = [rng.integers(0, model.config.vocab_size, n).tolist() for n in (30, 3)]
        lines = [{"id": i, "token_ids": ids} for i, ids in enumerate(rows)]
        code, out, err = run(tmp_path / str(seed), *lines, more=["--dtype=float32"])
        assert code == 0, err
        for ids, line in zip(rows, out):
            with torch.no_grad():
                truth = log_softmax(model(torch.tensor([ids])).logits[0].numpy())
            np.testing.assert_allclose(line["logprobs"], truth[np.arange(len(ids) - 1), ids[1:]], atol=2e-5)
