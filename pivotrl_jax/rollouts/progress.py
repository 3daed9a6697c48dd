"""Progress bars with rates, for anything that takes over five seconds."""

import sys

import jax
from tqdm import tqdm


class _Lines:
    """Standard error as a file in which every state of a bar is a line of its own."""

    count = ""  # what the last line said, without times and rates

    def write(self, text: str) -> None:
        text = text.strip()
        count = text.partition(" [")[0]
        if text and count != self.count:
            sys.stderr.write(f"{text}\n")
            self.count = count

    def flush(self) -> None:
        sys.stderr.flush()


AS_LINE = "{l_bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def bar(total: int | None, name: str, unit: str) -> tqdm:
    """A bar on stderr. If stderr is not a terminal, its state is a line every ten seconds."""
    terminal = sys.stderr.isatty()
    # of several processes, only the first one shows a bar; a single one need not start a device to know
    quiet = jax.distributed.is_initialized() and jax.process_index() > 0
    return tqdm(
        total=total,
        desc=name.ljust(22),
        unit=f" {unit}",
        mininterval=0.2 if terminal else 10.0,
        dynamic_ncols=terminal,
        **({} if terminal else {"file": _Lines(), "bar_format": AS_LINE}),
        disable=quiet,
    )
