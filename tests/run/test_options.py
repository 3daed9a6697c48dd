"""The fields of a config are declared once: each has its documentation, its check and its default there."""

import math

import pytest
from ml_collections import ConfigDict
from support.configs import CONFIGS, paths

from pivotrl_jax.records import InputError
from pivotrl_jax.run import explain, fields, options
from pivotrl_jax.run.options import OPTIONS, SECTIONS
from pivotrl_jax.training.tables import TABLES


def test_the_options_are_the_fields_of_a_config_and_no_others():
    config = CONFIGS.get_config()
    sections = {path for path in paths(config) if isinstance(fields.value_of(config, path), ConfigDict)}
    assert set(OPTIONS) == paths(config) - sections | {"data.verifier_options"}
    assert set(SECTIONS) == sections - {"data.verifier_options"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_says_what_it_does_and_in_which_unit_or_choices(name):
    option = OPTIONS[name]
    assert option.effect.endswith(".")
    choices = option.rule.choices or option.rule is fields.SWITCH or TABLES.get(name)
    assert option.unit or choices
    assert option.rule.table == (name in TABLES)


def test_every_default_passes_its_own_check():
    config = options.defaults()
    fields.check_values(config, OPTIONS.values())
    fields.check_names(config, OPTIONS.values(), TABLES)


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"data.verifier_options"}))
def test_every_option_has_a_rule_and_no_number_may_be_infinite(name):
    test, default = OPTIONS[name].rule.test, OPTIONS[name].default
    assert not any(map(test, (math.inf, -math.inf, math.nan, None, {}))), OPTIONS[name].rule.want
    if not isinstance(default, tuple):
        assert not test([1]) and not test((1,))


@pytest.mark.parametrize(
    "name, value",
    [("b1", 1.0), ("b2", 1.5), ("b1", -0.1), ("learning_rate", math.inf), ("kl_coefficient", math.inf)],
)
def test_what_no_optimizer_can_use_is_refused(name, value):
    config = options.defaults()
    config.grpo[name] = value
    with pytest.raises(InputError, match=rf"config\.grpo\.{name} is {value}; want a number"):
        fields.check_values(config, OPTIONS.values())


def test_a_config_without_a_field_is_refused_by_the_fields_name():
    config = options.defaults()
    del config.grpo.steps
    with pytest.raises(InputError, match=r"no field 'grpo\.steps'"):
        fields.check_values(config, OPTIONS.values())


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        (
            "loss",
            "ppo",
            "config.grpo.loss is 'ppo', which is none of the losses; known are cispo, grpo, gspo",
        ),
        (
            "loss",
            "nosuch.module:loss",
            "config.grpo.loss is 'nosuch.module:loss', but nosuch.module cannot be",
        ),
        ("baseline", "none", "config.grpo.baseline is 'none'; want 'mean' or 'leave_one_out'"),
        ("aggregation", "sum", "config.grpo.aggregation is 'sum'; want 'token_mean' or"),
        ("kl_estimator", "k4", "config.grpo.kl_estimator is 'k4'; want 'k1' or 'k2' or 'k3'"),
    ],
)
def test_names_that_stand_for_nothing_are_refused_with_what_there_is(field, value, sentence):
    config = CONFIGS.get_config()
    config.grpo[field] = value
    with pytest.raises(InputError, match=sentence):
        fields.check_names(config, OPTIONS.values(), TABLES)


def test_a_field_or_a_section_is_explained_and_another_name_is_not():
    config = CONFIGS.get_config()
    config.grpo.loss = "gspo"
    text = explain.explain("grpo.loss", config, TABLES)
    assert "cispo" in text and "default 'grpo'; here 'gspo'" in text and "package.module:name" in text
    assert "judge.timeout" in explain.explain("judge", None, TABLES)
    with pytest.raises(InputError, match=r"no field or section 'grpo.los'; .*grpo\.loss"):
        explain.explain("grpo.los", config, TABLES)
