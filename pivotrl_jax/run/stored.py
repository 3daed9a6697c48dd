"""What a work directory says about its run: run.json, and the config in it."""

import json
from pathlib import Path

from pivotrl_jax.checkpoints.identity import flatten
from pivotrl_jax.records import InputError
from pivotrl_jax.run import check_config, options


def read_object(path: Path) -> dict:
    """The JSON object in a file that a run wrote. Raises InputError."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name the work directory of a run") from None
    except (ValueError, RecursionError, OSError) as e:
        raise InputError(f"{path}: cannot be read ({e}); put back what the run wrote") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; put back what the run wrote")
    return value


def config_of(page: dict, workdir: Path, checkpoint: str = ""):
    """The checked config of run.json, which is `page`. `workdir` replaces its work directory, and
    `checkpoint`, if given, its model: both may have been moved. A field that was not there yet has its
    default. Raises InputError.

    Verifiers of the user's own that it names are imported, as when the run began.
    """
    config, values = options.defaults(), page.get("config")
    if not isinstance(values, dict):
        raise InputError(f"{workdir / 'run.json'}: holds no config; name the work directory of a run")
    known, free = flatten(config.to_dict()), "data.verifier_options."
    if unknown := [name for name in flatten(values) if name not in known and not name.startswith(free)]:
        raise InputError(
            f"{workdir / 'run.json'}: its config has fields that are not known here: {', '.join(unknown)}; "
            "use the version that wrote it"
        )
    with config.unlocked():
        config.update(values)
    config.workdir = str(workdir)
    if checkpoint:
        config.model.checkpoint = checkpoint
    check_config.check(config)
    return config
