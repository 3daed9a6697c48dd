"""Every size of a config builds and is locked; no field is dead, and none that the code reads is missing."""

import ast
import re

import pytest
from support.configs import CONFIGS, paths
from support.paths import ROOT

from pivotrl_jax.records import InputError
from pivotrl_jax.run import check_config, configs, fields, options
from pivotrl_jax.run.options import OPTIONS
from pivotrl_jax.training.tables import TABLES

CODE = sorted((ROOT / "pivotrl_jax").rglob("*.py"))


def reads() -> set[str]:
    """Dotted names that the code reads off a run's config, with its local names for sections resolved."""
    found = set()
    for file in CODE:
        tree = ast.parse(file.read_text("utf-8"))
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            found |= _reads_of(function, file.stem)
    return found


def _chain(node) -> list[str] | None:
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*names, node.id][::-1] if isinstance(node, ast.Name) else None


def _resolve(chain: list[str], local: dict[str, list[str]]) -> list[str] | None:
    """The config path of an attribute chain: run.config.x, config.x or a local name."""
    if chain[0] in local:
        return [*local[chain[0]], *chain[1:]]
    if chain[0] == "run" and chain[1:2] == ["config"]:
        return chain[2:]
    return None


def _reads_of(function, module: str) -> set[str]:
    local: dict[str, list[str]] = {}
    if module in ("run", "train", "find_pivots", "evaluate"):
        local["config"] = []
    if module == "sources" and function.name == "load":
        local["config"] = ["data"]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            targets, values = [node.targets[0]], [node.value]
            if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple):
                targets, values = node.targets[0].elts, node.value.elts
            for target, value in zip(targets, values):
                chain = _chain(value) if isinstance(target, ast.Name) else None
                if chain and (path := _resolve(chain, local)):
                    local[target.id] = path
    if function.name == "make_actor":
        local["shape"] = ["profile", "batch"]
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)) and (path := _resolve(chain, local)):
            if path[-1] in ("to_dict", "value"):
                path = path[:-1]
            found |= {".".join(path[:i]) for i in range(1, len(path) + 1)}
    return found


@pytest.mark.parametrize("size", CONFIGS.SIZES)
def test_every_size_builds_and_is_locked(size):
    config = CONFIGS.get_config(size)
    assert config.is_locked and config.data.is_locked
    with pytest.raises(AttributeError):
        config.data.limt = 4
    assert paths(config) == paths(CONFIGS.get_config()), "sizes differ in values, not in fields"


def test_the_default_is_the_embedded_run():
    config = CONFIGS.get_config()
    assert (config.model.checkpoint, config.data.source) == ("embedded", "toolbox")


def test_an_unknown_size_lists_the_known():
    with pytest.raises(ValueError, match="no size 'huge'; choose one of tiny, real"):
        CONFIGS.get_config("huge")


def test_the_table_on_top_names_every_size_with_its_command():
    for size in CONFIGS.SIZES:
        suffix = "" if size == "tiny" else f":{size}"
        assert f"| {size} | `--config=configs/bfcl.py{suffix}` |" in CONFIGS.__doc__


@pytest.mark.parametrize("size", CONFIGS.SIZES)
def test_every_field_that_the_code_reads_is_there(size):
    read = reads()
    assert {"data.max_prompt_tokens", "grpo.batch", "sampling", "mesh", "resume"} <= read
    assert read <= paths(CONFIGS.get_config(size))


def test_no_field_is_dead():
    """Every field's name is an attribute somewhere in the code; sections that are passed on whole count as
    read."""
    text = "\n".join(file.read_text("utf-8") for file in CODE)
    whole = {"mesh"}
    dead = {
        path
        for path in paths(CONFIGS.get_config())
        if path.split(".")[0] not in whole and not re.search(rf"\.{path.split('.')[-1]}\b", text)
    }
    assert not dead


@pytest.mark.parametrize("size", CONFIGS.SIZES)
def test_numbers_of_a_size_fit_each_other(size):
    c = CONFIGS.get_config(size)
    assert c.data.max_prompt_tokens <= max(c.compute.row_lengths)
    longest = c.data.max_prompt_tokens + c.sampling.max_tokens
    assert longest <= max(c.compute.row_lengths), "a prompt and one completion must fit a row of the update"
    for section in (c.profile, c.grpo):
        assert section.group_size >= 2
    assert 0 < c.profile.lambda_diff <= 1 and c.sampling.temperature > 0


@pytest.mark.parametrize("size", CONFIGS.SIZES)
def test_every_size_passes_the_check_and_every_option_is_a_field(size):
    config = CONFIGS.get_config(size)
    check_config.check(config)
    check_config.check_training(config)
    fields.check_names(config, OPTIONS.values(), TABLES)
    assert set(OPTIONS) <= paths(config)


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("profile.group_size", 0, "config.profile.group_size is 0; want a whole number from 1 up"),
        ("grpo.group_size", 1, "config.grpo.group_size is 1; want a whole number from 2 up"),
        ("sampling.max_tokens", 0, "config.sampling.max_tokens is 0"),
        ("sampling.top_p", 0.0, "config.sampling.top_p is 0.0; want a number above 0 and at most 1"),
        ("grpo.importance_cap", 0.5, "config.grpo.importance_cap is 0.5; want a number from 1 up"),
        (
            "grpo.malformed_advantage",
            5.0,
            "config.grpo.malformed_advantage is 5.0; want a number from 0 down",
        ),
        ("seed", -1, r"config.seed is -1; want a whole number from 0 to 2\*\*32 - 1"),
        ("seed", 2**32 + 5, "config.seed is 4294967301; want"),  # JAX would take it for 5
        ("profile.seed", -2, "config.profile.seed is -2; want a whole number from -1"),
        ("reward", "strict", "config.reward is 'strict', which is none of the verifiers; known are bfcl_ast"),
        ("profile.lambda_diff", 1.5, "config.profile.lambda_diff is 1.5"),
        ("data.min_pass_rate", -0.1, "config.data.min_pass_rate is -0.1; want a share from 0 to 1"),
        ("data.max_pass_rate", 60.0, "config.data.max_pass_rate is 60.0; want a share from 0 to 1"),
        ("validation.turns", -1, "config.validation.turns is -1; want a whole number from 0 up"),
        ("compute.row_lengths", (), "config.compute.row_lengths is \\(\\); want row lengths"),
        (
            "compute.row_lengths",
            (512,),
            "is 1024, more than the longest row of config.compute.row_lengths, 512",
        ),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(field, value, sentence):
    config = CONFIGS.get_config().copy_and_resolve_references()
    *sections, name = field.split(".")
    part = config
    for section in sections:
        part = part[section]
    with part.unlocked(), part.ignore_type():
        part[name] = value
    with pytest.raises(InputError, match=sentence):
        check_config.check(config)


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("grpo.learning_rte", 1e-6, r"nothing reads; did you mean grpo\.learning_rate"),
        ("sampling.max_new_tokens", 256, r"nothing reads; did you mean sampling\.max_tokens"),
        ("lora_rank", 16, r"nothing reads; did you mean model\.lora\.rank"),
        ("grop", {"steps": 3}, "nothing reads; did you mean grpo"),
        ("grpo.batch", 4, "is 4; it is a section, so set the fields in it"),
    ],
)
def test_a_field_that_nothing_reads_is_refused_with_what_is_close(field, value, sentence):
    """A config file starts from `defaults()`, which is not locked: a misspelt field is one more."""
    config = options.defaults()
    section, _, name = field.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[name] = value
    with pytest.raises(InputError, match=rf"config\.{field} .*{sentence}"):
        check_config.check(config)


def test_what_a_verifier_is_told_may_have_any_name():
    config = options.defaults()
    config.data.verifier_options = {"level": {"deep": 1}}
    check_config.check(config)


@pytest.mark.parametrize("line", ["c.grpo.steps = 1.5", "c.lock().grpo.lr = 1e-6"])
def test_a_config_file_that_sets_what_does_not_fit_is_named(line, tmp_path):
    file = tmp_path / "mine.py"
    text = "from pivotrl_jax.run.options import defaults\n\ndef get_config():\n    c = defaults()\n"
    file.write_text(f"{text}    {line}\n    return c\n")
    with pytest.raises(InputError, match=r"mine\.py: get_config failed \(\w+Error: .*\); mend the file"):
        configs.load(file, {})


@pytest.mark.parametrize("method, section", [("pivotrl", "grpo"), ("e2e_rl", "grpo"), ("sft", "sft")])
def test_moments_that_could_never_fall_in_bfloat16_are_refused(method, section):
    config = options.defaults()
    config.method = method
    for name in ("b1", "b2"):
        config.grpo.optimizer_dtype = config.sft.optimizer_dtype = "bfloat16"
        config[section][name] = 0.996
        check_config.check_training(config)
        config[section][name] = 0.999
        with pytest.raises(InputError, match=rf"config\.{section}\.{name} is 0\.999 and .* never falls"):
            check_config.check_training(config)
        config[section].optimizer_dtype = "float32"
        check_config.check_training(config)
        config[section][name] = 0.9


def test_a_profile_that_can_find_no_pivot_is_warned_of(capsys):
    config = options.defaults()
    config.profile.lambda_diff = 0.126
    check_config.check_profile(config)
    assert not capsys.readouterr().err
    config.profile.lambda_diff = 0.125  # of 8 samples, one that passes
    check_config.check_training(config)
    assert "no mixed group has a mean below it; raise it above 0.125" in capsys.readouterr().err
    config.sampling.temperature = 0.0
    check_config.check_profile(config)
    assert "warning: config.sampling.temperature is 0.0: greedy samples" in capsys.readouterr().err
    config.profile.group_size = 1
    check_config.check_profile(config)
    assert "warning: config.profile.group_size is 1: one sample is never mixed" in capsys.readouterr().err


def test_pass_rates_that_keep_no_row_are_refused():
    config = CONFIGS.get_config()
    config.data.min_pass_rate, config.data.max_pass_rate = 0.6, 0.6
    check_config.check(config)
    config.data.max_pass_rate = 0.5
    with pytest.raises(InputError, match=r"config\.data\.min_pass_rate is 0\.6, above .*, 0\.5; no row"):
        check_config.check(config)


def test_a_kl_reward_that_has_not_the_kls_gradient_is_refused():
    config = CONFIGS.get_config()
    config.grpo.kl_in = "reward"
    check_config.check_training(config)  # the coefficient is 0
    config.grpo.kl_coefficient = 0.1
    with pytest.raises(InputError, match="kl_estimator is 'k3' with kl_in 'reward'; as a reward only k1"):
        check_config.check_training(config)
    config.grpo.kl_estimator = "k1"
    check_config.check_training(config)


@pytest.mark.parametrize("name, value", [("router", "replay"), ("loss", "gspo"), ("routing_agreement", True)])
def test_what_end_to_end_rl_does_not_do_is_refused_and_the_rest_is_not(name, value):
    config = CONFIGS.get_config()
    config.method, config.grpo.router = "e2e_rl", "frozen"
    check_config.check_training(config)
    config.grpo[name] = value
    with pytest.raises(
        InputError, match=rf"config\.grpo\.{name} is {value!r}, which config\.method 'e2e_rl'"
    ):
        check_config.check_training(config)


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("temperature", 0.0, "set it above 0"),
        ("top_p", 0.9, "train with top_p=1"),
        ("top_k", 5, "train with top_p=1"),
    ],
)
def test_sampling_that_the_learner_cannot_score_is_not_trained_on(name, value, sentence):
    config = CONFIGS.get_config()
    config.sampling[name] = value
    with pytest.raises(InputError, match=sentence):
        check_config.check_training(config)
