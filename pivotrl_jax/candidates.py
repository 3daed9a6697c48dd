"""Demonstrations of any known format -> candidates.jsonl, with a report of what was left out and why.

    python -m pivotrl_jax.candidates PATH... --out=candidates.jsonl [--format=auto --verifier=NAME]
        [--min_reward=1 --max_pass_rate=0.6 --keep_error_turns --max_repeats=50 --max_prompt_tokens=32768]
        [--tools=FILE --tokenizer=FOLDER]

PATH is a file, a folder (walked), or hf:owner/name[:split]. Steps: read; keep episodes with enough reward
(an episode without a recorded reward is kept); skip turns that ended in an error; cap identical actions; make
one candidate per remaining assistant turn; leave out prompts that are too long. `find_pivots`, which
needs a model, finds out whether a candidate teaches anything.
"""

import collections
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from pivotrl_jax import terminal, verifiers
from pivotrl_jax.chat.template import Chat, load_chat
from pivotrl_jax.checkpoints.locate import EMBEDDED, TOKENIZER_FILES, locate
from pivotrl_jax.records import Candidate, InputError, Trajectory, write_records
from pivotrl_jax.run.paths import local, named, refuse_overwriting
from pivotrl_jax.trajectories import extract, filters, reading, summary

OUT = flags.DEFINE_string("out", "", "Where the candidates go, a JSON line per trajectory.")

FORMAT = flags.DEFINE_string("format", reading.AUTO, "Name of the reader; auto recognises each file.")

VERIFIER = flags.DEFINE_string("verifier", "", "Verifier of all candidates, instead of each reader's own.")

MIN_REWARD = flags.DEFINE_float("min_reward", None, "Leave out episodes with a lower recorded reward.")

MIN_PASS_RATE = flags.DEFINE_float("min_pass_rate", 0.0, "Leave out rows with a lower published pass rate.")

MAX_PASS_RATE = flags.DEFINE_float("max_pass_rate", 1.0, "Leave out rows with a higher published pass rate.")

PASS_RATE_FIELD = flags.DEFINE_string(
    "pass_rate_field", "", "Where a row's pass rate is, e.g. qwen_235b_info; '' takes the first of the usual."
)

KEEP_ERROR_TURNS = flags.DEFINE_bool("keep_error_turns", False, "Keep turns whose call ended in an error.")

MAX_REPEATS = flags.DEFINE_integer(
    "max_repeats", filters.MAX_REPEATS, "How many candidates with the same action to keep; 0: all."
)

MAX_PROMPT_TOKENS = flags.DEFINE_integer("max_prompt_tokens", 0, "Leave out longer prompts; 0: no limit.")

TOOLS = flags.DEFINE_string("tools", "", "JSON list of function docs, for episodes that have none.")

TOKENIZER = flags.DEFINE_string("tokenizer", str(EMBEDDED), "Checkpoint whose tokenizer counts tokens.")
TEMPLATE = flags.DEFINE_string(
    "tokenizer_template", "", "Renders prompts in place of the tokenizer's own: smollm2_hermes, or a file."
)

NAMED_ON_STDERR = 20  # rows left out beyond these are only counted


@dataclasses.dataclass
class File:
    """What became of one file (or folder, or hub dataset)."""

    name: str
    trajectories: list[Trajectory]
    left_out: dict[str, str]  # where -> why
    failed: int = 0  # episodes below the reward
    unknown: int = 0  # episodes without a recorded reward
    unrated: int = 0  # rows without a published pass rate
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def read(paths: Sequence[str], progress: Progress) -> list[File]:
    """Every file under the paths, ids unique over all. Raises InputError."""
    reader = reading.find_reader(FORMAT.value, "--format")
    sources = list(reading.expand(paths, reader))
    tools = reading.read_tools_file(local(TOOLS.value, "--tools"))
    files = []
    for source, by_name in progress.track(sources, description="reading files"):
        episodes, left_out = reading.read_source(source, reader, VERIFIER.value, by_name)
        episodes = [t if t.tools else dataclasses.replace(t, tools=tools) for t in episodes]
        files.append(File(str(source), episodes, left_out))
    every = reading.usable(
        [t for f in files for t in f.trajectories], {w: s for f in files for w, s in f.left_out.items()}
    )
    _hand_back(files, every)
    return files


def _hand_back(files: list[File], trajectories: list[Trajectory]) -> None:
    """Put trajectories that were filtered as one list back into their files."""
    remaining = iter(trajectories)
    for file in files:
        file.trajectories = [next(remaining) for _ in file.trajectories]


def select(files: list[File], chat: Chat, progress: Progress) -> dict[str, int]:
    """Filter, extract and limit, storing the results in `files`. Returns candidate id -> prompt tokens."""
    if MIN_REWARD.value is not None:
        for file in files:
            file.trajectories, failed, file.unknown = filters.successes(file.trajectories, MIN_REWARD.value)
            file.failed = len(failed)
    for file in files:
        file.trajectories, outside, file.unrated = filters.within_pass_rates(
            file.trajectories, MIN_PASS_RATE.value, MAX_PASS_RATE.value, PASS_RATE_FIELD.value
        )
        file.left_out |= outside
    every = [t for f in files for t in f.trajectories]
    if not KEEP_ERROR_TURNS.value:
        every = filters.skip_errors(every)
    _hand_back(files, filters.cap_repeats(every, MAX_REPEATS.value))
    for file in files:
        file.skipped.update(why for t in file.trajectories for why in t.skip.values())
    found = [(file, c) for file in files for c in extract.extract(file.trajectories)]
    task = progress.add_task("counting tokens of candidates", total=len(found))
    tokens: dict[str, int] = {}
    prompts = extract.encode(chat, (candidate for _, candidate in found))
    for (file, candidate), (_, ids) in zip(found, prompts):
        if isinstance(ids, InputError):
            file.skipped["template_refuses"] += 1
        elif len(ids) > (MAX_PROMPT_TOKENS.value or sys.maxsize):
            file.skipped["prompt_too_long"] += 1
        else:
            file.candidates.append(candidate)
            tokens[candidate.id] = len(ids)
        progress.advance(task)
    return tokens


class Rate(ProgressColumn):
    """How many steps a second, of a progress bar."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


# ---- the report


def bucket(value: int) -> int:
    """The smallest power of two that is not below `value`; 0 for 0."""
    return 1 << (value - 1).bit_length() if value > 0 else 0


def histogram(values: Iterable[int]) -> list[tuple[str, int]]:
    """(range, count) for ranges 0, 1, 2, 3-4, 5-8, ... from the first to the last that holds a value."""
    counts = collections.Counter(bucket(v) for v in values)
    rows, top = [], 0
    while counts and top <= max(counts):
        below = top // 2 + 1
        rows.append((f"{below}-{top}" if below < top else str(top), counts[top]))
        top = top * 2 or 1
    first = next((i for i, (_, n) in enumerate(rows) if n), 0)
    return rows[first:]


def bars(title: str, values: Iterable[int], width: int = 40) -> str:
    """A histogram as text, one line per range."""
    rows = histogram(values)
    most = max((n for _, n in rows), default=0)
    label = max((len(r) for r, _ in rows), default=0)
    lines = [f"  {r:>{label}} {'█' * -(-n * width // most)} {n}" for r, n in rows]
    return "\n".join([title, *lines])


def spark(values: Iterable[int]) -> str:
    """A histogram in one word, with its ends: "0 ▂█▅ 9-16"."""
    rows = histogram(values)
    if not rows:
        return ""
    most = max(n for _, n in rows)
    marks = "".join(" ▁▂▃▄▅▆▇█"[-(-n * 8 // most)] for _, n in rows)
    return f"{rows[0][0]} {marks} {rows[-1][0]}"


def _row(name: str, files: list[File], tokens: dict[str, int]) -> list[str]:
    candidates = [c for f in files for c in f.candidates]
    return [
        escape(name),
        str(sum(len(f.trajectories) for f in files)),
        str(sum(f.failed for f in files)),
        str(sum(len(f.left_out) for f in files)),
        str(len(candidates)),
        str(sum(c.is_call for c in candidates)),
        str(sum(not c.is_call for c in candidates)),
        summary.dialects(t for f in files for t in f.trajectories),
        summary.reasons(sum((f.skipped for f in files), collections.Counter())),
        spark(c.turn for c in candidates),
        spark(tokens[c.id] for c in candidates),
    ]


def report(files: list[File], tokens: dict[str, int], console: Console) -> None:
    """A line per file, a total, and the histograms of all candidates."""
    table = Table("file", show_footer=False)
    for name in ("trajectories", "low reward", "left out", "candidates", "call turns", "talk turns"):
        table.add_column(name, justify="right")
    for name in ("calls in", "skipped turns", "turn depth", "prompt tokens"):
        table.add_column(name)
    for file in files:
        table.add_row(*_row(Path(file.name).name, [file], tokens))
    table.add_section()
    table.add_row(*_row("total", files, tokens))
    console.print(table)
    candidates = [c for f in files for c in f.candidates]
    console.print(bars("turn depth", (c.turn for c in candidates)), markup=False, highlight=False)
    console.print(
        bars(f"prompt tokens ({Path(TOKENIZER.value).name} tokenizer)", (tokens[c.id] for c in candidates)),
        markup=False,
        highlight=False,
    )
    if MIN_REWARD.value is not None:
        console.print(f"{sum(f.unknown for f in files)} trajectories have no recorded reward and were kept")
    if any(f.unrated for f in files):
        console.print(f"{sum(f.unrated for f in files)} rows have no published pass rate and were kept")
    bare = sum(not t.tools for f in files for t in f.trajectories)
    if bare:
        console.print(f"{bare} trajectories have no tool docs; give some with --tools if prompts need them")
    for file in files:
        for line in summary.warnings(file.trajectories, file.candidates):
            console.print(f"{Path(file.name).name}: {line}", markup=False, highlight=False)


def _name_left_out(files: list[File]) -> None:
    named = [(where, why) for f in files for where, why in f.left_out.items()]
    for where, why in named[:NAMED_ON_STDERR]:
        print(f"candidates: left out {where}: {why}", file=sys.stderr)
    if len(named) > NAMED_ON_STDERR:
        print(f"candidates: left out {len(named) - NAMED_ON_STDERR} more", file=sys.stderr)


def run(paths: Sequence[str]) -> None:
    """Read, select, write, report. Raises InputError."""
    if not paths:
        raise InputError("no input; name files, folders or hf:owner/name")
    if not OUT.value:
        raise InputError("no output; name one, e.g. --out=candidates.jsonl")
    reading.find_reader(FORMAT.value, "--format")
    if VERIFIER.value:
        verifiers.register(VERIFIER.value, "--verifier")
    for flag in (MAX_REPEATS, MAX_PROMPT_TOKENS):
        if flag.value < 0:
            raise InputError(f"--{flag.name}={flag.value}; want 0 or more")
    if not 0 <= MIN_PASS_RATE.value <= MAX_PASS_RATE.value <= 1:
        raise InputError(
            f"--min_pass_rate={MIN_PASS_RATE.value} and --max_pass_rate={MAX_PASS_RATE.value}; want "
            "0 <= min_pass_rate <= max_pass_rate <= 1"
        )
    out, folder = local(OUT.value, "--out"), local(TOKENIZER.value, "--tokenizer")
    if not Path(folder).is_dir():  # converting a GGUF file loads jax
        folder = locate(folder, "--tokenizer", TOKENIZER_FILES)
    sources = [named(path, "the input") for path in paths]
    refuse_overwriting(out, sources)
    chat = load_chat(folder, False, chat_template=local(TEMPLATE.value, "--tokenizer_template"))
    quiet = not sys.stderr.isatty()
    columns = [*Progress.get_default_columns(), MofNCompleteColumn(), Rate()]
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        files = read(sources, progress)
        tokens = select(files, chat, progress)
    _name_left_out(files)
    candidates = [c for f in files for c in f.candidates]
    if not candidates:
        reasons = sum((f.skipped for f in files), collections.Counter())
        reasons["low_reward_trajectory"] += sum(f.failed for f in files)
        raise InputError(f"no candidate is left ({summary.reasons(+reasons)}); loosen the filters")
    try:
        write_records(out, candidates)
    except OSError as e:
        raise InputError(f"--out={out} cannot be written ({e.strerror}); check the path") from None
    # a table in a log file is as wide as it needs to be
    report(files, tokens, Console(width=None if sys.stdout.isatty() else 200))
    print(f"{len(candidates)} candidates in {out}")


if __name__ == "__main__":
    terminal.run("candidates", run)
