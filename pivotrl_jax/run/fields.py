"""Declares a config's fields: default, possible values and documentation of a field are all in one place.

    @dataclasses.dataclass(frozen=True)
    class Grpo:
        "GRPO on the pivots."
        steps: int = field(40, "Length of training.", at_least(1), unit="optimizer steps")

`options.py` declares every section this way. `config_of` makes the ml_collections config, `check_values`
tests the values of one, and explain.py prints the documentation.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from pivotrl_jax import plugins
from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.records import InputError

Tables = Mapping[str, Mapping[str, Any]]  # dotted name of a field -> what its names stand for


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which values a field may have."""

    test: Callable[[Any], bool]
    want: str  # in words, as in "want a whole number from 1 up"
    # value -> its meaning, for a field with few values
    choices: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    # a name of a table, which the program passes in, since tables live in packages that import this one
    table: bool = False
    kind: str = ""  # with `table`: the kind of plugin (see plugins.py) that the user can name instead


def number(test: Callable[[float], bool], want: str) -> Rule:
    """A finite number that passes the `test`."""

    def passes(x: Any) -> bool:
        is_number = isinstance(x, (int, float)) and not isinstance(x, bool)
        return is_number and math.isfinite(x) and test(x)

    return Rule(passes, want)


def tuple_of(test: Callable[[tuple], bool], want: str) -> Rule:
    """A tuple or list of whole numbers that passes the `test`."""

    def passes(x: Any) -> bool:
        return isinstance(x, (tuple, list)) and all(type(n) is int for n in x) and test(tuple(x))

    return Rule(passes, want)


def at_least(low: int) -> Rule:
    return Rule(
        lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= low, f"a whole number from {low} up"
    )


def seeds(low: int = 0) -> Rule:
    """JAX's keys take 32 bits: of a larger seed it would drop the others without a word."""
    return Rule(
        lambda x: isinstance(x, int) and not isinstance(x, bool) and low <= x < 2**32,
        f"a whole number from {low} to 2**32 - 1",
    )


def one_of(choices: Mapping[Any, str]) -> Rule:
    """`choices`: value -> its meaning."""
    return Rule(lambda x: x in tuple(choices), " or ".join(map(repr, choices)), choices)


def name_of_table(kind: str = "") -> Rule:
    """The name of a table's entry; `kind` also allows an entry point or 'package.module:name', as plugins.py
    says."""
    return Rule(TEXT.test, TEXT.want, table=True, kind=kind)


def _is_json_object(x: Any) -> bool:
    try:
        return isinstance(x, str) and isinstance(loads(x), dict)
    except ValueError:
        return False


def _is_shard(x: Any) -> bool:
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", x) if isinstance(x, str) else None
    return x == "" or (match is not None and int(match[1]) <= int(match[2]))


TEXT = Rule(lambda x: isinstance(x, str), "a text")
JSON_OBJECT = Rule(_is_json_object, "the text of a JSON object")
SHARD = Rule(_is_shard, "'' or a shard and their number, from '1/16' to '16/16'")
SWITCH = Rule(lambda x: isinstance(x, bool), "True or False")
ANYTHING = Rule(lambda x: True, "anything")
FINITE = number(lambda x: True, "a finite number")
NOT_NEGATIVE = number(lambda x: x >= 0, "a number from 0 up")
NOT_POSITIVE = number(lambda x: x <= 0, "a number from 0 down")
ABOVE_ZERO = number(lambda x: x > 0, "a number above 0")
SHARE = number(lambda x: 0 < x <= 1, "a number above 0 and at most 1")
SHARE_OR_NONE = number(lambda x: 0 <= x < 1, "a number from 0 up and below 1")
PROBABILITY = number(lambda x: 0 <= x <= 1, "a number from 0 to 1")
ADDRESS = Rule(
    lambda x: isinstance(x, str) and (not x or x.startswith(("http://", "https://"))),
    "the address of an OpenAI-compatible endpoint, e.g. 'http://localhost:8000/v1', or ''",
)
FRACTION = number(lambda x: 0 < x < 1, "a number above 0 and below 1")

BY_TYPE = {bool: SWITCH, str: TEXT}


@dataclasses.dataclass(frozen=True)
class Option:
    """One field, as `options_of` finds it."""

    name: str  # dotted, e.g. "grpo.steps"
    default: Any
    effect: str
    rule: Rule
    unit: str


def field(default: Any, effect: str, rule: Rule | None = None, *, unit: str = "") -> Any:
    """A documented field of a section. `unit` says what a number counts or what a text names."""
    notes = {"effect": effect, "rule": rule, "unit": unit}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=notes)
    return dataclasses.field(default=default, metadata=notes)


def options_of(section: Any, prefix: str = "") -> Iterator[Option]:
    """Every field of a section and of the sections in it, in the order in which they are declared."""
    for f in dataclasses.fields(section):
        default = getattr(section, f.name)
        if dataclasses.is_dataclass(default):
            yield from options_of(default, f"{prefix}{f.name}.")
        else:
            rule = f.metadata["rule"] or BY_TYPE.get(f.type, ANYTHING)
            yield Option(prefix + f.name, default, f.metadata["effect"], rule, f.metadata["unit"])


def sections_of(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, docstring) of every section in a section."""
    for f in dataclasses.fields(section):
        default = getattr(section, f.name)
        if dataclasses.is_dataclass(default):
            yield prefix + f.name, type(default).__doc__
            yield from sections_of(default, f"{prefix}{f.name}.")


def config_of(section: Any) -> ConfigDict:
    """The ml_collections config with the section's values; not locked."""
    config = ConfigDict()
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        config[f.name] = config_of(value) if dataclasses.is_dataclass(value) else value
    return config


def value_of(config: Any, name: str) -> Any:
    """The value at a dotted name. Raises InputError where there is none."""
    value = config
    for part in name.split("."):
        if part not in value:
            raise InputError(
                f"the config has no field {name!r}; add it, or start from pivotrl_jax/run/options.py"
            )
        value = value[part]
    return value


def check_values(config: Any, options: Iterable[Option]) -> None:
    """Raises InputError naming the field, its value and what it should be."""
    for option in options:
        value = value_of(config, option.name)
        if not option.rule.test(value):
            raise InputError(f"config.{option.name} is {value!r}; want {option.rule.want}")


def check_names(config: Any, options: Iterable[Option], tables: Tables) -> None:
    """Check the fields that name an entry of a table; a plugin of the user's is imported. Raises InputError
    that names the field."""
    for option in options:
        table = tables.get(option.name)
        if table is None or not option.rule.table:
            continue
        value = value_of(config, option.name)
        if value in table or value == option.default:
            continue
        if not option.rule.kind:
            raise InputError(f"config.{option.name} is {value!r}; want {' or '.join(map(repr, table))}")
        plugins.find(option.rule.kind, value, table, f"config.{option.name}")
