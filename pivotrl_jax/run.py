"""What the programs share: a run's directory, policy, mesh and stages, built from its config.

Stages, each reading the files of the one before: candidates.jsonl -> rollouts/*.jsonl, profiles.jsonl ->
pivots.jsonl -> checkpoints/ + metrics.jsonl -> evaluation.json, hf/, report.html.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from pivotrl_jax import chat as chat_lib
from pivotrl_jax import (
    check_config,
    compilations,
    evaluation,
    hf,
    hosts,
    lora,
    model,
    pivots,
    profiling,
    sharding,
    verifiers,
)
from pivotrl_jax import data as data_lib
from pivotrl_jax import judge as judge_lib
from pivotrl_jax.environments import skills
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Trajectory,
    write_json,
    write_records,
)
from pivotrl_jax.rollout import Actor
from pivotrl_jax.sampler import Sampling
from pivotrl_jax.trajectories import candidates as candidates_lib

EMBEDDED = Path(__file__).parent / "assets" / "tiny"
PACKAGES = ("pivotrl_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def use_compilation_cache() -> None:
    """Compiled programs survive the process: under $PIVOTRL_CACHE or ~/.cache/pivotrl_jax, unless JAX has
    its own."""
    if not jax.config.jax_compilation_cache_dir:
        default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pivotrl_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", os.environ.get("PIVOTRL_CACHE", str(default)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@dataclasses.dataclass
class Run:
    """One run: its config and directory, and the frozen reference policy on its mesh."""

    config: object  # the run's ConfigDict
    workdir: Path  # of this process; see hosts.py
    shared: Path  # config.workdir, where all processes write checkpoints and the export
    mesh: jax.sharding.Mesh
    model_config: model.ModelConfig
    params: dict | None  # pi_0, on the mesh; None once training has taken it over
    policy: str  # pi_0's fingerprint
    checkpoint: Path
    chat: chat_lib.Chat
    seconds: dict[str, float]  # stage -> seconds, over resumes
    facts: dict  # what run.json says beside the above
    began: int = dataclasses.field(default_factory=compilations.mark)
    judge: judge_lib.Judge | None = None  # who decides what verifiers leave open

    @contextlib.contextmanager
    def stage(self, name: str):
        """Time a stage, and leave run.json up to date whatever happens in it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.write()

    def write(self) -> None:
        """Write run.json."""
        versions = {}
        for package in PACKAGES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
        page = {
            "config": self.config.to_dict(),
            "model": describe(self.model_config, self.checkpoint),
            "model_config": dataclasses.asdict(self.trained_config),
            "policy": self.policy,
            "versions": versions,
            "devices": [str(device.device_kind) for device in jax.devices()],
            "seconds": self.seconds,
            "compiled": compilations.since(self.began),
            **({"judge": self.judge.settings} if self.judge else {}),
            **self.facts,
        }
        write_json(self.workdir / "run.json", page)

    def give_params(self) -> dict:
        """pi_0, for whoever takes it over: it is not kept here any longer."""
        params, self.params = self.params, None
        return params

    @property
    def trained_config(self) -> model.ModelConfig:
        """The model that is trained: with adapters, if the config asks for them."""
        c = self.config.model.lora
        return dataclasses.replace(self.model_config, lora=model.Lora(c.rank, c.alpha) if c.rank else None)

    def actor(
        self, shape, model_config: model.ModelConfig | None = None, record_experts: bool = False
    ) -> Actor:
        """An actor that samples as the config says, with the batch shape of one of its sections."""
        s = self.config.sampling
        sampling = Sampling(**s.to_dict(), stop_ids=self.chat.stop_ids)
        return Actor(
            model_config or self.model_config,
            sampling,
            self.mesh,
            rows=sharding.whole_rows(self.mesh, shape.rows),
            branches=shape.branches,
            lanes=shape.lanes,
            slots=self.config.compute.slots,
            attention_chunk=self.config.compute.attention_chunk,
            record_experts=record_experts,
        )

    @property
    def verifier(self) -> str | None:
        """None: each candidate's own (functional reward); "exact" for the ablation."""
        return None if self.config.reward == "functional" else "exact"


def describe(size: model.ModelConfig, checkpoint: Path) -> str:
    """One line for the report: 'Qwen3-MoE, 2.0 M parameters, 4 layers, 8 experts (2 per token), from ...'."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(lora.base(model.param_shapes(size))))
    parameters = f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    kind = f", {size.num_experts} experts ({size.experts_per_token} per token)" if size.num_experts else ""
    name = "the embedded checkpoint" if checkpoint == EMBEDDED else str(checkpoint)
    family = "Qwen3-MoE" if size.num_experts else "Qwen3"
    return f"{family}, {parameters} parameters, {size.num_layers} layers{kind}, from {name}"


CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.jinja")


def locate(
    checkpoint: str, asked: str = "config.model.checkpoint", files: Sequence[str] = CHECKPOINT_FILES
) -> Path:
    """The directory of a checkpoint: "embedded", a path, or a name on the Hugging Face hub (its usual cache
    and HF_HUB_OFFLINE apply). Raises InputError, naming who `asked`, when it cannot be had."""
    if checkpoint == "embedded":
        return EMBEDDED
    path = Path(checkpoint)
    if path.exists() or len(path.parts) != 2 or path.is_absolute():
        return path
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(checkpoint, allow_patterns=list(files)))
    except (OSError, ValueError) as e:  # every error of the hub's client is one of the two
        raise InputError(
            f"{asked} {checkpoint}: no such directory here, and the hub does not give it "
            f"({type(e).__name__}); check the name and the network, or download it and give its directory"
        ) from None


def open_run(config) -> Run:
    """Make the work directory, the mesh, and load the reference policy. Raises InputError."""
    check_config.check(config)
    use_compilation_cache()
    workdir = Path(config.workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:  # a file of that name, or no right to write there
        raise InputError(f"config.workdir {workdir}: {e.strerror}; name another directory") from None
    asks = judge_lib.make_judge(config.judge, workdir / "judge", hosts.once)
    checkpoint = locate(config.model.checkpoint)
    mesh = sharding.make_mesh(dict(config.mesh))
    model_config = hf.load_config(checkpoint, config.model.dtype)
    shardings = sharding.param_shardings(model.abstract_params(model_config), mesh)
    params = hf.load_params(checkpoint, model_config, config.model.param_dtype, shardings)
    chat = chat_lib.load_chat(checkpoint, config.model.keep_thinking)
    policy = hf.fingerprint(checkpoint)
    own = hosts.own_directory(workdir)
    page = (config, own, workdir, mesh, model_config, params, policy, checkpoint, chat, {}, {})
    return Run(*page, judge=asks)


RESULTS = (  # what stages leave in a work directory
    "run.json candidates.jsonl skipped.jsonl rollouts profiles.jsonl pivots.jsonl reprofiled checkpoints "
    "metrics.jsonl tensorboard evaluations evaluation.json hf adapter report.html"
).split()
# what may change between a run and its continuation: how long, where and how fast, not what is computed;
# before the first checkpoint the filter and the recipe may change too, and profiles are filtered anew
FREE_GRPO = ("steps", "save_every", "keep_checkpoints", "batch", "microbatch_rows", "offload_optimizer")
FREE = (
    "resume",
    "workdir",
    "mesh.",
    "compute.",
    "evaluate.",
    "profile.batch",
    "validation.batch",
    *(f"grpo.{x}" for x in FREE_GRPO),
    *(f"judge.{x}" for x in ("base_url", "api_key_env", "concurrency", "timeout", "retries")),
)
FREE_BEFORE_TRAINING = ("grpo.", "profile.lambda_diff", "model.lora.", "validation.", "reprofile.")


def claim(run: Run) -> None:
    """Make the work directory this run's own, before anything is written there.

    Starting over (resume off) deletes what an earlier run left. Going on keeps what its run.json knows.
    Raises InputError naming the first difference when rollouts of another config or policy are there; fields
    in FREE may differ.
    """
    if not run.config.resume:
        for name in RESULTS:
            path = run.workdir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    file = run.workdir / "run.json"
    if not file.is_file() or not (run.workdir / "rollouts").is_dir():
        return
    trained = any((run.shared / "checkpoints").glob("[0-9]*"))
    free = FREE if trained else FREE + FREE_BEFORE_TRAINING
    page = json.loads(file.read_text("utf-8"))
    there, here = (
        _flat({**page["config"], "policy": page["policy"]}),
        _flat({**json.loads(json.dumps(run.config.to_dict())), "policy": run.policy}),
    )
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name) and not name.startswith(free):
            raise InputError(
                f"{run.workdir}: holds another run: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here; use another workdir, or --config.resume=False to start over"
            )
    run.seconds |= page.get("seconds", {})
    run.facts |= {name: page[name] for name in ("skipped", "counts", "table") if name in page}


def _flat(value, prefix: str = "") -> dict:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf for key in value for name, leaf in _flat(value[key], f"{prefix}.{key}".lstrip(".")).items()
    }


def prompts_of(run: Run, candidates: list[Candidate]) -> list[list[int]]:
    """Rendered prompt ids of every candidate."""
    return [run.chat.prompt_ids(c.messages, c.tools) for c in candidates]


def _within_limit(run: Run, candidates: list[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    limit = run.config.data.max_prompt_tokens
    return candidates_lib.limit_prompts(
        candidates, lambda c: len(run.chat.prompt_ids(c.messages, c.tools)), limit
    )


def make_candidates(run: Run, data: data_lib.Data) -> list[Candidate]:
    """Cut, check, limit and write candidates.jsonl; what was left out goes to skipped.jsonl and the
    terminal."""
    candidates, too_long = _within_limit(run, candidates_lib.extract(data.demonstrations))
    checked = pivots.self_check(candidates, verifiers.VERIFIERS)
    left_out = {**data.skipped, **too_long, **checked.left_out}
    run.facts["skipped"] = {
        "rows": len(data.skipped),
        "prompts_too_long": len(too_long),
        "self_check": len(checked.left_out),
    }
    for where, why in list(left_out.items())[:10]:
        print(f"left out {where}: {why.removeprefix(f'{where}: ')}")
    if len(left_out) > 10:
        print(f"... and {len(left_out) - 10} more, all in {run.workdir / 'skipped.jsonl'}")
    lines = [json.dumps({"where": where, "why": why}) + "\n" for where, why in left_out.items()]
    (run.workdir / "skipped.jsonl").write_text("".join(lines), "utf-8")
    write_records(run.workdir / "candidates.jsonl", checked.kept)
    if not checked.kept:
        raise InputError(
            f"no candidate is left of {len(data.demonstrations)} trajectories; see skipped.jsonl"
        )
    return checked.kept


def held_out_tasks(run: Run, data: data_lib.Data) -> evaluation.Tasks:
    """The evaluation's tasks; turns with prompts over the limit are left out, and counted in run.json."""
    c = run.config.evaluate
    turns, prompts, too_long = turns_of(run, data.held_out[: c.turn_trajectories])
    run.facts["held_out_prompts_too_long"] = too_long
    items = (
        [item for family in skills.families() for item in skills.items(family, "test", c.skill_items, 0)]
        if c.skill_items
        else []
    )
    return evaluation.Tasks(data.rows[: c.tasks], turns, prompts, items)


def turns_of(run: Run, trajectories: Sequence[Trajectory]) -> tuple[list[Candidate], list[list[int]], int]:
    """(turns of trajectories to score a policy at, their prompt ids, how many were left out as too long)."""
    turns, too_long = _within_limit(run, candidates_lib.extract(trajectories))
    return turns, prompts_of(run, turns), len(too_long)


def evaluate(run: Run, params, tasks: evaluation.Tasks, name: str, policy: str) -> evaluation.Results:
    """Evaluate a policy; results are kept in evaluations/{name}.json and read back on a resume."""
    c, s = run.config.evaluate, run.config.sampling
    model_config = run.trained_config if lora.has_adapters(params) else run.model_config
    identity = {
        "policy": policy,
        "evaluate": c.to_dict(),
        "sampling": s.to_dict(),
        "max_prompt": run.config.data.max_prompt_tokens,
        "model": {**dataclasses.asdict(model_config), "param_dtype": run.config.model.param_dtype},
        "tasks": profiling.digest(tasks.candidates, tasks.prompts),
        "verifiers": sorted({verifiers.get(turn.verifier).label for turn in tasks.candidates}),
        "rows": [row.id for row in tasks.rows],
        "seed": run.config.seed,
    }
    if run.judge:
        identity["judge"] = run.judge.settings

    def compute() -> evaluation.Results:
        return evaluation.evaluate(
            run.actor(c.batch, model_config),
            params,
            run.chat,
            tasks,
            stream=jax.random.fold_in(jax.random.key(run.config.seed), 2),
            attempts=c.attempts,
            samples=c.samples,
            max_steps=c.max_steps,
            max_prompt=run.config.data.max_prompt_tokens,
            judge=run.judge,
        )

    return evaluation.cached(
        run.workdir / "evaluations" / f"{name}.json", identity, compute, run.config.resume
    )
