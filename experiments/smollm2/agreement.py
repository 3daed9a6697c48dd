"""BFCL's own scorer on the replies that measure.py kept: `python experiments/smollm2/agreement.py FILE...`

Every reply is read by bfcl-eval's handler of Hermes calls (QwenFCHandler.decode_ast) and scored by the
functions of its eval_runner; then its verdict is compared with ours. Nothing of ours decides that verdict but
the text. Install what it needs with `pip install -e '.[bfcl_harness]'` and
`pip install --no-deps bfcl-eval==2026.3.23`; the vendors' clients, which it would import, are not needed.
"""

import argparse
import collections
import json
import sys
import types
from pathlib import Path

import measure

from pivotrl_jax.environments.bfcl import tasks

MODEL = "a model"


def scorer():
    """(bfcl-eval's eval_runner, its handler of Hermes calls)."""
    tasks.root()  # puts bfcl-eval on the path, or says how to install it
    # the table of all vendors' models: the checker asks it whether a model writes "_" for "." in names
    models = types.ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {MODEL: types.SimpleNamespace(underscore_to_dot=False)}
    sys.modules[models.__name__] = models
    from bfcl_eval.eval_checker import eval_runner
    from bfcl_eval.model_handler.local_inference.qwen_fc import QwenFCHandler

    return eval_runner, object.__new__(QwenFCHandler)


def rows(category: str) -> tuple[dict, dict]:
    """(row id -> the row, row id -> its ground truth) of a category's files."""
    data = tasks.root() / "data"
    read = lambda path: {r["id"]: r for r in map(json.loads, path.read_text("utf-8").splitlines())}  # noqa: E731
    answers = data / "possible_answer" / f"BFCL_v4_{category}.json"
    return read(data / f"BFCL_v4_{category}.json"), read(answers) if answers.is_file() else {}


def verdicts(turns: dict[str, dict]) -> dict[str, bool]:
    """Turn id -> bfcl-eval's verdict on its reply."""
    runner, handler = scorer()
    found = {}
    files = {category: rows(category) for group in measure.GROUPS.values() for category in group}
    for turn, reply in turns.items():
        category, row = measure.category_of(turn), turn.split("@")[0]
        prompts, answers = files[category]
        common = (handler, row, reply["text"])
        if "irrelevance" in category:
            out = runner._evaluate_single_relevance_entry(*common, prompts[row], MODEL, category)
        else:
            python = runner.Language.PYTHON, runner.ReturnFormat.PYTHON
            truth = answers[row]["ground_truth"]
            out = runner._evaluate_single_ast_entry(*common, truth, prompts[row], MODEL, category, *python)
        found[turn] = bool(out["valid"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        turns = json.loads(path.read_text("utf-8"))["turns"]
        theirs = verdicts(turns)
        apart = [t for t in turns if theirs[t] != (turns[t]["reward"] == 1)]
        reasons = collections.Counter((turns[t]["reason"], theirs[t]) for t in apart)
        print(f"{path}: {len(turns) - len(apart)} of {len(turns)} replies have the same verdict")
        for (reason, theirs_), count in reasons.most_common():
            print(f"  {count} where ours is {reason!r} and BFCL's is {'a pass' if theirs_ else 'a fail'}")
        for turn in apart[:10]:
            print(f"    {turn}: {turns[turn]['text'][:150]!r}")


if __name__ == "__main__":
    main()
