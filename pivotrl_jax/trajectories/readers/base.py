'''How to add a reader, and the loop that runs every reader.

A reader reads the files of one format. It is a module, or any other object, with two functions:

    recognise(sample, path) -> bool              does `sample`, the first document of `path`, have the format?
    trajectory(document, where) -> Trajectory    one episode; `where` is its place, "file" or "file:number"

A document is one JSON value: a whole file, a line of JSONL, or a row of parquet or of a hub dataset. This is
a complete reader:

    """Acme's logs: {"ticket": "...", "log": [{"who": "customer", "says": "..."}, ...], "solved": true}."""

    from pivotrl_jax.chat.messages import require
    from pivotrl_jax.records import Trajectory
    from pivotrl_jax.trajectories.readers import building

    ROLES = {"customer": "user", "clerk": "assistant"}


    def recognise(sample, path):
        return isinstance(sample, dict) and "ticket" in sample and "log" in sample


    def trajectory(document, where):
        log = require(require(document, dict, "a row").get("log"), list, '"log"')
        lines = [require(line, dict, "a line of the log") for line in log]
        messages = [{"role": ROLES.get(line.get("who")), "content": line.get("says")} for line in lines]
        return building.checked(
            Trajectory(
                id=building.stem(where),
                messages=messages,
                tools=[],
                source="acme",
                scenario=document["ticket"],
                verifier="tool_call",
                origin=where,
                reward=building.number(document.get("solved")),
            )
        )

`building.checked` validates messages and tools, and adds the turns that are not imitated in any format
(greetings, empty turns, unreadable calls) to `Trajectory.skip`. If the format has other turns that should not
be imitated, the reader adds them to `skip`, with one of the reasons in building.py.

If an episode cannot be read, raise InputError with a sentence that says what is wrong and what to do. The
episode is then left out, and the sentence is reported to the user. More functions are optional:

    episodes(document, where)    (where, episode) pairs, for a document that holds several episodes
    documents(path)              (where, document) pairs, for a file that is not JSON, or a folder
    holds(path)                  has a folder, or a file that is not JSON, this format? (built-in readers)

Without `episodes`, a document is one episode, or a list of them. turns.py helps with blocks and events.

To use a reader, name it in config.data.format, or in `candidates --format`: "package.module:" is a module,
"package.module:object" an object in it. A reader that is installed as an entry point in the group
"pivotrl_jax.readers" can be called by its short name, and also gets the files that no built-in reader
recognises. A reader of this package is a file in this folder and a line in `reading.READERS`.
'''

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers.files import Document

DEEP = "it is nested too deeply"


class Reader(Protocol):
    """The two functions that every reader has; the others are optional."""

    def recognise(self, sample: Any, path: Path) -> bool:
        """Whether `sample`, the first document of a file, is in this reader's format."""

    def trajectory(self, document: Any, where: str) -> Trajectory:
        """One episode. Raises InputError."""


def read_documents(reader: Reader, documents: Iterable[Document]) -> tuple[list[Trajectory], dict[str, str]]:
    """(trajectories, where -> why an episode was left out). An unreadable document is an InputError."""
    trajectories: list[Trajectory] = []
    left_out: dict[str, str] = {}
    for where, episode in _episodes(reader, documents):
        try:
            if isinstance(episode, InputError):
                raise episode
            trajectories.append(reader.trajectory(episode, where))
        except (InputError, RecursionError) as e:
            left_out[where] = str(e) if isinstance(e, InputError) else DEEP
    return trajectories, left_out


def _episodes(reader: Reader, documents: Iterable[Document]) -> Iterator[Document]:
    for where, document in documents:
        try:
            if isinstance(document, InputError):
                raise document
            if hasattr(reader, "episodes"):
                episodes = list(reader.episodes(document, where))
            else:
                episodes = list(unrolled(document, where, reader.recognise))
        except (InputError, RecursionError) as e:
            episodes = [(where, e if isinstance(e, InputError) else InputError(DEEP))]
        yield from episodes or [(where, InputError("no episode in it"))]


def unrolled(document: Any, where: str, recognise: Callable[[Any, Path], bool]) -> Iterator[Document]:
    """The document itself; or each item of a list, unless `recognise` takes the list for one document."""
    if isinstance(document, list) and not recognise(document, Path(where)):
        yield from ((f"{where}:{i}", episode) for i, episode in enumerate(document, 1))
    else:
        yield where, document
