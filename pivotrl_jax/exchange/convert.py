"""Pivots to and from rows of NVIDIA NeMo Gym; needs no model.

    python -m pivotrl_jax.exchange export --workdir=runs/bfcl --out=DIR [--rows=pivots --name=pivotrl]
    python -m pivotrl_jax.exchange import FILE... --out=candidates.jsonl|pivots.jsonl [--kind=pivots]

export reads pivots.jsonl (or, with --rows=candidates, every candidate and its profile) and the rollouts
behind the profiles. It writes pivots_nemo_gym.jsonl, rollouts_nemo_gym.jsonl, and config.yaml with the agent
that the rows name. Rows that need another server or other options get a file (`pivots_nemo_gym_2.jsonl`) and
an agent of their own; such files of an earlier export are deleted. Every row is validated; a faulty one is
left out and reported. NeMo Gym's server scores as `tool_call:nemo_gym` does, or as the other verifiers in
that mode: profile with one of these if both sides must agree.

import writes candidates; or, if the name of the output (or --kind) says pivots, the rows that have rewards,
as pivots with profiles. The rollouts of one task count as one row. What is left out is reported.
"""

import collections
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from absl import flags

from pivotrl_jax.exchange import contract
from pivotrl_jax.exchange import rows as rows_lib
from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.pivots.notation import notation_of
from pivotrl_jax.pivots.selection import outcome
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Pivot,
    Profile,
    read_records,
    write_lines,
    write_records,
)
from pivotrl_jax.run import paths as paths_lib
from pivotrl_jax.run.stored import read_object
from pivotrl_jax.trajectories.readers import files, nemo_gym
from pivotrl_jax.trajectories.readers.base import unrolled

WORKDIR = flags.DEFINE_string("workdir", "", "export: the run whose pivots are written.")
OUT = flags.DEFINE_string("out", "", "export: a folder. import: a file, one record per line.")
ROWS = flags.DEFINE_enum("rows", "pivots", ("pivots", "candidates"), "export: which of the run's records.")
NAME = flags.DEFINE_string("name", "pivotrl", "export: what the agents' names begin with.")
KIND = flags.DEFINE_enum(
    "kind", None, ("pivots", "candidates"), "import: what to write, if the name of --out does not say it."
)

MAX_NAMED = 20  # what is left out beyond these is only counted


def _report_left_out(left_out: Sequence[str]) -> None:
    for sentence in left_out[:MAX_NAMED]:
        print(f"exchange: left out {sentence}", file=sys.stderr)
    if len(left_out) > MAX_NAMED:
        print(f"exchange: left out {len(left_out) - MAX_NAMED} more", file=sys.stderr)


# ---- export


def read_run(workdir: Path, rows: str) -> list[tuple[Candidate, Profile | None]]:
    """The run's pivots, or its candidates with their profiles. Raises InputError if the files are missing."""
    if rows == "pivots":
        return [(p.candidate, p.profile) for p in read_records(workdir / "pivots.jsonl", Pivot)]
    profiles = {p.candidate_id: p for p in read_records(workdir / "profiles.jsonl", Profile)}
    return [(c, profiles.get(c.id)) for c in read_records(workdir / "candidates.jsonl", Candidate)]


def export(workdir: Path, out: Path) -> None:
    """Write the rows, their rollouts and the configuration. Raises InputError."""
    records = read_run(workdir, ROWS.value)
    if not records:
        raise InputError(f"{workdir}: no {ROWS.value} in it; nothing to export")
    agents = contract.agents_of([candidate for candidate, _ in records], NAME.value)
    good: dict[contract.Agent, list[tuple[Candidate, Profile | None, dict]]] = {}
    left_out = []
    for (candidate, profile), agent in zip(records, agents):
        row = rows_lib.row_of(candidate, profile, agent.name)
        faults = contract.validate(row, agent.name) or _not_json(row)
        if faults:
            left_out.append(f"{workdir / ROWS.value}.jsonl: {candidate.id}: " + "; ".join(faults))
        else:
            good.setdefault(agent, []).append((candidate, profile, row))
    if not good:
        raise InputError(f"no row satisfies NeMo Gym's contract; the first fault: {left_out[0]}")
    out.mkdir(parents=True, exist_ok=True)
    for earlier in out.glob("pivots_nemo_gym_*.jsonl"):
        if re.fullmatch(r"pivots_nemo_gym_\d+", earlier.stem):
            earlier.unlink()  # of an export with more agents; config.yaml will not name it
    paths = {}
    for number, (agent, group) in enumerate(good.items(), 1):
        paths[agent] = out / f"pivots_nemo_gym{f'_{number}' if number > 1 else ''}.jsonl"
        write_lines(paths[agent], (json.dumps(row, ensure_ascii=False) for *_, row in group))
        print(f"{len(group)} rows in {paths[agent]}, for the agent {agent.name}")
    sampled = write_lines(out / "rollouts_nemo_gym.jsonl", _rollout_rows(workdir, good, left_out))
    data = [(agent, str(path.resolve())) for agent, path in paths.items()]
    (out / "config.yaml").write_text(contract.yaml_config(data), encoding="utf-8")
    _report_left_out(left_out)
    print(f"{sampled} rollouts in {out / 'rollouts_nemo_gym.jsonl'}; agents in {out / 'config.yaml'}")


def _rollout_rows(workdir: Path, good: dict, left_out: list[str]) -> Iterator[str]:
    """The rollouts behind the rows' profiles, as lines; those with other rewards are left out."""
    tasks = [(agent, *task) for agent, group in good.items() for task in group]
    folder, ids = workdir / "rollouts", {candidate.id for _, candidate, *_ in tasks}
    page = workdir / "run.json"
    notation = notation_of(read_object(page) if page.is_file() else {}, folder)
    stored = rollout_files.Index(folder, ids)
    for index, (agent, candidate, profile, _) in enumerate(tasks):
        samples = sorted(stored.read(candidate.id), key=lambda r: r.sample)
        if profile is None or [r.reward for r in samples if r.reward is not None] != profile.rewards:
            left_out.append(f"the rollouts of {candidate.id}: their rewards are not the profile's")
            continue
        opens, dialect = notation.opens_thinking, notation.dialect
        rows = rows_lib.rollout_rows(candidate, samples, index, agent.name, opens, dialect)
        yield from (json.dumps(row, ensure_ascii=False) for row in rows)


def _not_json(row: dict) -> list[str]:
    """What keeps a row from being JSON: NaN and the infinities, which only Python writes and reads."""
    try:
        json.dumps(row, allow_nan=False)
    except ValueError as e:
        return [f"no JSON can be made of it ({e}); put finite numbers into its tools and messages"]
    return []


# ---- import


def _pivot_rows(path: Path, left_out: list[str]) -> Iterator[tuple[str, dict]]:
    for where, document in files.documents(path):
        if isinstance(document, InputError):
            left_out.append(f"{where}: {document}")
            continue
        for place, row in unrolled(document, where, nemo_gym.recognise):
            if nemo_gym.recognise(row, path):
                yield place, row
            else:
                left_out.append(f"{place}: no pivot row; want responses_create_params and expected_action")


def _rows(paths: Iterable[str], left_out: list[str]) -> Iterator[tuple[str, dict]]:
    """The rows of all files, one at a time: released files are larger than memory."""
    for path in map(Path, paths):
        first = next(_pivot_rows(path, []), None)
        sampled = first is not None and rows_lib.is_rollout(first[1])
        rewards = rows_lib.task_rewards(_pivot_rows(path, [])) if sampled else {}
        rows = _pivot_rows(path, left_out)
        yield from rows_lib.gather(rows, rewards) if sampled else rows


def read_back(paths: Iterable[str], left_out: list[str]) -> Iterator[tuple[str, Candidate, Profile | None]]:
    """(where, candidate, profile) of every row that can be read and whose id no earlier row has.

    A sentence about each of the other rows is appended to `left_out`.
    """
    ids = set()
    for where, row in _rows(paths, left_out):
        try:
            candidate, profile = rows_lib.record_of(row, where)
        except InputError as e:
            left_out.append(f"{where}: {e}")
            continue
        if candidate.id in ids:
            left_out.append(f"{where}: the id {candidate.id!r} is taken by an earlier row; make ids unique")
        else:
            ids.add(candidate.id)
            yield where, candidate, profile


def import_(paths: Sequence[str], out: Path) -> None:
    """Write candidates or pivots. Raises InputError."""
    kind = KIND.value or next((k for k in ("pivots", "candidates") if k[:-1] in out.name), None)
    if kind is None:
        raise InputError(f"--out={out}: the name says neither candidates nor pivots; give --kind")
    left_out: list[str] = []
    counts: collections.Counter = collections.Counter()

    def records() -> Iterator[Candidate | Pivot]:
        for where, candidate, profile in read_back(paths, left_out):
            if kind == "pivots" and not (profile and profile.rewards):
                left_out.append(f"{where}: no rewards, so no profile")
                continue
            counts["all"] += 1
            counts["equal"] += profile is not None and outcome(profile, 1.0) in ("all_fail", "all_pass")
            yield Pivot(candidate, profile) if kind == "pivots" else candidate

    rest = records()
    first = next(rest, None)
    if first is not None:
        write_records(out, itertools.chain([first], rest))
    _report_left_out(left_out)
    if first is None:
        raise InputError(
            f"none of the rows gives {kind}" + (f"; the first: {left_out[0]}" if left_out else "")
        )
    print(f"{counts['all']} {kind} in {out}")
    if kind == "pivots" and counts["equal"]:
        print(
            f"{counts['equal']} of them have equal rewards: they teach nothing until a policy's rewards vary"
        )


def run(arguments: Sequence[str]) -> None:
    """Raises InputError."""
    command, *paths = arguments or [""]
    if command not in ("export", "import"):
        raise InputError(f"the first argument is {command!r}; want export or import")
    if not OUT.value:
        raise InputError("no output; name one with --out")
    out = Path(paths_lib.local(OUT.value, "--out"))
    try:
        if command == "export":
            if paths or not WORKDIR.value:
                raise InputError("export reads a run; name its folder with --workdir, and no file")
            export(Path(paths_lib.local(WORKDIR.value, "--workdir")), out)
        else:
            if not paths:
                raise InputError("no input; name the files with rows")
            sources = [paths_lib.named(path, "the input") for path in paths]
            paths_lib.refuse_overwriting(out, sources)
            import_(sources, out)
    except OSError as e:
        raise InputError(f"{e.filename or OUT.value}: {e.strerror}; check the path") from None
