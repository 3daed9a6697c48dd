"""Completions of an endpoint on disk as they arrive, so that a killed run asks for none of them again.

One line of JSON per completion, flushed. A kill leaves at most an incomplete last line; it is dropped, and
that sample is drawn again.
"""

import json
from pathlib import Path

from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.actor import Completion

Key = tuple[str, int]  # name of the request, index of the sample


def as_json(completion: Completion) -> dict:
    """A completion of an endpoint as JSON."""
    fields = ("token_ids", "log_probs", "model_log_probs", "finished", "served")
    return {name: getattr(completion, name) for name in fields}


class Journal:
    """The file of one shard; None keeps nothing."""

    def __init__(self, file: Path | None = None):
        self._file, self._open = file, None

    def read(self) -> dict[Key, Completion]:
        """What is in the file. Its end is cut off after the last whole line."""
        found: dict[Key, Completion] = {}
        if self._file is None or not self._file.is_file():
            return found
        raw = self._file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self._file.open("r+b") as f:
                f.truncate(len(whole))
        for line in whole.splitlines():
            try:
                value = json.loads(line)
                key = str(value.pop("name")), int(value.pop("sample"))
                found.setdefault(key, Completion(**value))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a line that a full disk or a power cut spoilt: that sample is drawn again
        return found

    def add(self, key: Key, completion: Completion) -> None:
        """Write a line. Raises InputError when it cannot be written."""
        if self._file is None:
            return
        line = json.dumps({"name": key[0], "sample": key[1], **as_json(completion)}) + "\n"
        try:
            self._open = self._open or self._file.open("ab")
            self._open.write(line.encode())
            self._open.flush()
        except OSError as e:
            raise InputError(f"{self._file}: {e.strerror}; rollouts must be stored there") from None

    def close(self, delete: bool) -> None:
        """Close the file, and delete it once its shard is written."""
        if self._open:
            self._open.close()
            self._open = None
        if delete and self._file:
            self._file.unlink(missing_ok=True)
