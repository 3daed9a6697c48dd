"""The bookkeeping at size, without a model: `python experiments/scale/run.py [--sizes=10000,30000,100000]`

    made-up candidates and rollouts -> profile (shards, pivots) -> resume -> batches -> report -> export

Every stage is a process of its own, so that its peak memory (resident set, MiB) is its own. Making up
rollouts stands for the sampler: its seconds are taken off. Rollouts are the worst case on disk: 1,024 ids of
151,936 at random and log-probs of which none repeats. Writes results.json after every stage, and goes on from
there when it is started again. A size's files are deleted when its last stage is done; 100,000 candidates
need 10 GB.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
import zlib
from pathlib import Path

import numpy as np

from pivotrl_jax import records
from pivotrl_jax.pivots import profiling, rollout_files
from pivotrl_jax.records import Candidate, Pivot, Prefix, Prompt, Rollout, read_records
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.run import options

HERE = Path(__file__).resolve().parent
TURNS, GROUP, TOKENS, VOCABULARY = 10, 8, 1024, 151_936  # tokens: of a rollout; `--tokens` replaces them
BYTES = 13  # on disk per token of a rollout, at most
STEPS = 20  # of training whose batches are made
WORDS = (
    'the <tool_call>\n{"name": "find_flight", "arguments": {"from": "Zürich", "day": 7}}\n</tool_call> and '
)
TEXT = WORDS * 120
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = [{"name": f"tool_{i}", "description": "", "parameters": SCHEMA} for i in range(7)]


def make_candidates(count: int) -> list[Candidate]:
    """Trajectories of ten assistant turns; every other turn is a call."""
    candidates = []
    for t in range(-(-count // TURNS)):
        messages: list[dict] = []
        for turn in range(TURNS):
            messages.append({"role": "user", "content": f"step {turn} of {t}: " + TEXT[:300]})
            function = {"name": f"tool_{t % 7}", "arguments": {"n": turn}}
            call = {"id": f"c{turn}", "type": "function", "function": function}
            action = {"role": "assistant", "content": "" if turn % 2 else f"done {turn}"}
            messages.append(action | ({"tool_calls": [call]} if turn % 2 else {}))
        for turn in range(TURNS):
            at, name = 2 * turn + 1, f"t{t}"
            state = {"messages": Prefix(messages, at), "tools": TOOLS, "demonstration": messages[at]}
            places = {"id": f"{name}@{at}", "trajectory_id": name, "turn": turn, "scenario": name}
            candidates.append(Candidate(**places, **state, verifier="tool_call", case={}))
    return candidates[:count]


def make_prompts(candidates: list[Candidate]) -> list[Prompt]:
    """200 tokens more at every turn; the prompts of a trajectory share memory."""
    whole: dict[str, np.ndarray] = {}
    for c in candidates:
        if c.trajectory_id not in whole:
            rng = np.random.default_rng(zlib.crc32(c.trajectory_id.encode()))
            whole[c.trajectory_id] = rng.integers(0, VOCABULARY, 200 * TURNS).astype(np.int32)
    return [Prompt(c, whole[c.trajectory_id][: 200 * (c.turn + 1)]) for c in candidates]


class Synthetic(Rollouts):
    """Rollouts without a policy: about one candidate in six has mixed rewards."""

    seconds = [0.0, 0.0]  # spent on making rollouts up: of the clock, of the processor

    def sample(self, params, prompts, group_size, key, first=0, on_batch=lambda done: None):
        began = time.perf_counter(), time.process_time()
        groups = [self._group(prompt.candidate.id, group_size) for prompt in prompts]
        self.seconds[0] += time.perf_counter() - began[0]
        self.seconds[1] += time.process_time() - began[1]
        return groups

    def _group(self, name: str, size: int) -> list[Rollout]:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        passes = rng.choice([0.0, 0.3, 1.0], p=[0.5, 1 / 6, 1 / 3])
        ids = rng.integers(0, VOCABULARY, (size, TOKENS)).tolist()
        log_probs = (-rng.exponential(0.5, (size, TOKENS))).astype(np.float32).tolist()
        rewards = (rng.random(size) < passes).astype(float).tolist()
        starts = rng.integers(0, 1000, size).tolist()
        return [
            Rollout(name, g, ids[g], log_probs[g], log_probs[g], True, TEXT[at : at + 4 * TOKENS], r, "ok")
            for g, (at, r) in enumerate(zip(starts, rewards))
        ]


def synthetic() -> Synthetic:
    sampling = Sampling(1.0, 1.0, 0, 0.0, TOKENS, (0,))
    places = {"place": lambda params: params, "saved_in": contextlib.nullcontext}
    return Synthetic(types.SimpleNamespace(sampling=sampling, spent="", **places), None)


def config_of(workdir: Path):
    config = options.defaults()
    config.workdir, config.name = str(workdir), "scale"
    config.profile.group_size, config.profile.trajectories_per_shard = GROUP, 32
    config.compute.row_lengths, config.grpo.pivots_per_step, config.grpo.group_size = (12288,), 16, GROUP
    return config


# ---- stages: each is given (number of candidates, work directory)


def profile(count: int, workdir: Path) -> None:
    """Shards, profiles.jsonl, pivots.jsonl."""
    candidates, config = make_candidates(count), config_of(workdir)
    records.write_records(workdir / "candidates.jsonl", candidates)
    records.write_json(workdir / "run.json", {"config": config.to_dict()})
    settings = profiling.Settings("pi_0", {}, GROUP, 0, config.profile.trajectories_per_shard)
    run, prompts = types.SimpleNamespace(config=config), make_prompts(candidates)
    profiling.profile_and_select(run, synthetic(), {}, prompts, settings, workdir)


def resume(count: int, workdir: Path) -> None:
    """The same when every shard is there."""
    files = {name: (workdir / name).read_bytes() for name in ("profiles.jsonl", "pivots.jsonl")}
    profile(count, workdir)
    if Synthetic.seconds[0] or any((workdir / name).read_bytes() != raw for name, raw in files.items()):
        raise SystemExit(f"{workdir}: the resumed profile is another")


def batches(count: int, workdir: Path) -> None:
    """Twenty steps: their pivots, and packed forests of 16 groups."""
    import jax

    from pivotrl_jax.training import pivotrl

    prompts = make_prompts([p.candidate for p in read_records(workdir / "pivots.jsonl", Pivot)])
    config, rollouts = config_of(workdir), synthetic()
    learner, key = types.SimpleNamespace(rows=1), jax.random.key(0)

    def draw(pivots, key):
        return rollouts.sample({}, [prompts[i] for i in pivots], GROUP, key)

    for step in range(STEPS):
        pivots, groups, _ = pivotrl.sample_groups(draw, step, len(prompts), config.grpo, 0, key)
        pivotrl.pack([prompts[i] for i in pivots], groups, config, learner)


def report(count: int, workdir: Path) -> None:
    """report.html, with its figures."""
    from pivotrl_jax.report import report as report_lib

    report_lib.write_report(workdir)


def export(count: int, workdir: Path) -> None:
    """The pivots and their rollouts as rows of NeMo Gym."""
    from absl import flags

    from pivotrl_jax.exchange import convert

    flags.FLAGS(["exchange"])
    with contextlib.redirect_stdout(sys.stderr):
        convert.export(workdir, workdir / "rows")


STAGES = {stage.__name__: stage for stage in (profile, resume, batches, report, export)}


def formats(rollouts: list[Rollout]) -> dict:
    """Bytes and milliseconds per 1,024 tokens of a rollout: lines of earlier versions, and shards."""
    tokens, found = sum(len(r.token_ids) for r in rollouts) / 1024, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("lines", records.write_records), ("shards", rollout_files.write)):
            began = time.process_time()
            write(Path(folder) / f"{name}.jsonl", rollouts)
            found[f"{name}_ms"] = round(1000 * (time.process_time() - began) / tokens, 3)
        sizes = {p.name: p.stat().st_size / tokens for p in Path(folder).iterdir()}
    texts = sum(len(json.dumps(r.text, ensure_ascii=False).encode()) for r in rollouts) / tokens
    arrays = {"arrays_in_lines": sizes["lines.jsonl"] - texts, "arrays_in_shards": sizes["shards.npz"]}
    return found | {name: round(size) for name, size in (sizes | arrays).items()}


# ---- all of it


def measured(stage: str, count: int, workdir: Path) -> dict:
    """Run a stage in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        STAGES[stage](count, workdir)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    made_up, made_up_cpu = Synthetic.seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": round(seconds - made_up, 2),
        "cpu_seconds": round(cpu - made_up_cpu, 2),
        "making_rollouts_up": round(made_up, 2),
        "peak_mib": round(peak),
    }


def exponents(sizes: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Stage -> log ratio of processor seconds by log ratio of candidates, from each size to the next; 1 is
    linear."""
    found: dict[str, dict[str, float]] = {}
    for small, large in zip(list(sizes), list(sizes)[1:]):
        for stage in sizes[small].keys() & sizes[large].keys() & STAGES.keys():
            ratio = sizes[large][stage]["cpu_seconds"] / sizes[small][stage]["cpu_seconds"]
            name, exponent = f"{small} to {large}", math.log(ratio) / math.log(int(large) / int(small))
            found.setdefault(stage, {})[name] = round(exponent, 2)
    return found


def size_of(folder: Path) -> float:
    """MB on disk."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def run_size(count: int, stages: list[str], top: Path, results: dict, save) -> None:
    """Those of the `stages` of one size that are not measured yet."""
    workdir, here = top / str(count), results["sizes"].setdefault(str(count), {})
    if all(stage in here for stage in STAGES):
        return
    if not (workdir / "pivots.jsonl").is_file():
        here.clear()
    top.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(top).free, count * GROUP * (TOKENS * BYTES + 300)
    if not here and free < 1.2 * needed:
        sys.exit(f"{top}: {free / 1e9:.0f} GB are free, and {count} candidates need {1.2 * needed / 1e9:.0f}")
    for stage in stages:
        if stage not in here:
            command = [sys.executable, __file__, f"--stage={stage}", f"--sizes={count}", f"--runs={top}"]
            command += [f"--tokens={TOKENS}"]
            here[stage] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            save()
            print(count, stage, here[stage], flush=True)
    if all(stage in here for stage in STAGES):
        here["rollouts_mb"] = size_of(workdir / "rollouts")
        save()
        shutil.rmtree(workdir)


def main() -> None:
    global TOKENS
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,30000,100000")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a rollout")
    parser.add_argument("--stages", default=",".join(STAGES), help="do these now, and the others later")
    parser.add_argument("--stage", choices=STAGES, help="one stage in this process; for this script itself")
    parser.add_argument("--runs", type=Path, default=Path("runs/scale"), help="where the files go")
    parser.add_argument("--real", type=Path, help="a run whose rollouts are written in both formats, too")
    parser.add_argument("--out", type=Path, default=HERE)
    flags = parser.parse_args()
    TOKENS = flags.tokens
    sizes = [int(size) for size in flags.sizes.split(",")]
    if flags.stage:
        (flags.runs / flags.sizes).mkdir(parents=True, exist_ok=True)
        print(json.dumps(measured(flags.stage, sizes[0], flags.runs / flags.sizes)))
        return
    os.nice(19)
    file = flags.out / ("results.json" if TOKENS == 1024 else f"results_{TOKENS}_tokens.json")
    results = json.loads(file.read_text("utf-8")) if file.is_file() else {"formats": {}, "sizes": {}}

    def save() -> None:
        results["exponents"] = exponents(results["sizes"])
        flags.out.mkdir(parents=True, exist_ok=True)
        records.write_json(file, results)

    prompts = make_prompts(make_candidates(25))
    groups = synthetic().sample({}, prompts, GROUP, None)
    results["formats"]["synthetic"] = formats([r for group in groups for r in group])
    if flags.real:
        stored = sorted((flags.real / "rollouts").glob("*.jsonl"))
        real = [rollout for shard in stored for rollout in rollout_files.read(shard)]
        results["formats"]["real"] = formats(real)
    print(json.dumps(results["formats"], indent=1))
    for count in sizes:
        run_size(count, flags.stages.split(","), flags.runs, results, save)
    save()


if __name__ == "__main__":
    main()
