"""Training checkpoints: a state pytree (orbax) and the host's JSON beside it, written together or not at all.

Orbax writes a step into a temporary directory and renames it, so a run killed while saving resumes from the
step before. `hf.py` writes Hugging Face checkpoints.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from pivotrl_jax.checkpoints.identity import as_json, differences, require_same
from pivotrl_jax.records import InputError

ITEMS = ("state", "host")  # the folders of a step


class Checkpoints:
    """The checkpoints of one run. Use as a context manager, or call `close`.

    identity: what must be equal for a checkpoint to be continued: model numbers, optimizer, seed, data.
    keep: how many of the latest steps stay on disk.
    """

    def __init__(self, directory: str | Path, identity: dict, keep: int):
        if keep < 1:
            raise ValueError(f"keep: {keep} < 1")
        self.directory = Path(directory).absolute()
        self._identity = as_json(identity)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={"state": ocp.StandardCheckpointHandler(), "host": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                cleanup_tmp_directories=True,  # what a killed save left behind
                # The train step donates its state: on CPU an asynchronous save could read a reused buffer.
                enable_async_checkpointing=False,
            ),
        )
        # Orbax would count steps at JAX's preemption service, where run/interrupts.py counts places to stop.
        self._manager.reached_preemption = lambda step: False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The step `restore_latest` would restore."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, host: dict) -> None:
        """Write `state` (a pytree of arrays) and `host` (JSON) as `step`, unless that step is there already.

        Raises ValueError when a later step is there: call `clear` to start over. Raises InputError when it
        cannot be written; earlier checkpoints are whole then.
        """
        latest = self.latest_step()
        if latest is not None and step < latest:
            raise ValueError(f"{self.directory}: step {step} < {latest}, the latest checkpoint there")
        if step == latest:
            return
        record = {"host": host, "identity": self._identity}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(record))
        with _writable(self.directory / str(step)):
            self._manager.save(step, args=args, force=True)

    def restore_latest(self, template: Any) -> tuple[Any, dict] | None:
        """The latest (state, host), or None when there is no checkpoint.

        template: a pytree of arrays or ShapeDtypeStructs, for shapes, dtypes and shardings. Raises InputError
        when the checkpoint is of another model or config, naming the differences, and when it cannot be read.
        """
        step = self.latest_step()
        if step is None:
            return None
        where = self.directory / str(step)
        record = self._read(step, "host", ocp.args.JsonRestore())
        require_same(where, "a checkpoint", record["identity"], self._identity)
        with _readable(where):
            stored = _shapes(self._manager.item_metadata(step)["state"])
        different = differences(stored, _shapes(template))
        if different:
            raise InputError(
                f"{where}: the state does not fit this run: {'; '.join(different)}; use another workdir"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        return self._read(step, "state", ocp.args.StandardRestore(target)), record["host"]

    def clear(self) -> None:
        """Delete every checkpoint of this directory, to start over."""
        for step in self._manager.all_steps():
            self._manager.delete(step)

    def _read(self, step: int, item: str, how: Any) -> Any:
        with _readable(self.directory / str(step)):
            return self._manager.restore(step, args=ocp.args.Composite(**{item: how}))[item]


def steps_in(directory: Path) -> list[int]:
    """The steps of the checkpoints in a directory, in order; [] where there is none."""
    return sorted(int(path.parent.name) for path in directory.glob("*/state") if path.parent.name.isdecimal())


def restore_params(where: Path, template: Any, identity: dict) -> Any:
    """The trained parameters of the checkpoint `where`, a step's directory; nothing is written there.

    `template` is a pytree of ShapeDtypeStructs with shardings. Raises InputError when the checkpoint has
    other parameters or cannot be read, or when a field of `identity` is another one in it.
    """
    where = where.absolute()
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "host": ocp.JsonCheckpointHandler()}
    reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))
    with _readable(where):
        record = reader.restore(where, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        stored = _shapes(reader.metadata(where).item_metadata["state"].tree["params"])
    there = {name: record["identity"].get(name) for name in identity}
    if different := differences(there, identity) or differences(stored, _shapes(template)):
        raise InputError(f"{where}: a checkpoint of another run: {'; '.join(different)}")
    item = {"params": template}
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    how = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)
    with _readable(where):
        return reader.restore(where, args=ocp.args.Composite(state=how))["state"]["params"]


@contextlib.contextmanager
def _writable(where: Path) -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)  # orbax logs the traceback of every thread that fails
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of another process, not of the disk
        raise
    except (OSError, ValueError, RuntimeError) as e:  # tensorstore's are ValueErrors and RuntimeErrors
        reason = str(e).strip().split("\n")[0].rsplit(": ", 1)[-1][:200]
        raise InputError(
            f"{where}: cannot write the checkpoint ({reason}); earlier checkpoints are whole: free space or "
            "mend the disk, and the same command goes on from the latest"
        ) from e
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _readable(where: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as e:
        reason = str(e).strip().split("\n")[0][:200]
        raise InputError(
            f"{where}: cannot read the checkpoint ({type(e).__name__}: {reason}); delete that directory to "
            "resume from the step before"
        ) from e


def _shapes(tree: Any) -> dict[str, Any]:
    def name(path: tuple) -> str:  # orbax turns attributes and indices into keys
        return ".".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves if hasattr(x, "shape")}
