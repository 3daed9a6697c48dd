"""Progress bars with rates, for anything that takes over five seconds."""

import sys

from tqdm import tqdm


def bar(total: int, name: str, unit: str) -> tqdm:
    """A bar on stderr; where stderr is a file, a line every ten seconds instead of a redrawn one."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=name.ljust(22), unit=f" {unit}", mininterval=interval, dynamic_ncols=True)
