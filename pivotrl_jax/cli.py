"""How the programs start and fail: a config file flag, and one sentence instead of a traceback for bad
input."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from pivotrl_jax.records import InputError

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
            main()
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
        return flags.FLAGS(argv)
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as e:  # an override of a field that is not there, or of another type
        raise InputError(f"the config has no such field, or not of that type: {_first_line(e)}") from None
    except (OSError, ValueError, flags.Error) as e:  # no such file; no such size; an unknown flag
        raise InputError(_first_line(e)) from None


def _first_line(e: BaseException) -> str:
    return str(e.args[0] if e.args else e).strip().split("\n")[0]


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)
