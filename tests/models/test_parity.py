"""What we compute equals what transformers computes: logits, greedy tokens, routers, and what it reads back.

Golden fixtures answer without torch. Live models (the `parity` extra) are written by `save_pretrained`, read
by `hf`, and cover every field of config.json. Weights are drawn large (golden/make.py), so that errors show.
"""

import dataclasses
import functools
import importlib.util
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.paths import GOLDEN

from pivotrl_jax.checkpoints import hf, hf_config
from pivotrl_jax.models import decoder, experts, forest, sharding
from pivotrl_jax.models.forest import Piece
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling

NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
ATOL = 2e-4  # of float32 logits, which reach 10 to 30
LENGTH, PROMPT = 48, 16  # three times what YaRN calls the original context here

# ---- the table of live models: what differs from golden/make.py's BASE


def rope(theta, **yarn):
    """RoPE settings; with `yarn` Qwen3's documented factor of 4, for a context of 16."""
    if not yarn:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    documented = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    return {"rope_parameters": {"rope_theta": theta, **documented, **yarn}, "max_position_embeddings": 64}


COMMON = {"vocab_size": 61, "num_hidden_layers": 2, "intermediate_size": 40, "tie_word_embeddings": False}
COMMON |= rope(1e6)
HEADS = {  # (query heads, key/value heads, head_dim), of a hidden size of 32
    "1:1": (4, 4, 8),
    "2:1": (4, 2, 8),
    "4:1": (8, 2, 4),
    "8:1": (8, 1, 4),
    "3:1": (9, 3, 4),
    "one": (1, 1, 32),
    "wide": (4, 2, 16),
    "narrow": (4, 1, 6),
}
HEADS = {
    key: {"num_attention_heads": h, "num_key_value_heads": n, "head_dim": k}
    for key, (h, n, k) in HEADS.items()
}
TIED, BIAS = {"tie_word_embeddings": True}, {"attention_bias": True}
WHOLE = {"beta_slow": 0.1}  # with it the ramp has more than one step at these head_dims

DENSE = {
    "multi_head": HEADS["1:1"] | rope(1e4),
    "grouped_2": HEADS["2:1"] | TIED | {"vocab_size": 97, "rms_norm_eps": 1e-5},
    "grouped_4": HEADS["4:1"] | rope(5e6) | {"num_hidden_layers": 4},
    "grouped_8": HEADS["8:1"] | TIED | rope(1e7) | {"num_hidden_layers": 3},
    "one_head": HEADS["one"] | {"seed": 2} | rope(5e6) | {"num_hidden_layers": 1},
    "wide_heads": HEADS["wide"] | rope(1e4) | {"rms_norm_eps": 1e-2},
    "narrow_heads": HEADS["narrow"] | TIED | {"hidden_size": 40, "intermediate_size": 12},
    "vocabulary_of_one": HEADS["2:1"] | {"vocab_size": 1},
    "biases": HEADS["2:1"] | BIAS | rope(1e4),
    "biases_tied": HEADS["narrow"] | BIAS | TIED | {"num_hidden_layers": 3},
    "yarn": HEADS["2:1"] | rope(1e6, truncate=True),
    "yarn_attention_factor": HEADS["wide"] | rope(1e4, attention_factor=1.6, **WHOLE),
    "yarn_mscale": HEADS["wide"] | TIED | rope(1e4, mscale=2.0, mscale_all_dim=0.4),
    "yarn_untruncated": HEADS["one"] | rope(1e4, truncate=False, **WHOLE),
    "yarn_betas": HEADS["one"] | rope(5e6, beta_fast=2.0, beta_slow=0.05),
    "yarn_factor_of_lengths": HEADS["4:1"] | rope(1e7, factor=None),
    "yarn_biases": HEADS["8:1"] | BIAS | rope(1e4, factor=8.0, original_max_position_embeddings=6),
}

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}
RAW, FUSED = {"norm_topk_prob": False}, {"fused": True}  # transformers 5's own layout of experts


def top(chosen, of):
    return {"num_experts_per_tok": chosen, "num_experts": of}


MOE = {
    "normed": HEADS["2:1"] | FUSED | rope(1e7),
    "raw": HEADS["wide"] | RAW | TIED | rope(1e4),
    "one_per_token": HEADS["2:1"] | top(1, 4),
    "one_per_token_raw": HEADS["4:1"] | top(1, 5) | RAW | FUSED | rope(5e6),
    "all_experts": HEADS["narrow"] | top(4, 4) | TIED,
    "all_experts_raw": HEADS["1:1"] | top(3, 3) | RAW | FUSED,
    "one_expert": HEADS["one"] | top(1, 1) | rope(1e4),
    "many_small_experts": HEADS["8:1"] | top(4, 16) | {"moe_intermediate_size": 4, "num_hidden_layers": 3},
    "odd_sizes": HEADS["narrow"] | top(3, 7) | {"vocab_size": 97, "moe_intermediate_size": 11},
    "vocabulary_of_one": HEADS["2:1"] | {"vocab_size": 1},
    "sparse_step_2": HEADS["2:1"] | {"decoder_sparse_step": 2, "num_hidden_layers": 4},
    "sparse_step_3": HEADS["4:1"] | FUSED | RAW | {"decoder_sparse_step": 3, "num_hidden_layers": 5},
    "dense_first": HEADS["1:1"] | TIED | {"mlp_only_layers": [0], "num_hidden_layers": 3},
    "dense_inside": HEADS["8:1"] | FUSED | {"mlp_only_layers": [2, 1], "num_hidden_layers": 5},
    "step_and_list": HEADS["2:1"]
    | RAW
    | {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 4, "rms_norm_eps": 1e-3},
    "biases": HEADS["wide"] | BIAS | TIED | rope(1e4),
    "yarn": HEADS["2:1"] | FUSED | {"seed": 1} | rope(1e6, truncate=True),
    "yarn_mixed_biases": HEADS["one"]
    | BIAS
    | RAW
    | rope(1e4, truncate=False, mscale=1.5, mscale_all_dim=0.5, **WHOLE)
    | {"mlp_only_layers": [1], "num_hidden_layers": 3},
}

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # Llama 3.1's, factor of 8


def llama3(theta, **more):
    return rope(theta, **LLAMA3 | {"factor": 8.0} | more) | {"max_position_embeddings": 128}


def linear(theta, factor):
    scaling = {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    return {"rope_parameters": scaling, "max_position_embeddings": 64}


# of transformers 4, as the released checkpoints have it
def rope_scaling(theta, **scaling):
    return {"rope_theta": theta, "rope_scaling": scaling, "max_position_embeddings": 64}


DERIVED, MLP_BIAS = {"head_dim": None}, {"mlp_bias": True}
LLAMA = {
    "llama_2": HEADS["1:1"] | DERIVED | rope(1e4) | {"rms_norm_eps": 1e-5},
    "smollm2": HEADS["3:1"] | TIED | rope(1e5) | {"hidden_size": 36, "num_hidden_layers": 4},
    "llama_3": HEADS["4:1"] | rope(5e5) | {"rms_norm_eps": 1e-5, "num_hidden_layers": 3},
    "llama_31": HEADS["2:1"] | DERIVED | llama3(1e4),
    "llama_32": HEADS["wide"] | TIED | llama3(5e5, factor=32.0),
    "llama3_one": HEADS["one"] | llama3(1e4, low_freq_factor=0.5, high_freq_factor=2.5),
    "llama3_old": HEADS["2:1"] | rope_scaling(1e4, factor=8.0, original_max_position_embeddings=16, **LLAMA3),
    "linear": HEADS["wide"] | linear(1e4, 4.0),
    "linear_old": HEADS["8:1"] | rope_scaling(1e4, type="linear", factor=2.0),
    "yarn": HEADS["2:1"] | rope(1e4, truncate=True),
    "attention_bias": HEADS["2:1"] | BIAS | rope(1e4),
    "mlp_bias": HEADS["1:1"] | MLP_BIAS | TIED,
    "all_biases": HEADS["narrow"] | BIAS | MLP_BIAS | llama3(1e4),
    "no_groups": {"num_attention_heads": 4, "num_key_value_heads": None, "head_dim": 8} | rope(1e4),
}

QWEN2 = {
    "multi_head": HEADS["1:1"] | rope(1e4),
    "grouped_2": HEADS["2:1"] | TIED | {"vocab_size": 97, "rms_norm_eps": 1e-5},
    "grouped_4": HEADS["4:1"] | rope(5e6) | {"num_hidden_layers": 4},
    "grouped_8": HEADS["8:1"] | TIED | rope(1e7) | {"num_hidden_layers": 3},
    "three_to_one": HEADS["3:1"] | {"hidden_size": 36, "seed": 1},
    "one_head": HEADS["one"] | rope(5e6) | {"num_hidden_layers": 1},
    "wide_heads": HEADS["wide"] | rope(1e4) | {"rms_norm_eps": 1e-2},
    "narrow_heads": HEADS["narrow"] | TIED | {"hidden_size": 40, "intermediate_size": 12},
    "window_not_used": HEADS["2:1"] | {"use_sliding_window": False, "sliding_window": 4},
    "yarn": HEADS["2:1"] | rope(1e6, truncate=True),
    "yarn_untruncated": HEADS["one"] | TIED | rope(1e4, truncate=False, **WHOLE),
    "linear": HEADS["wide"] | linear(1e4, 4.0),
}

TABLE = {f"dense-{name}": COMMON | fields for name, fields in DENSE.items()}
TABLE |= {f"moe-{name}": COMMON | EXPERTS | fields for name, fields in MOE.items()}
ENDLESS = {"model_type": "llama", "eos_token_id": None}  # else generate() stops at Llama's own id 2
TABLE |= {f"llama-{name}": COMMON | ENDLESS | fields for name, fields in LLAMA.items()}
TABLE |= {f"qwen2-{name}": COMMON | {"model_type": "qwen2"} | fields for name, fields in QWEN2.items()}
FAST = ("llama-all_biases", "llama-smollm2", "qwen2-grouped_2")
FAST += ("dense-grouped_2", "dense-yarn_biases", "moe-normed", "moe-raw", "moe-yarn_mixed_biases")


def live(family):
    """Over the models of the table whose name starts so."""
    names = [name for name in TABLE if name.startswith(family)]
    marked = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in names]
    return pytest.mark.parametrize("case", marked, indirect=True)


# ---- ours


def load(directory, dtype="float32"):
    config = hf_config.load_config(directory, dtype)
    return config, hf.load_params(directory, config, dtype)


@functools.partial(jax.jit, static_argnums=0)
def jitted(config, params, tokens):
    return decoder.logits(config, params, tokens)


def logits_and_routes(config, params, tokens):
    """Our logits [R, T, V], and (weights [RT, A], ids [RT, A]) of every layer with experts."""
    routes = []

    def choose(*args):
        weights, ids, own = plain(*args)
        jax.debug.callback(lambda *x: routes.append(tuple(map(np.asarray, x))), weights, ids, ordered=True)
        return weights, ids, own

    plain = experts.choose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "choose", choose)
        logits = np.asarray(jax.jit(functools.partial(decoder.logits, config))(params, tokens))
        jax.effects_barrier()
    return logits, routes


def greedy(config, params, prompts, new):
    """The sampler's own path: both prompts in one row, prefilled once, decoded against the caches."""
    mesh = sharding.make_mesh({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=new, stop_ids=())
    pieces = [[Piece(key, prompt.tolist(), samples=1)] for key, prompt in enumerate(prompts)]
    packed = forest.pack(pieces, prompts.size, len(pieces), 1)
    branch = np.zeros((1, len(pieces)), np.int32)
    for placed in packed.placed:
        branch[placed.row, placed.key] = placed.prompt_slot
    numbers = np.zeros((*branch.shape, 1), np.int32)
    sampler = Sampler(config, sampling, 8, 8, mesh)
    drawn = sampler(sampler.place(jax.device_put(params)), packed, branch, jax.random.key(0), numbers)
    return drawn.tokens[0]


# ---- theirs


def golden_script():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(theirs, tokens):
    """Their float32 logits [R, T, V], and (weights [RT, A], ids [RT, A]) of every layer with experts."""
    import torch

    routes = []
    gates = [layer.mlp.gate for layer in theirs.model.layers if hasattr(layer.mlp, "gate")]
    keep = lambda gate, inputs, out: routes.append(tuple(x.float().numpy() for x in out[1:]))  # noqa: E731
    handles = [gate.register_forward_hook(keep) for gate in gates]
    with torch.no_grad():
        logits = theirs(torch.tensor(tokens), use_cache=False).logits.float().numpy()
    for handle in handles:
        handle.remove()
    return logits, routes


@pytest.fixture(scope="module")
def case(request, tmp_path_factory):
    """A live model of the table: its directory and what transformers says in float32."""
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    torch.set_num_threads(1)  # two gain nothing at this size and wait for each other
    fields, directory = dict(TABLE[request.param]), tmp_path_factory.mktemp("theirs")
    fused, seed = fields.pop("fused", False), fields.pop("seed", 0)
    drawn = golden_script().draw(seed, **fields)
    drawn.save_pretrained(directory, save_original_format=not fused)

    def theirs(directory=directory, dtype="float32"):
        # the plain loop over experts: the grouped product wants sizes in multiples of 16 bytes
        model, info = type(drawn).from_pretrained(
            directory, dtype=dtype, experts_implementation="eager", output_loading_info=True
        )
        assert not any(info.values()), info  # no tensor is missing or left over
        return model

    tokens = np.random.default_rng(seed).integers(0, fields["vocab_size"], (2, LENGTH))
    logits, routes = run(theirs(), tokens)
    config, params = load(directory)
    ours = functools.cache(lambda: logits_and_routes(config, params, tokens))
    return SimpleNamespace(
        directory=directory,
        theirs=theirs,
        tokens=tokens,
        logits=logits,
        routes=routes,
        config=config,
        params=params,
        ours=ours,
    )


# ---- live claims


@live("")
def test_logits_equal_transformers(case):
    np.testing.assert_allclose(case.ours()[0], case.logits, atol=ATOL, rtol=0)


@live("")
def test_greedy_tokens_of_the_sampler_equal_transformers_generate(case):
    import torch

    theirs, prompt = case.theirs(), torch.tensor(case.tokens[:, :PROMPT])
    continued = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_length=LENGTH, pad_token_id=0
    ).numpy()
    logits, _ = run(theirs, continued)
    best = np.sort(logits[:, PROMPT - 1 : -1], axis=-1)[..., -2:]
    assert np.diff(best).min(initial=1.0) > 2 * ATOL, "a near tie: give the model another seed"
    drawn = greedy(case.config, case.params, case.tokens[:, :PROMPT], LENGTH - PROMPT)
    np.testing.assert_array_equal(drawn, continued[:, PROMPT:])


@live("moe")
def test_routers_choose_the_same_experts_with_the_same_weights(case):
    _, routes = case.ours()
    assert len(routes) == len(case.routes) == sum(b - a for _, a, b, moe in case.config.segments() if moe)
    for (weights, ids), (their_weights, their_ids) in zip(routes, case.routes):
        np.testing.assert_array_equal(ids, their_ids)
        np.testing.assert_allclose(weights, their_weights, atol=1e-5, rtol=0)


@live("")
def test_transformers_reads_our_export_as_the_same_model(case, tmp_path):
    for source in (case.directory, None):
        hf.save(tmp_path / "ours", case.config, case.params, source)
        np.testing.assert_array_equal(run(case.theirs(tmp_path / "ours"), case.tokens)[0], case.logits)


@live("")
def test_bfloat16_errs_no_more_than_transformers(case):
    """Both compute in bfloat16 from weights that it holds exactly; the truth is transformers' float32.

    A token's error (root mean square over its logits) sums thousands of roundings, so the medians over tokens
    hardly depend on chance: ours are 0.84 to 1.12 of theirs. 1.5 leaves room for other orders of summation.
    A router's choice that rounding flips moves a token's logits as a whole, by chance on either side: hence
    the median, and flips are counted apart, at most 2 of 100 choices here.
    """
    theirs, _ = run(case.theirs(dtype="bfloat16"), case.tokens)
    config, params = load(case.directory, "bfloat16")
    ours, routes = logits_and_routes(config, params, case.tokens)
    our_error, their_error = (
        np.median(np.sqrt(np.mean((logits - case.logits) ** 2, axis=-1))) for logits in (ours, theirs)
    )
    assert our_error < 1.5 * their_error + 1e-3
    flipped = [np.sort(a[1]) != np.sort(b[1]) for a, b in zip(routes, case.routes, strict=True)]
    assert not flipped or np.concatenate(flipped).any(-1).mean() < 0.05


# ---- golden claims


def golden(name):
    return *load(GOLDEN / name), np.load(GOLDEN / name / "answers.npz")


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_tokens_equal_the_fixtures(name):
    config, params, answers = golden(name)
    length = answers["tokens"].shape[1]
    tokens = np.concatenate([answers["tokens"], answers["greedy"]], axis=1)
    logits = np.asarray(jitted(config, params, tokens))
    np.testing.assert_allclose(logits[:, :length], answers["logits"], atol=ATOL, rtol=0)
    np.testing.assert_array_equal(logits[:, length - 1 : -1].argmax(-1), answers["greedy"])


@pytest.mark.parametrize("name", ["dense_yarn_bias", "moe_mixed", "llama_scaled", "llama_tied", "qwen2"])
def test_greedy_tokens_of_the_sampler_equal_the_fixtures(name):
    config, params, answers = golden(name)
    drawn = greedy(config, params, answers["tokens"], answers["greedy"].shape[1])
    np.testing.assert_array_equal(drawn, answers["greedy"])


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("moe_normed", "norm_topk_prob", False),
        ("moe_normed", "experts_per_token", 3),
        ("dense_untied", "rope_theta", 1e6),
        ("dense_untied", "rms_norm_eps", 1e-2),
        ("dense_yarn_bias", "rope_scaling", None),
        ("dense_yarn_bias", "attention_bias", False),
        *(
            ("dense_yarn_bias", f"rope_scaling.{field}", value)
            for field, value in [
                ("factor", 3.0),
                ("original_max_position_embeddings", 32),
                ("beta_fast", 1.0),
                ("beta_slow", 1.0),
                ("attention_factor", 1.0),
                ("truncate", True),
            ]
        ),
        ("moe_mixed", "rope_scaling", None),
        ("llama_scaled", "rope_scaling", None),
        ("llama_scaled", "attention_bias", False),
        ("llama_scaled", "mlp_bias", False),
        ("llama_scaled", "rope_scaling.factor", 4.0),
        ("llama_scaled", "rope_scaling.low_freq_factor", 0.5),
        ("llama_scaled", "rope_scaling.high_freq_factor", 2.0),
        ("llama_scaled", "rope_scaling.original_max_position_embeddings", 32),
        ("llama_tied", "rope_theta", 1e4),
        ("qwen2", "model_type", "llama"),  # which would leave the biases out
    ],
)
def test_the_fixtures_would_show_a_wrong_field(name, field, value):
    config, params, answers = golden(name)
    if field.startswith("rope_scaling."):
        inner = {field.removeprefix("rope_scaling."): value}
        field, value = "rope_scaling", dataclasses.replace(config.rope_scaling, **inner)
    wrong = jitted(dataclasses.replace(config, **{field: value}), params, answers["tokens"])
    assert np.abs(wrong - answers["logits"]).max() > 2e-2
