"""What the programs share: a run's directory, policy, mesh and stages, built from its config.

Stages, each reading the files of the one before: candidates.jsonl -> rollouts/, profiles.jsonl ->
pivots.jsonl -> checkpoints/ + metrics.jsonl -> evaluation.json, hf/, report.html.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

import pivotrl_jax
from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import cache, hf, hf_config
from pivotrl_jax.checkpoints.locate import EMBEDDED, TOKENIZER_FILES, locate
from pivotrl_jax.models import config as model_config_lib
from pivotrl_jax.models import decoder, lora, sharding
from pivotrl_jax.models.families import family_of
from pivotrl_jax.records import InputError, write_json
from pivotrl_jax.run import check_config, compilations, hosts, interrupts, lock, provenance
from pivotrl_jax.run import tracking as tracking_lib
from pivotrl_jax.verifiers import judge as judge_lib

PACKAGES = ("pivotrl_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, in $PIVOTRL_CACHE or ~/.cache/pivotrl_jax, unless JAX already has a
    cache directory."""
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
    mesh: jax.sharding.Mesh | None
    model_config: model_config_lib.ModelConfig | None  # None, like mesh and params, without weights
    params: dict | None  # pi_0, on the mesh; None once training needs its memory
    policy: str  # pi_0's fingerprint; "" without weights
    checkpoint: Path
    chat: template.Chat
    seconds: dict[str, float]  # stage -> seconds, summed over resumes
    facts: dict  # further entries of run.json
    began: int = dataclasses.field(default_factory=compilations.mark)
    judge: judge_lib.Judge | None = None  # decides what verifiers leave open
    tracking: tracking_lib.Tracking = dataclasses.field(default_factory=tracking_lib.none)

    @contextlib.contextmanager
    def stage(self, name: str):
        """Time a stage, and leave run.json up to date whatever happens in it."""
        interrupts.point()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.write()

    def write(self) -> None:
        """Write run.json."""
        model = {"model": f"{self.config.rollouts.model}, served"}
        if self.model_config:
            model = {
                "model": describe(self.model_config, self.checkpoint),
                "model_config": dataclasses.asdict(self.trained_config),
            }
        page = {
            "config": self.config.to_dict(),
            **model,
            "hub_model": self.hub_name,
            "policy": self.policy,
            "provenance": {**provenance.of_process(), "written": provenance.now()},
            "chat": {"dialect": self.chat.dialect, "opens_thinking": self.chat.opens_thinking},
            "versions": _versions(),
            "devices": [str(device.device_kind) for device in jax.devices()],
            "seconds": self.seconds,
            "compiled": compilations.since(self.began),
            **({"judge": self.judge.settings} if self.judge else {}),
            **self.facts,
        }
        write_json(self.workdir / "run.json", page)

    @property
    def trained_config(self) -> model_config_lib.ModelConfig:
        """The model that is trained: with adapters, if the config asks for them."""
        return lora.with_adapters(self.model_config, self.config.model.lora)

    def identity(self, **fields) -> dict:
        """What decides the result of this run's training: method, policy, model, seed, and the `fields` that
        the method adds."""
        return {
            "method": self.config.method,
            "policy": self.policy,
            "model": dataclasses.asdict(self.trained_config),
            "seed": self.config.seed,
            **fields,
        }

    @property
    def hub_name(self) -> str:
        """The checkpoint's name on the hub; "" for a directory, and for what was converted into the cache."""
        name = self.config.model.checkpoint
        local = self.checkpoint in (EMBEDDED, Path(name)) or self.checkpoint.is_relative_to(cache.root())
        return "" if local else name

    @property
    def frozen(self) -> dict | None:
        """The base model beside adapters; None without LoRA, when every parameter is trained."""
        return self.params if self.trained_config.lora else None

    def initial_params(self) -> dict:
        """The trained parameters at the start of training: fresh adapters under LoRA, else pi_0."""
        if self.trained_config.lora:
            return lora.init(self.trained_config, self.config.seed)
        return self.params

    @property
    def other_template(self) -> str | None:
        """The text of the chat template, if it is not the checkpoint's own."""
        return self.chat.tokenizer.chat_template if self.config.model.chat_template else None

    @property
    def verifier(self) -> str | None:
        """The verifier that rewards all rollouts; None: each candidate's own."""
        return rewarding_all(self.config)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _source() -> int:
    """A checksum of this package's code: two checkouts of one version may differ."""
    files = sorted(Path(pivotrl_jax.__file__).parent.rglob("*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


def rewarding_all(config) -> str | None:
    """The verifier that rewards all rollouts of a run; None: each candidate's own."""
    return None if config.reward == "functional" else config.reward


def describe(size: model_config_lib.ModelConfig, checkpoint: Path) -> str:
    """One line for the report: 'Qwen3-MoE, 2.0 M parameters, 4 layers, 8 experts (2 per token), from ...'."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(lora.base(decoder.param_shapes(size))))
    parameters = f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    kind = f", {size.num_experts} experts ({size.experts_per_token} per token)" if size.num_experts else ""
    name = "the embedded checkpoint" if checkpoint == EMBEDDED else str(checkpoint)
    return f"{family_of(size).title}, {parameters} parameters, {size.num_layers} layers{kind}, from {name}"


def load_chat(config) -> template.Chat:
    """The tokenizer and chat template of the reference policy. Raises InputError, also for a template whose
    calls cannot be read, or whose turns end with no stop token."""
    checkpoint = locate(config.model.checkpoint, files=TOKENIZER_FILES)
    if not checkpoint.is_dir():
        raise InputError(
            f"{checkpoint}: no such directory; give a checkpoint in Hugging Face layout, a .gguf file or the "
            "name of a model on the hub"
        )
    arguments = json.loads(config.model.chat_template_arguments)
    model = config.model
    chat = template.load_chat(checkpoint, model.keep_thinking, arguments, model.chat_template)
    chat.check_turn_ends()
    chat.check_dialect()
    return chat


def check_vocabulary(
    chat: template.Chat, model_config: model_config_lib.ModelConfig, checkpoint: Path
) -> None:
    """Raises InputError when the tokenizer has ids for which the embedding has no row."""
    outside = {i: token for token, i in chat.tokenizer.get_vocab().items() if i >= model_config.vocab_size}
    if outside:
        first = min(outside)
        raise InputError(
            f"{checkpoint}: the tokenizer has {len(outside)} ids outside the model's vocab_size of "
            f"{model_config.vocab_size}, e.g. {first} ({outside[first]!r}); give the tokenizer that belongs "
            "to the model, or resize the model's embedding"
        )


def check_context(config, checkpoint: Path) -> None:
    """Raises InputError when prompts and completions may be longer than the model was made for."""
    context = hf_config.context_length(checkpoint)
    longest = config.data.max_prompt_tokens + config.sampling.max_tokens
    if context is not None and longest > context:
        raise InputError(
            f"config.data.max_prompt_tokens + config.sampling.max_tokens is {longest}, more than the "
            f"{context} positions that {checkpoint} was made for (max_position_embeddings in config.json); "
            "lower them, or scale RoPE there (YaRN)"
        )


def _lock(workdir: Path) -> None:
    """Make the work directory and lock it. Raises InputError."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:  # a file of that name, or no right to write there
        raise InputError(f"config.workdir {workdir}: {e.strerror}; name another directory") from None
    hosts.on_first_process(lambda: lock.acquire(workdir))


def as_stored(config) -> Any:
    """The config with parameters and arithmetic in float32 where the checkpoint's weights are float32:
    rounded to less, the small change that an export holds would be gone."""
    if config.model.param_dtype == "float32" or not _holds_float32(locate(config.model.checkpoint)):
        return config
    print("the weights are float32, and so are parameters and arithmetic")
    config = ml_collections.ConfigDict(config.to_dict())
    config.model.param_dtype = config.model.dtype = "float32"
    return config


def _holds_float32(checkpoint: Path) -> bool:
    return bool(hf.stored_dtype(checkpoint) == np.float32)


def open_run(config, weights: bool = True, writes: bool = True, chat: template.Chat | None = None) -> Run:
    """Make the work directory and the mesh, and load the reference policy. Raises InputError.

    Without `weights`, only tokenizer and template are loaded, and no accelerator is touched: whoever serves
    the model may need it. `chat` is given where `load_chat` was called before. With `writes`, this process
    locks the work directory until it ends; several processes of one run share the lock.
    """
    check_config.check(config)
    chat = chat or load_chat(config)
    if not weights:
        jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    hosts.require_same({**config.to_dict(), "workdir": None, "versions": _versions(), "source": _source()})
    workdir = Path(config.workdir)
    if writes:
        _lock(workdir)
    judge = judge_lib.make_judge(config.judge, workdir / "judge", hosts.on_first_process)
    if not weights:
        checkpoint = locate(config.model.checkpoint, files=TOKENIZER_FILES)
        own = hosts.own_directory(workdir)
        return Run(config, own, workdir, None, None, None, "", checkpoint, chat, {}, {}, judge=judge)
    checkpoint = locate(config.model.checkpoint)
    mesh = sharding.make_mesh(dict(config.mesh))
    model_config = hf_config.load_config(checkpoint, config.model.dtype)
    trained_here = (checkpoint.parent / "run.json").is_file()
    if trained_here and config.model.param_dtype != "float32" and _holds_float32(checkpoint):
        print(
            f"warning: {checkpoint} holds what a run has learnt in float32, and config.model.param_dtype "
            f"{config.model.param_dtype!r} rounds small changes away; set config.model.param_dtype=float32",
            file=sys.stderr,
        )
    check_context(config, checkpoint)
    shardings = sharding.param_shardings(decoder.abstract_params(model_config), mesh)
    params = hf.load_params(checkpoint, model_config, config.model.param_dtype, shardings)
    check_vocabulary(chat, model_config, checkpoint)
    policy = hf.checkpoint_fingerprint(checkpoint)
    return Run(
        config=config,
        workdir=hosts.own_directory(workdir),
        shared=workdir,
        mesh=mesh,
        model_config=model_config,
        params=params,
        policy=policy,
        checkpoint=checkpoint,
        chat=chat,
        seconds={},
        facts={},
        judge=judge,
    )
