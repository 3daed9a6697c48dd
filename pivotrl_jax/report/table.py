"""The table that a run ends with."""

from collections.abc import Sequence

from pivotrl_jax.pivots.selection import OUTCOMES, RARE, Selection
from pivotrl_jax.report.inputs import change_of
from pivotrl_jax.run import compilations
from pivotrl_jax.run.run import Run

NAMES = {
    "episode_success": "episode success",
    "call_turn_pass": "call-turn pass",
    "text_turn_pass": "text-turn pass",
    "out_of_domain": "out of domain",
    "bits_per_byte": "bits per byte (lower is better)",
}


def table_rows(
    run: Run, selection: Selection | None, result: dict, counts: dict, reprofiled: Sequence[str]
) -> list[tuple[str, str]]:
    """The short table at the end, as (name, text).

    `result` is evaluation.json, `counts` are those of run.json; `reprofiled` has a sentence for every time
    that the policy was profiled again.
    """
    rows = [("method", run.config.method)]
    rows += [("candidates", f"{counts['candidates']} turns of {counts['trajectories']} trajectories")]
    if "profiled" in run.facts:
        rows += [("profile of", run.facts["profiled"])]
    rows += selection_rows(selection) if selection else []
    rows += [("re-profiled", sentence) for sentence in reprofiled]
    if "stopped" in run.facts:
        rows += [("stopped early", run.facts["stopped"])]
    rows += [("warning", sentence) for sentence in run.facts.get("warnings", ())]
    rows += [(name, change(result, key)) for key, name in NAMES.items() if key in result["before"]]
    # several verifiers scored the held-out turns
    verifiers = result["before"].get("verifiers", {})
    rows += [(f"turns of {name}", change(result, name, "verifiers")) for name in verifiers]
    if found := run.facts.get("resampled"):
        rows += [("pivots sampled again", resampled_text(found))]
    turns = counts["profiling_rollout_turns"] + counts["training_rollout_turns"]
    seconds = sum(run.seconds.values())
    spent = f"{turns} rollout turns (profiling and training), {seconds:.0f} s in all"
    rows += [("spent", spent), ("checkpoints", str(run.shared / "checkpoints"))]
    compiled = compilations.since(run.began)
    names = ", ".join(f"{count} {name}" for name, count in compiled["programs"].items())
    rows += [("programs compiled", f"{names}; {compiled['seconds']:.0f} s")]
    rows += [("Hugging Face export", str(run.shared / "hf"))]
    if run.trained_config.lora:
        written, shares = run.config.model.lora.merged_dtype, run.facts["update_kept"]
        kept = f"{shares[written]:.1%} in {written}"
        if written != "bfloat16":
            kept += f"; {shares['bfloat16']:.1%} where it is loaded in bfloat16"
        rows += [("update kept in the export", kept), ("PEFT adapter", str(run.shared / "adapter"))]
    return rows


def selection_rows(selection: Selection) -> list[tuple[str, str]]:
    """What became of the candidates, as (name, text)."""
    counts, found = selection.counts(), selection.expected_counts()
    uninformative = f"{selection.uninformative():.0%} of all"
    if any(selection.counts(True).values()):
        uninformative += f", {selection.uninformative(True):.0%} of call turns"
    names = [name for name in OUTCOMES if name != "pivot" and (name not in RARE or counts[name])]
    others = ", ".join(f"{round(found[name], 1)} {OUTCOMES[name]}" for name in names)
    kept = f"{counts['pivot']} (mixed rewards, mean below {selection.lambda_diff:g})"
    if selection.keep_all_fail:
        kept += f", and {counts['all_fail']} that all fail"
    expected = [("adaptive profile", selection.expectation())] if selection.chances else []
    return [
        *expected,
        ("uninformative groups", uninformative),
        ("pivots kept", kept),
        ("others", others),
    ]


def resampled_text(found: dict) -> str:
    """'16: mean reward 0.312 -> 0.520; 11 rose, 3 fell; now 4 all pass, 1 all fail'; `found` is a
    `resampled.summary`."""
    text = f"{found['pivots']}"
    if "mean_after" in found:
        text += f": mean reward {found['mean_before']:.3f} -> {found['mean_after']:.3f}"
    return text + "; {rose} rose, {fell} fell; now {all_pass} all pass, {all_fail} all fail".format(**found)


def change(result: dict, key: str, group: str = "") -> str:
    """'0.412 [0.35, 0.47] -> 0.560 [0.49, 0.63], change +0.148 [+0.09, +0.21]', 95 % intervals, none of
    too few or equal values (`Estimate.why_no_interval`); "–" for what was not measured, as a change is where
    no turn was decided both before and after."""
    before, after, by = change_of(result, key, group)
    shown = [found.text(sign) if found else "–" for found, sign in ((before, ""), (after, ""), (by, "+"))]
    return "{} -> {}, change {}".format(*shown)
