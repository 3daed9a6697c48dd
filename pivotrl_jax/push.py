"""Upload a run's export to the Hugging Face hub, with a model card: `python -m pivotrl_jax.push`

    pivotrl push --workdir=runs/bfcl --repo=me/my-agent --dry_run    shows the card and the files
    pivotrl push --workdir=runs/bfcl --repo=me/my-agent              uploads hf/; --adapter: the PEFT adapter

The repository is made if it is not there, private unless --public is given. The token is the hub client's own
(`hf auth login`, or HF_TOKEN).
"""

import argparse
from pathlib import Path

from pivotrl_jax import terminal
from pivotrl_jax.records import InputError
from pivotrl_jax.report import card
from pivotrl_jax.report.inputs import read_inputs
from pivotrl_jax.run import paths


def push(workdir: Path, repo: str, adapter: bool, public: bool, dry_run: bool) -> list[str]:
    """Upload; returns lines to print. Raises InputError without an export, or when the hub refuses."""
    folder = workdir / ("adapter" if adapter else "hf")
    text = card.card(read_inputs(workdir), adapter)
    files = sorted(p for p in folder.glob("*") if p.is_file() and p.name != "README.md")
    if not files:
        raise InputError(f"{folder}: no export there; train to the end, or make one with pivotrl export")
    total = sum(p.stat().st_size for p in files) / 1e6
    lines = [*(f"{p.name}  {p.stat().st_size / 1e6:.1f} MB" for p in files), f"{total:.1f} MB in all"]
    if dry_run:
        return [text, *lines, f"nothing was uploaded; without --dry_run it goes to {repo}"]
    import huggingface_hub  # takes a while, not needed for a dry run

    operations = [huggingface_hub.CommitOperationAdd("README.md", text.encode())]
    operations += [huggingface_hub.CommitOperationAdd(p.name, str(p)) for p in files]
    try:
        api = huggingface_hub.HfApi()
        url = api.create_repo(repo, private=not public, exist_ok=True)
        api.create_commit(repo, operations, commit_message="Weights and card of a pivotrl_jax run")
    except (OSError, ValueError) as e:  # every error of the hub's client is one of the two
        reason = str(e).strip().splitlines()[0][:200]
        raise InputError(
            f"{repo}: the hub refuses ({reason}); log in with `hf auth login`, and check the name"
        ) from None
    return [*lines, f"uploaded to {url}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="pivotrl push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=paths.argument, required=True, help="the work directory of a finished run"
    )
    parser.add_argument("--repo", required=True, help="owner/name on the hub")
    parser.add_argument("--adapter", action="store_true", help="upload adapter/ instead of hf/")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument("--dry_run", action="store_true", help="show the card and the files; no network")
    flags = parser.parse_args()
    print("\n".join(push(flags.workdir, flags.repo, flags.adapter, flags.public, flags.dry_run)))


if __name__ == "__main__":
    with terminal.ending("push"):
        main()
