"""Where a checkpoint is: "embedded", a directory, a GGUF file, or a name on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.checkpoints import gguf
from pivotrl_jax.records import InputError

EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny"
TOKENIZER_FILES = ("*.json", "*.jinja")
CHECKPOINT_FILES = (*TOKENIZER_FILES, "*.safetensors")


def locate(
    checkpoint: str, asked: str = "config.model.checkpoint", files: Sequence[str] = CHECKPOINT_FILES
) -> Path:
    """The directory of a checkpoint: "embedded", a path, or a name on the Hugging Face hub (its usual cache
    and HF_HUB_OFFLINE apply). FILE.gguf and "smollm2" are converted into the cache the first time. Raises
    InputError when it cannot be found; `asked` is the option to name."""
    if checkpoint == "embedded":
        return EMBEDDED
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
