"""A model card in the hub's form: what a run trained, from what, how, and what came of it.

Everything in it is read from the run's files. Texts of data and models are not quoted.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pivotrl_jax.report.inputs import Inputs, change_of, number, part

MEASURES = {
    "call_turn_pass": "held-out call turns passed",
    "text_turn_pass": "held-out text turns passed",
    "episode_success": "held-out episodes won",
    "out_of_domain": "out-of-domain questions answered",
    "bits_per_byte": "bits per byte of general text (lower is better)",
}
METHODS = {
    "pivotrl": "PivotRL: GRPO on single assistant turns whose sampled actions have mixed rewards",
    "random_turns": "GRPO on single assistant turns, unfiltered",
    "sft": "supervised fine-tuning on the demonstrated turns",
    "e2e_rl": "end-to-end RL: GRPO on whole episodes",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def card(inputs: Inputs, adapter: bool) -> str:
    """The text of README.md; `adapter`: for the PEFT adapter alone."""
    config = part(inputs.run, "config")
    base = str(part(config, "model").get("checkpoint", ""))
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers"}
    # older runs do not say whether the checkpoint was the hub's
    if hub := inputs.run.get("hub_model", base if _HUB_NAME.fullmatch(base) else ""):
        front["base_model"] = hub
    front["pipeline_tag"] = "text-generation"
    front["tags"] = list(dict.fromkeys(["pivotrl", "agent", "tool-use", str(config.get("method"))]))
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(_sections(inputs, config, base, adapter)) + "\n"


def _sections(inputs: Inputs, config: dict, base: str, adapter: bool) -> Iterator[str]:
    method = str(config.get("method"))
    what = "The PEFT adapter" if adapter else "The weights"
    yield (
        f"# {_name(config)}\n\n{what} of an agent's policy, post-trained from recorded trajectories with "
        "[PivotRL](https://arxiv.org/abs/2603.21383) in pivotrl_jax. "
        f"Method: {METHODS.get(method, _plain(method))}."
    )
    yield f"## Base model\n\n{_plain(inputs.run.get('model', ''))} (`{_plain(base)}`)"
    yield "## Data\n\n" + _data(config, part(inputs.run, "counts"))
    yield "## Recipe\n\n" + _recipe(config, method)
    yield "## Results\n\n" + _results(inputs)
    yield (
        "## Intended use\n\nResearch on agents that call the tools shown in the data, with the chat template "
        "that comes with the weights. Rewards judge single turns; whole tasks, safety and other domains were "
        "measured only as far as the table says. What the policy writes is data: check a call before it is "
        "executed."
    )
    versions = ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in part(inputs.run, "versions").items())
    yield f"## Made with\n\n{versions}"


def _data(config: dict, counts: dict) -> str:
    source = _plain(part(config, "data").get("source", ""))
    lines = [f"- source: `{source}`"]
    for key, what in (
        ("trajectories", "trajectories"),
        ("candidates", "assistant turns that the self-check kept"),
        ("pivot", "pivots: mixed rewards and a mean below the threshold"),
    ):
        if (count := number(counts.get(key))) is not None:
            lines.append(f"- {count:.0f} {what}")
    return "\n".join(lines)


def _recipe(config: dict, method: str) -> str:
    names = ("steps", "pivots_per_step", "group_size", "learning_rate", "loss", "kl_coefficient")
    section = part(config, "grpo")
    if method == "sft":
        names, section = ("epochs", "trajectories_per_step", "learning_rate"), part(config, "sft")
    values = {name: section[name] for name in names if name in section}
    if rank := part(part(config, "model"), "lora").get("rank"):
        values["LoRA rank"] = rank
    values["seed"] = config.get("seed")
    return "\n".join(f"- {name}: {_plain(value)}" for name, value in values.items())


def _results(inputs: Inputs) -> str:
    rows = []
    for key, name in MEASURES.items():
        found = change_of(inputs.evaluation, key)
        if any(found):
            rows.append(f"| {name} | {' | '.join(e.text() if e else '–' for e in found)} |")
    if not rows:
        return "Not evaluated."
    head = "| measure | base | this model | change |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n\nIn brackets: 95 % intervals, the change paired by task."


def _name(config: dict) -> str:
    return _plain(str(config.get("workdir", "")).rstrip("/").rpartition("/")[2] or "policy")


def _plain(value: Any) -> str:
    """A value as one line of text that is no markup."""
    return re.sub(r"[\s|`<>\[\]*]+", " ", str(value)).strip()
