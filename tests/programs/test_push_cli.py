"""The model card of a run, and its export on the hub (a stand-in for it)."""

import json
import sys

import pytest
import yaml

from pivotrl_jax import push
from pivotrl_jax.records import InputError, write_json

HOSTILE = "`</code>| <script>alert(1)</script> [x](http://evil)"


@pytest.fixture
def run(tmp_path):
    """The files of a finished run that a card is made of."""

    def measures(value):
        return {"call_turn_pass": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 90}}

    config = {
        "workdir": "runs/my-agent",
        "method": "pivotrl",
        "seed": 3,
        "model": {"checkpoint": "Qwen/Qwen3-0.6B", "lora": {"rank": 16}},
        "data": {"source": HOSTILE},
        "grpo": {"steps": 40, "learning_rate": 1e-6, "group_size": 8},
    }
    counts = {"trajectories": 64, "candidates": 444, "pivot": 60}
    page = {"config": config, "model": HOSTILE, "versions": {"jax": "0.10.2"}, "counts": counts}
    write_json(tmp_path / "run.json", page)
    result = {"before": measures(0.5), "after": measures(0.7), "difference": measures(0.2)}
    write_json(tmp_path / "evaluation.json", result)
    for folder, names in {
        "hf": ("model.safetensors", "config.json"),
        "adapter": ("adapter_config.json",),
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("x" * 1000)
    return tmp_path


def test_a_directory_is_no_base_model_of_the_hub(run):
    """However much it looks like a name there."""
    page = json.loads((run / "run.json").read_text())
    page["config"]["model"]["checkpoint"] = "models/qwen3-ours"
    for hub, base in (("", None), ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B")):
        write_json(run / "run.json", {**page, "hub_model": hub})
        text, *_ = push.push(run, "me/agent", False, False, dry_run=True)
        assert yaml.safe_load(text.split("---\n")[1]).get("base_model") == base


def test_the_card_states_base_data_recipe_numbers_and_use(run):
    text, *lines = push.push(run, "me/agent", False, False, dry_run=True)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "library_name": "transformers",
        "base_model": "Qwen/Qwen3-0.6B",
        "pipeline_tag": "text-generation",
        "tags": ["pivotrl", "agent", "tool-use"],
    }
    for words in (
        "# my-agent\n",
        "- 60 pivots",
        "- learning_rate: 1e-06",
        "- LoRA rank: 16",
        "| held-out call turns passed | 0.500 [0.400, 0.600] | 0.700 [0.600, 0.800] | 0.200 [0.100, 0.300] |",
        "## Intended use",
        "jax 0.10.2",
    ):
        assert words in text
    assert "<script>" not in text and "](http://evil)" not in text
    assert lines[-1] == "nothing was uploaded; without --dry_run it goes to me/agent"
    assert "model.safetensors  0.0 MB" in lines


def test_a_card_without_an_evaluation_says_so(run):
    (run / "evaluation.json").unlink()
    page = json.loads((run / "run.json").read_text())
    page["config"]["model"]["checkpoint"] = "embedded"
    write_json(run / "run.json", page)
    text = push.push(run, "me/agent", True, False, dry_run=True)[0]
    assert "Not evaluated." in text and "base_model" not in text and "library_name: peft" in text


class Hub:
    """What `push` asks of the hub's client."""

    def __init__(self, fails=False):
        self.fails, self.calls = fails, []

    def create_repo(self, repo, **how):
        if self.fails:
            raise OSError("401 Unauthorized\nmore")
        self.calls.append((repo, how))
        return f"https://hub/{repo}"

    def create_commit(self, repo, operations, commit_message):
        self.calls.append([operation.path_in_repo for operation in operations])


@pytest.mark.parametrize("public", [False, True])
def test_files_and_card_are_one_commit(run, monkeypatch, public):
    import huggingface_hub

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert push.push(run, "me/agent", False, public, dry_run=False)[-1] == "uploaded to https://hub/me/agent"
    assert hub.calls == [
        ("me/agent", {"private": not public, "exist_ok": True}),
        ["README.md", "config.json", "model.safetensors"],
    ]


def test_a_hub_that_refuses_and_a_run_without_an_export_are_sentences(run, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(fails=True))
    with pytest.raises(InputError, match=r"me/agent: the hub refuses \(401 Unauthorized\); log in with"):
        push.push(run, "me/agent", False, False, dry_run=False)
    with pytest.raises(InputError, match=r"no such file; run pivotrl_jax\.train"):
        push.push(run / "hf", "me/agent", False, False, dry_run=True)
    (run / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="adapter: no export there; train to the end"):
        push.push(run, "me/agent", True, False, dry_run=True)


def test_a_dry_run_at_a_terminal(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["push", f"--workdir={run}", "--repo=me/agent", "--dry_run"])
    push.main()
    assert capsys.readouterr().out.startswith("---\nlibrary_name: transformers\n")
