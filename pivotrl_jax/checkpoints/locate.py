"""Where a checkpoint is: one of the package, a directory, a GGUF file, or a name on the Hugging Face hub.

The package has "embedded", two million parameters for its own world, and "smollm2_pi0", an adapter that
teaches SmolLM2-135M-Instruct to call functions (experiments/smollm2). A directory or a name on the hub may be
a PEFT adapter, too, which is merged into the base that it names.
"""

from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.records import InputError

_ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED = _ASSETS / "tiny"
SHIPPED = {"embedded": EMBEDDED, "smollm2_pi0": _ASSETS / "smollm2_pi0"}
TOKENIZER_FILES = ("*.json", "*.jinja", "merges.txt", "tokenizer.model")
CHECKPOINT_FILES = (*TOKENIZER_FILES, "*.safetensors")


def locate(
    checkpoint: str, asked: str = "config.model.checkpoint", files: Sequence[str] = CHECKPOINT_FILES
) -> Path:
    """The directory of a checkpoint: a name in SHIPPED, a path, or a name on the Hugging Face hub (its usual
    cache and HF_HUB_OFFLINE apply). FILE.gguf and "smollm2" are converted into the cache the first time, and
    a PEFT adapter is merged into its base there. Raises InputError when it cannot be found; `asked` is the
    option to name."""
    from pivotrl_jax.checkpoints import peft_merge  # here, since it loads jax

    found = _locate(checkpoint, asked, files)
    if not peft_merge.is_adapter(found):
        return found
    adapter = _locate(checkpoint, asked, CHECKPOINT_FILES)  # with its weights
    name = peft_merge.base_of(adapter)
    base = _locate(name, f"{adapter}: base_model_name_or_path", CHECKPOINT_FILES)
    if not base.is_dir():
        raise InputError(f"{adapter}: its base {name} is not here; name it in {peft_merge.CONFIG}")
    if peft_merge.is_adapter(base):
        raise InputError(f"{adapter}: its base {name} is an adapter, too; merge that one first")
    return peft_merge.cached(adapter, base)


def _locate(checkpoint: str, asked: str, files: Sequence[str]) -> Path:
    if checkpoint in SHIPPED:
        return SHIPPED[checkpoint]
    if not checkpoint.strip():
        raise InputError(f"{asked} is empty; name a checkpoint (the current directory is '.')")
    from pivotrl_jax.checkpoints import gguf  # here, since it loads jax

    if gguf.is_gguf(checkpoint):
        return gguf.cached(checkpoint, asked)
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
