"""How the programs start and fail: the config's flag, --help and --explain, and one sentence instead of a
traceback for bad input."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from pivotrl_jax import terminal
from pivotrl_jax.records import InputError
from pivotrl_jax.run import configs, disk, explain, fields, hosts, interrupts, lock
from pivotrl_jax.run.fields import Tables
from pivotrl_jax.run.options import OPTIONS

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A config file, or the name of one in this package; a size may follow a colon: configs/bfcl.py, bfcl, "
    "bfcl:real. Change its fields with --config.x=1.",
)
EXPLAIN = flags.DEFINE_string(
    "explain",
    None,
    "Print the documentation and the value of a field or section of the config, e.g. grpo.loss, and exit.",
)


def start(main: Callable[[], None], tables: Tables | None = None) -> None:
    """Parse flags and run `main`. InputError ends the program with its sentence and exit code 1.

    tables: dotted name of a config's field -> the table that it names an entry of, for checks and --explain.
    """
    tables = tables or {}
    if set(terminal.HELP) & set(sys.argv[1:]):
        module = sys.modules[main.__module__]
        program_flags = [
            flags.FLAGS["config"],
            flags.FLAGS["explain"],
            *flags.FLAGS.get_key_flags_for_module(module),
        ]
        _print(explain.help_text(module, program_flags, tables))
        sys.exit(0)

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; flags begin with --")
        # orbax and absl report every file they touch; warnings still show
        logging.set_verbosity(logging.WARNING)
        config = CONFIG.value
        if EXPLAIN.value is not None:
            _print(explain.explain(EXPLAIN.value, config, tables))
            return
        if config is None:
            _fail("no config; name one, e.g. --config=configs/bfcl.py")
        fields.check_names(config, OPTIONS.values(), tables)
        _run(main, config)

    def flushed(argv: list[str]) -> None:
        guarded(argv)
        sys.stdout.flush()  # a pipe that was closed fails here rather than at the exit

    try:
        app.run(flushed, flags_parser=_parse)
    except InputError as e:
        _fail(str(e))
    except BrokenPipeError:  # the reader closed the pipe (`| head`)
        terminal.forget_output()
        _fail("whoever read the output has left; the same command goes on from here")


def _run(main: Callable[[], None], config) -> None:
    """Run a program. What the user or the machine may cause ends it with a sentence: InputError, a signal, a
    disk that is full or gone, another process that ended."""
    try:
        with interrupts.handled(), disk.explained(Path(config.workdir).expanduser()):
            if hosts.join():
                interrupts.of_several()
            main()
            hosts.leave()
    except InputError as e:
        _fail(hosts.lost(e.__cause__ or e) or str(e))
    except interrupts.Interrupted as e:
        saved = f"; {e.saved}" if e.saved else ""
        print(
            f"stopped by {e}{saved}; what was finished is in {config.workdir}, and the same command goes on "
            "from there",
            file=sys.stderr,
        )
        hosts.leave()
        sys.exit(e.status)
    except (ValueError, RuntimeError) as e:  # of a collective
        if (sentence := hosts.lost(e)) is None:
            raise
        _fail(sentence)


def _print(text: str) -> None:
    """Print, even if the reader stops before the end (`| head`)."""
    with terminal.ending("error"):
        print(text)


def _with_path(argv: list[str]) -> list[str]:
    """The arguments with the config's name replaced by its path."""
    out = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            if equals:
                out[i] = f"{flag}={configs.find_config(value)}"
            elif i + 1 < len(argv):
                out[i + 1] = configs.find_config(argv[i + 1])
    return out


def _parse(argv: list[str]) -> list[str]:
    """absl's parser; an error in a config file or an override becomes one sentence."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with configs.reading():
            rest = flags.FLAGS(_with_path(argv))
            if CONFIG.value is not None:
                CONFIG.value.to_dict()  # an error of reading the file is kept until the config is used
        return rest
    except (AttributeError, KeyError) as e:  # an override of a field that does not exist
        raise InputError(_no_field(argv, str(e.args[0] if e.args else e))) from None
    except InputError:
        raise
    except (TypeError, ValueError, flags.Error) as e:  # a value of another type; no such size or flag
        # ml_collections appends the config file's own traceback, whose last line says what was wrong
        raise InputError(_no_value(e) or _lines(e)[-1].removeprefix("ValueError: ")) from None


def _no_value(e: BaseException) -> str:
    """The sentence about a flag of a config's field whose value has another type; "" for other errors."""
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(e), re.DOTALL)
    sentence = found and configs.wrong_type(*found.groups())
    return f"config.{sentence}" if sentence else ""


def _no_field(argv: list[str], what: str) -> str:
    """`what` is ml_collections' text: the name in quotes, and on a second line a guess at what was meant."""
    name, guess = re.search(r"\w+", what), re.search(r'mean "(\w+)"', what)
    name = name[0] if name else what
    argument = next((a for a in argv if name in a.split("=")[0].split(".")), "--config")
    advice = f"did you mean {guess[1]!r}?" if guess else "--help lists the fields"
    return f"{argument}: the config has no field {name!r}; {advice}"


def _lines(e: BaseException) -> list[str]:
    return [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    lock.release()
    hosts.give_up(1)
    sys.exit(1)
