"""Progress bars with rates, for anything that takes over five seconds."""

import sys

import jax
from tqdm import tqdm


def bar(total: int | None, name: str, unit: str) -> tqdm:
    """A bar on stderr. If stderr is not a terminal, the bar is printed only every ten seconds."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    # of several processes, only the first one shows a bar; a single one need not start a device to know
    quiet = jax.distributed.is_initialized() and jax.process_index() > 0
    return tqdm(
        total=total,
        desc=name.ljust(22),
        unit=f" {unit}",
        mininterval=interval,
        dynamic_ncols=True,
        disable=quiet,
    )
