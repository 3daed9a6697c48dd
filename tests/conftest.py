"""Shared set-up: JAX on CPU with compiled programs kept on disk between runs, and two tiny models."""

import os
from pathlib import Path

from support.xla import QUICK

ROOT = Path(__file__).resolve().parent.parent

# before anything imports jax; subprocesses of the tests inherit it
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("XLA_FLAGS", QUICK)
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def moe():
    """A Qwen3-MoE in which no two axes have the same size, so that a swapped axis cannot pass."""
    from support.forests import MOE

    return MOE


@pytest.fixture(scope="session")
def dense():
    """A dense Qwen3 with untied embeddings."""
    from support.forests import DENSE

    return DENSE


@pytest.fixture(scope="session")
def moe_params(moe):
    from support.forests import sharp_params

    return sharp_params(moe)


@pytest.fixture(scope="session")
def dense_params(dense):
    from support.forests import sharp_params

    return sharp_params(dense)
