"""How much memory a run has needed so far."""

import resource
import sys

import jax


def peak_gib() -> float:
    """The most memory in GiB that was in use at any time: of this process's first device, or, where the
    device has no memory of its own or does not tell, of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
