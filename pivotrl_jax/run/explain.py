"""The documentation of a config's fields, as `--help` and `--explain` print it."""

import difflib
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from absl import flags

from pivotrl_jax.records import InputError
from pivotrl_jax.run import fields
from pivotrl_jax.run.fields import Option, Tables
from pivotrl_jax.run.options import OPTIONS, SECTIONS

WIDTH = 110


def help_text(module: Any, own_flags: list[flags.Flag], tables: Tables) -> str:
    """What a program does, its flags, and every field of its config."""
    lines = [module.__doc__.strip(), "", "Flags:"]
    for flag in own_flags:
        lines += [f"  --{flag.name}", *_wrapped(flag.help, 6)]
    lines += ["", "Fields of the config, with their defaults; change one with --config.NAME=VALUE:", ""]
    sections = {""}
    for option in OPTIONS.values():
        if (section := option.name.rpartition(".")[0]) not in sections:
            sections.add(section)
            lines += ["", f"[{section}]", *_wrapped(SECTIONS[section], 0), ""]
        lines += [f"{option.name} = {option.default!r}", *_documentation(option, tables)]
    return "\n".join(lines)


def explain(name: str, config: Any | None, tables: Tables) -> str:
    """The documentation of a field or a section, with its value in `config`. Raises InputError, with close
    matches, for an unknown name."""
    options = [o for o in OPTIONS.values() if o.name == name or o.name.startswith(f"{name}.")]
    if not options:
        raise InputError(f"--explain={name}: the config has no field or section {name!r}; {meant(name)}")
    lines = [*_wrapped(SECTIONS[name], 0), ""] if name in SECTIONS else []
    for option in options:
        current = "" if config is None else f"; here {_plain(fields.value_of(config, option.name))!r}"
        lines += [option.name, *_documentation(option, tables), f"    default {option.default!r}{current}"]
    return "\n".join(lines)


def _documentation(option: Option, tables: Tables) -> Iterator[str]:
    """Effect, unit and choices of a field, as indented lines."""
    rule = option.rule
    yield from _wrapped(option.effect, 4)
    table = tables.get(option.name, {}) if rule.table else {}
    choices = dict(rule.choices) or {name: _summary(value) for name, value in table.items()}
    if not choices:
        want = "" if rule is fields.ANYTHING or rule is fields.TEXT or rule.table else rule.want
        yield from _wrapped("; ".join(filter(None, (option.unit and f"[{option.unit}]", want))), 4)
    width = max(map(len, choices), default=0)
    for choice, meaning in choices.items():
        yield from _wrapped(f"{choice:{width}}  {meaning}".rstrip(), 6, width + 8)
    if rule.kind:
        yield f"      or your own: 'package.module:name', or an entry point in pivotrl_jax.{rule.kind}"


def _summary(value: Any) -> str:
    """The first line of the docstring of a function or module."""
    documented = inspect.isfunction(value) or inspect.ismodule(value)
    return (inspect.getdoc(value) or "").partition("\n")[0] if documented else ""


def meant(name: str) -> str:
    """A sentence about the fields and sections whose names resemble `name`."""
    last = name.rpartition(".")[2]
    names = [*OPTIONS, *SECTIONS]
    same = [known for known in names if known.rpartition(".")[2] == last]
    close = same or difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    if not close:
        tails = {known.rpartition(".")[2]: known for known in names}
        close = [tails[tail] for tail in difflib.get_close_matches(last, tails, n=3)]
    return f"did you mean {' or '.join(close)}?" if close else "--help lists them"


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _wrapped(text: str, indent: int, hanging: int | None = None) -> list[str]:
    after = " " * (indent if hanging is None else hanging)
    return textwrap.wrap(
        " ".join(text.split()) if hanging is None else text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=after,
    )
