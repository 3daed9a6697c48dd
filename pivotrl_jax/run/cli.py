"""How the programs start and fail: a config file flag, and one sentence instead of a traceback for bad
input."""

import os
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from pivotrl_jax.records import InputError
from pivotrl_jax.run import hosts

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, e.g. configs/bfcl.py or configs/bfcl.py:real; override fields with --config.x=1",
)


def start(main: Callable[[], None]) -> None:
    """Parse flags and run `main`. InputError ends the program with its sentence and exit code 1."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; flags begin with --")
        if flags.FLAGS.config is None:
            _fail("no config; name one, e.g. --config=configs/bfcl.py")
        # orbax and absl report every file they touch; warnings still show
        logging.set_verbosity(logging.WARNING)
        try:
            hosts.join()
            main()
            hosts.leave()
        except InputError as e:
            _fail(str(e))

    try:
        app.run(guarded, flags_parser=_parse)
    except InputError as e:
        _fail(str(e))


def _parse(argv: list[str]) -> list[str]:
    """absl's parser; what a config file or an override got wrong becomes a sentence."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        rest = flags.FLAGS(argv)
        _ = CONFIG.value  # a config file that is not there is first missed here
        return rest
    except (AttributeError, KeyError) as e:  # an override of a field that is not there
        raise InputError(_no_field(argv, str(e.args[0] if e.args else e))) from None
    except OSError as e:
        raise InputError(f"the config file cannot be read ({_lines(e)[-1]}); check the path") from None
    except (SyntaxError, ImportError) as e:  # the config file is Python
        raise InputError(f"the config file cannot be loaded ({type(e).__name__}: {e}); fix it") from None
    except (TypeError, ValueError, flags.Error) as e:  # a value of another type; no such size or flag
        # ml_collections appends the config file's own traceback, whose last line says what was wrong
        raise InputError(_lines(e)[-1].removeprefix("ValueError: ")) from None


def _no_field(argv: list[str], what: str) -> str:
    """`what` is ml_collections' text: the name in quotes, and on a second line what it thinks was meant."""
    name, meant = re.search(r"\w+", what), re.search(r'mean "(\w+)"', what)
    name = name[0] if name else what
    argument = next((a for a in argv if name in a.split("=")[0].split(".")), "--config")
    then = f"did you mean {meant[1]!r}?" if meant else "the fields are in the config file"
    return f"{argument}: the config has no field {name!r}; {then}"


def _lines(e: BaseException) -> list[str]:
    return [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    hosts.give_up(1)
    sys.exit(1)
