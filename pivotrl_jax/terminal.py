"""How a program ends at a terminal: with one sentence for bad input, and quietly when its reader leaves.

    terminal.run("verify", main)              a program with absl's flags
    with terminal.ending("rescore"): ...      a program that parses its arguments itself

Programs with a config start with `run.cli`.
"""

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator

from absl import app, flags

from pivotrl_jax.records import InputError

HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull")
INDENT = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}
INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


@contextlib.contextmanager
def ending(program: str) -> Iterator[None]:
    """Ends the process with exit status 1 and a sentence for InputError, with 130 and a line for Ctrl-C, and
    with 0 and nothing when whoever read the output has left (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except InputError as e:
        sys.exit(f"{program}: {e}")
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        forget_output()
        sys.exit(0)


def forget_output() -> None:
    """Nobody reads standard output any more, so the flush at exit must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(rows: list[tuple[str, str]], title: str) -> None:
    """Rows of (name, text) under a title."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=title, title_justify="left")
    for name, text in rows:
        table.add_row(name, text)
    Console(soft_wrap=False).print(table)


def run(program: str, main: Callable[[list[str]], None]) -> None:
    """Parse the flags that `main`'s module defines and call main(arguments). --help prints the module's
    docstring and its flags."""
    module = sys.modules[main.__module__]

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as e:
            raise InputError(str(e).splitlines()[0].removeprefix("FATAL Flags parsing error: ")) from None

    with ending(program):
        if set(HELP) & set(sys.argv[1:]):
            print(help_text(module))
            return
        app.run(lambda argv: main(argv[1:]), flags_parser=parse)


def help_text(module: object) -> str:
    """The docstring of a module and the flags that it defines, with their defaults."""
    lines = [module.__doc__.strip(), "", "Flags:"]
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        default = "" if flag.default in (None, "", False) else f" Default: {flag.default}"
        lines += [f"  --{flag.name}", *textwrap.wrap(f"{flag.help}{default}", 104, **INDENT)]
    return "\n".join(lines)
