"""Sections of the report: training, profiles and the run itself."""

import json
import math
from collections.abc import Iterator

from markupsafe import Markup

from pivotrl_jax.pivots.selection import OUTCOMES, RARE, Selection, select
from pivotrl_jax.report import page, plots
from pivotrl_jax.report.before_after import IN_DOMAIN
from pivotrl_jax.report.inputs import Inputs, number, part

CURVES = {  # metric -> its title; those that a run has are drawn, in this order
    "reward_mean": "Mean reward of the batch",
    "mixed_groups": "Share of groups with mixed rewards",
    "group_reward_std": "Standard deviation of rewards within a group, mean over groups",
    "nll": "Negative log-likelihood of the demonstrations, nats per token",
    "validation/turn_pass": "Validation: turns passed",
    **{f"validation/{name}": f"Validation: {words}" for name, words in IN_DOMAIN.items()},
    "completion_tokens": "Mean length of what was sampled, tokens",
    "unfinished": "Share of samples cut at the token limit",
    "malformed": "Share of samples whose calls cannot be read",
    "entropy": "Entropy, nats per token",
    "log_prob_drift": "Drift between sampler and learner, nats per token",
    "kl": "KL to the reference policy",
    "kl_per_turn": "KL to the reference policy, nats per turn",
    "rollouts_per_mixed_group": "Rollouts per mixed group",
    "turns_per_episode": "Turns per episode",
    "loss": "Loss, with all its terms",
    "grad_norm": "Gradient norm",
    "clip_fraction": "Share of clipped tokens",
}
_TALL = ("reward", "mixed", "group_reward", "nll", "validation")
# sections of the config that say nothing about a run of supervised fine-tuning
_NOT_SFT = ("grpo", "profile", "reprofile", "reward", "judge")
_PROVENANCE = {
    "started": "started",
    "written": "last written",
    "command": "command",
    "directory": "in",
    "commit": "commit",
    "host": "host",
    "platform": "platform",
    "python": "Python",
}


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


# ---- training


def points(lines: list[dict] | None, name: str) -> tuple[list, list[float]] | None:
    """(steps, values) of a metric, NaN for what is no number; None where no step has it."""
    found = [(line["step"], number(line[name])) for line in lines or () if name in line]
    if not found:
        return None
    steps, values = zip(*found)
    return list(steps), [math.nan if v is None else v for v in values]


def training(inputs: Inputs) -> Markup:
    if not inputs.metrics:
        return page.section("Training", page.missing("metrics.jsonl"))
    profiled = [m["step"] for m in inputs.metrics if m.get("reprofiled")]
    drawn = []
    for name, title in CURVES.items():
        if found := points(inputs.metrics, name):
            drawn.append(page.figure(title, plots.curve(*found, title, name.startswith(_TALL), profiled)))
    words = "Thin: every training step. Thick: a moving mean over a tenth of the run."
    if profiled:
        words += " Dashed: the policy was profiled again, and training went on with the pivots found there."
    return page.section("Training", page.figures(drawn), words)


# ---- profiles


def selection_of(inputs: Inputs) -> Selection | None:
    """What became of every profiled candidate; None without profiles or the run's lambda_diff."""
    profile = part(inputs.config, "profile")
    lambda_diff = number(profile.get("lambda_diff"))
    if not inputs.profiles or lambda_diff is None:
        return None
    return select(inputs.profiles, lambda_diff, _group_size(inputs), profile.get("keep_all_fail") is True)


def _group_size(inputs: Inputs) -> int:
    """Rollouts of a full profile."""
    drawn = max(len(p.rewards) + p.abstained for p in inputs.profiles)
    size = number(part(inputs.config, "profile").get("group_size"))
    return max(drawn, round(size or 0))


def profiles(inputs: Inputs) -> Markup:
    title = "Profiles and pivots"
    if not inputs.profiles:
        missing = page.section(title, page.missing("profiles.jsonl"))
        return missing if inputs.method in ("", "pivotrl") else Markup("")
    selection = selection_of(inputs)
    lambda_diff = selection.lambda_diff if selection else None
    group = _group_size(inputs)
    decided = [p for p in inputs.profiles if p.rewards]
    means = {kind: [p.mean for p in decided if p.is_call is kind] for kind in (True, False)}
    histogram = plots.mean_histogram(means[True], means[False], group, lambda_diff)
    drawn = [page.figure("Profile means", histogram)]
    words = f"G = {group} actions sampled per candidate; a pivot has mixed rewards"
    words += "." if lambda_diff is None else f" and a mean below λ_diff = {lambda_diff:g}."
    if selection is None:
        rest = page.lead("Left out: run.json does not say which lambda_diff selected the pivots.")
        return page.section(title, page.join([page.figures(drawn), rest]), words)
    calls, texts = (selection.expected_counts(is_call) for is_call in (True, False))
    rows = [(name, calls[key], texts[key]) for key, name in OUTCOMES.items()]
    rows = [row for row in rows if row[0] not in RARE or any(row[1:])]
    label = "What became of the candidates"
    drawn.append(page.figure(label, plots.stacked_bars(rows, label)))
    if selection.keep_all_fail:
        words += " Candidates whose rewards are all 0 are trained on, too."
    if again := part(inputs.run, "rescored"):
        words += f" The rollouts were scored again: {again.get('pivots gained')} pivots were gained and "
        words += f"{again.get('pivots lost')} lost, as rescored.txt says."
    if screened := calls["screened"] + texts["screened"]:
        words += (
            f" {screened:g} candidates were screened, so that nothing was sampled there: plainly easy by "
        )
        words += "the log-prob of the demonstration, or turns that only talk."
    if selection.chances:
        words += f" Adaptive profiling: {selection.expectation()}. The means of those groups are "
        words += "of the actions that were sampled, and lie further apart than those of full groups."
    return page.section(title, page.figures(drawn), words)


# ---- the run


def run(inputs: Inputs) -> Markup:
    """Where it comes from, time, the closing table, versions and the config."""
    return page.section("The run", page.join(_run(inputs)))


def provenance(inputs: Inputs) -> list[tuple[str, str]]:
    """(what, value) of when, where and by which command the run was made."""
    known = part(inputs.run, "provenance")
    rows = [(words, str(known[key])) for key, words in _PROVENANCE.items() if known.get(key)]
    devices = inputs.run.get("devices")
    if isinstance(devices, list) and devices:
        rows.append(
            ("devices", ", ".join(f"{devices.count(d)} × {d}" for d in dict.fromkeys(map(str, devices))))
        )
    versions = part(inputs.run, "versions")
    if versions:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return rows


def _run(inputs: Inputs) -> Iterator[Markup]:
    run = inputs.run
    if not part(run, "provenance"):
        yield page.lead(
            "run.json does not say when, where and by which command: an earlier version wrote it."
        )
    if known := provenance(inputs):
        yield page.titled("Where it comes from", page.table((), known))
    seconds = {k: number(v) for k, v in part(run, "seconds").items()}
    timed = [(page.visible(stage), s) for stage, s in seconds.items() if s is not None]
    if timed:
        label = "Time by stage"
        yield page.figures([page.figure(label, plots.bars(timed, duration, label))])
    else:
        yield page.missing("list of seconds per stage in run.json")
    closing = run.get("table") if isinstance(run.get("table"), list) else []
    closing = [row.values() if isinstance(row, dict) else row for row in closing]
    closing = [[row] if isinstance(row, (str, int, float)) else list(row) for row in closing if row]
    for title, rows in (("The run's closing table", closing), ("Counts", list(part(run, "counts").items()))):
        if rows:
            yield page.more(title, page.table((), rows))
    config, title = run.get("config"), "Config"
    if inputs.method == "sft":
        config = {name: value for name, value in config.items() if name not in _NOT_SFT}
        title = "Config, without the sections of other methods"
    shown = page.clip(json.dumps(config, indent=2, ensure_ascii=False), 60_000)
    yield page.more(title, Markup("<pre>{}</pre>").format(page.visible(shown)))
