"""bfcl-eval's own generate and evaluate against a served model, and its verdicts beside ours:
`python experiments/harness/bfcl.py --base_url=http://127.0.0.1:8000/v1 --out=DIR [--rows=50]`

The model is asked, the replies are stored and scored by bfcl-eval alone: its threads, its handler of
OpenAI-compatible endpoints, its episodes, its checkers, its tables in DIR/score. A run goes on where it was.
Then every stored reply is scored by this project's rules as well: an AST check for single turns, an episode
played with the same calls for several. One difference is known: where no call is wanted, a call that cannot
be read passes there, as no call at all, and fails here.

Two things differ from its handler of OpenAI's models, as its guide for new models allows: names of functions
keep their dots, since ours were trained on them, and the temperature is 0. The vendors' clients, which take
no part in this, are not imported. Install what it needs with `pip install -e '.[bfcl_harness]'` and
`pip install --no-deps bfcl-eval==2026.3.23`.
"""

import argparse
import collections
import json
import os
import sys
import types
from pathlib import Path

from pivotrl_jax import verifiers
from pivotrl_jax.chat import replies
from pivotrl_jax.environments.bfcl import demonstrations, tasks
from pivotrl_jax.records import Action
from pivotrl_jax.trajectories import extract

SINGLE_TURN = (
    *("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance"),
)


def harness(name: str, base_url: str, out: Path):
    """(bfcl-eval's generation module, its eval_runner), which know one model: the one at `base_url`."""
    tasks.root()  # puts bfcl-eval on the path, or says how to install it
    os.environ["BFCL_PROJECT_ROOT"] = str(out)
    # the table of all vendors' models, whose handlers import all vendors' clients
    models = types.ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = table = {}
    sys.modules[models.__name__] = models
    from bfcl_eval import _llm_response_generation as generation
    from bfcl_eval.eval_checker import eval_runner
    from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler

    class Served(OpenAICompletionsHandler):
        def _build_client_kwargs(self):
            return {
                "base_url": base_url,
                "api_key": os.environ.get("OPENAI_API_KEY", "none"),
                "timeout": 3600,
            }

        def _compile_tools(self, inference_data, test_entry):
            names = [function["name"] for function in test_entry["function"]]
            super()._compile_tools(inference_data, test_entry)
            for tool, name in zip(inference_data["tools"], names, strict=True):
                tool["function"]["name"] = name
            return inference_data

    table[name] = types.SimpleNamespace(
        model_name=name,
        display_name=name,
        url=base_url,
        org="",
        license="",
        model_handler=Served,
        input_price=None,
        output_price=None,
        is_fc_model=True,
        underscore_to_dot=False,
    )
    return generation, eval_runner


def generate(generation, name: str, categories: list[str], rows: int, threads: int, out: Path) -> None:
    """bfcl-eval asks the model; with `rows`, for the first ones of every category only."""
    if rows:
        ids = {c: [row["id"] for _, row in tasks.read_category(c)][:rows] for c in categories}
        (out / "test_case_ids_to_generate.json").write_text(json.dumps(ids), "utf-8")
    arguments = types.SimpleNamespace(
        model=[name],
        test_category=categories,
        temperature=0.0,
        include_input_log=False,
        exclude_state_log=True,
        num_threads=threads,
        result_dir=None,
        allow_overwrite=False,
        run_ids=bool(rows),
    )
    generation.main(arguments)


def results(out: Path, kind: str) -> dict[str, list[dict]]:
    """Category -> the lines of bfcl-eval's file; `kind` is "result" or "score"."""
    found = {}
    for path in sorted((out / kind).rglob(f"BFCL_v4_*_{kind}.json")):
        category = path.name.removeprefix("BFCL_v4_").removesuffix(f"_{kind}.json")
        found[category] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return found


def action_of(reply: str | list[dict[str, str]]) -> Action:
    """What a model said, as bfcl-eval stores it: a text, or a list of {name: arguments as JSON}."""
    if isinstance(reply, str):
        return replies.action_of({"content": reply})
    calls = [{"function": {"name": n, "arguments": text}} for call in reply or [] for n, text in call.items()]
    return replies.action_of({"content": None, "tool_calls": calls})


def our_verdicts(category: str, lines: list[dict]) -> dict[str, tuple[bool, str]]:
    """Row id -> (passed, reason) by this project's rules; rows that it leaves out are missing."""
    if category in tasks.MULTI_TURN:
        return {line["id"]: _play(line["id"], line["result"]) for line in lines}
    candidates = {c.trajectory_id: c for c in extract.extract(demonstrations.single_turn([category]))}
    found = {}
    for line in lines:
        if candidate := candidates.get(line["id"]):
            verdict = verifiers.get(candidate.verifier).verify(candidate, action_of(line["result"]))
            found[line["id"]] = verdict.reward == 1, verdict.reason
    return found


def _play(row: str, turns: str | list[list]) -> tuple[bool, str]:
    """The verdict of an episode in which the stored actions are played."""
    if isinstance(turns, str):  # an error of the harness
        return False, "error"
    episode = tasks.find_task(row).start(max_steps=20)
    for steps in turns:
        for reply in steps:
            if not episode.done:
                episode.step(action_of(reply))
    verdict = episode.check()
    return verdict.reward == 1, verdict.reason


def compare(out: Path) -> bool:
    """Print BFCL's and our score of every category, and the replies on which they differ. Returns whether
    there are none but calls that cannot be read."""
    stored, scored, apart = results(out, "result"), results(out, "score"), []
    print(f"{'category':24}{'rows':>6}{'bfcl-eval':>11}{'ours':>8}{'apart':>7}{'not ours':>10}")
    for category, lines in stored.items():
        failed = {line["id"] for line in scored[category][1:]}  # the first line is the total
        ours = our_verdicts(category, lines)
        here = [(row, passed, reason) for row, (passed, reason) in ours.items() if passed == (row in failed)]
        theirs = sum(row not in failed for row in ours)
        numbers = (
            f"{theirs / max(len(ours), 1):11.4f}{sum(p for p, _ in ours.values()) / max(len(ours), 1):8.4f}"
        )
        print(f"{category:24}{len(lines):6}{numbers}{len(here):7}{len(lines) - len(ours):10}")
        apart += here
    reasons = collections.Counter((reason, passed) for _, passed, reason in apart)
    for (reason, passed), count in reasons.most_common():
        print(f"{count} where ours is {reason!r} and BFCL's is {'a fail' if passed else 'a pass'}")
    for row, _, reason in apart[:10]:
        print(f"  {row}: {reason}")
    return all(reason == "malformed" for _, _, reason in apart)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base_url", required=True)
    parser.add_argument("--model", default="policy", help="the name under which it is served")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--categories", default=",".join(SINGLE_TURN))
    parser.add_argument("--rows", type=int, default=0, help="of each category; 0: all")
    parser.add_argument("--threads", type=int, default=64)
    options = parser.parse_args()
    out, categories = options.out.resolve(), options.categories.split(",")
    out.mkdir(parents=True, exist_ok=True)
    generation, runner = harness(options.model, options.base_url, out)
    generate(generation, options.model, categories, options.rows, options.threads, out)
    runner.main([options.model], categories, None, None, partial_eval=bool(options.rows))
    sys.exit(not compare(out))


if __name__ == "__main__":
    main()
