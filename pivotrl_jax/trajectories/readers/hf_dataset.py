"""Rows of a dataset on the Hugging Face hub, "hf:owner/name[:split]", in any format that has a reader."""

import re
from collections.abc import Iterator

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories.readers import files

NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?::([\w.\[\]%:+-]+))?")


def documents(name: str) -> Iterator[files.Document]:
    """The rows, each at "hf:owner/name:split:number". Keys that are null in a row are left out.

    Raises InputError for a malformed name, for a dataset that cannot be loaded, and if the package `datasets`
    is not installed.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise InputError(f'{name}: want "hf:owner/name" or "hf:owner/name:split"')
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{name}: hub datasets need the package datasets; install it with {files.EXTRA}"
        ) from None
    split = match[2] or "train"
    try:
        rows = datasets.load_dataset(match[1], split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        line = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{name}: the dataset cannot be loaded ({line}); check its name and split") from None
    for number, row in enumerate(rows, 1):
        yield f"hf:{match[1]}:{split}:{number}", files.without_nulls(row)
