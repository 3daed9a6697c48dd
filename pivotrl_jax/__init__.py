"""pivotrl_jax: trajectories in, pivots out, and GRPO that pays only for the turns that teach.

`import pivotrl_jax.api as pivotrl` has the whole method as functions; `open_run`, `load_config` and
`load_trajectories` are here, too. The programs are `python -m pivotrl_jax.train` and its neighbours.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pivotrl_jax import api
    from pivotrl_jax.api import load_config, load_trajectories, open_run
    from pivotrl_jax.records import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "api", "load_config", "load_trajectories", "open_run"]


def __getattr__(name: str) -> Any:
    """Names of `__all__`, imported when they are first used."""
    if name in __all__:
        api = importlib.import_module("pivotrl_jax.api")
        return api if name == "api" else getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
