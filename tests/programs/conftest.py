"""The random checkpoint that the programs of this folder are run with, made once."""

from support.train_cli import checkpoint  # noqa: F401 (a fixture)
