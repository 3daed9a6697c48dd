"""swe:nemo_gym: the rewards of NVIDIA NeMo Gym's released verifier for coding agents, `swe_pivot`.

It reproduces the defects too; the rules are written anew from the server's behaviour. Only the first call
counts.

- Level 0: the tool's name, without case, or two names of one category (edit, bash, search, read, ...).
- Level 1 (`enable_target_match`): edits: the editor's command, the last two components of the path, and of a
  viewed range 80%; bash: the first word, one path in common, similarity 0.3; search and read: the last three
  components of the path. What either side leaves out is not compared.
- Level 2 (`enable_argument_similarity`): difflib's ratio of the first 2000 characters, with the rollout's
  text first; of old and new text the smaller ratio, else of the content or patch, else of the command. The
  reward is binary (1 from `similarity_full_credit` on) or continuous (0.5 and more from
  `similarity_threshold` on).
- Level 4 (`enable_diff_size_shaping`, continuous only): minus up to `diff_size_alpha` for the edit's length.

Arguments that are not JSON count as {}, which skips most checks. `candidate.case["config"]` sets the options
under these names. Where the released code raises (it answers "unknown_error"), the reward is 0.
"""

import json
import re
from difflib import SequenceMatcher
from typing import Any

from pivotrl_jax.chat.json_text import nesting
from pivotrl_jax.records import Action, Call, Candidate, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import case_candidate, field
from pivotrl_jax.verifiers.common import demonstrated_calls, show
from pivotrl_jax.verifiers.compare.coding_tools import CATEGORIES, TargetConfig, read_config
from pivotrl_jax.verifiers.nemo_gym.tool_call import NESTING

NAME = "swe:nemo_gym"
MAX_CHARS = 2000  # compared of a text, as released
BASH_FLOOR = 0.3
COVERED = 0.8  # of the expected range of lines
EDIT_CHARS = 500  # an edit of this length loses all of diff_size_alpha

_CATEGORY = {
    spelling: category
    for category, names in CATEGORIES.items()
    for name in names.split()
    for spelling in (name, name.replace("_", ""))  # the second is CamelCase in lower case
}

_PATHS = re.compile(r"""(?:^|[\s='"(])((?:/[\w._-]+)+|\.\.?/[\w._/-]+|[\w._-]+/[\w._/-]+)""")


# what the released code raises on arguments that are no object, huge numbers and deep nesting
_RAISED = (AttributeError, KeyError, TypeError, ValueError, ArithmeticError, RecursionError)


# ---- reading arguments; each function may raise one of _RAISED if they are no object


def category(name: str) -> str:
    """The category of a tool, "unknown" for most."""
    return _CATEGORY.get(name.lower(), "unknown")


def _decode(arguments: Any) -> Any:
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except json.JSONDecodeError:
            return {}
    else:
        value = arguments if isinstance(arguments, dict) else {}
    if nesting(value) > NESTING:
        raise ValueError("nested too deeply")
    json.dumps(value)  # as the released code does
    return value


def _first(arguments: Any, names: tuple[str, ...]) -> str:
    return next((str(arguments[name]).strip() for name in names if name in arguments), "")


def _path(arguments: Any) -> str:
    return _first(arguments, ("path", "file", "file_path", "filename", "file_name"))


def _command(arguments: Any) -> str:
    return _first(arguments, ("command", "cmd"))


def _suffix(path: str, components: int) -> str:
    return "/".join(path.strip("/").split("/")[-components:])


def _range(value: Any) -> tuple[int, int] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list) or len(value) != 2:
        return None
    try:
        return int(value[0]), int(value[1])
    except (ValueError, TypeError):
        return None


def _content(arguments: Any) -> str:
    if "new_str" in arguments:
        return f"{arguments.get('old_str', '')}\n{arguments['new_str']}"
    for name in ("patch", "diff"):
        if name in arguments:
            return str(arguments[name])
    if "content" in arguments or "file_text" in arguments:
        return str(arguments.get("content", arguments.get("file_text", "")))
    return ""


def _ratio(got: str, want: str) -> float:
    """difflib's ratio, which depends on the order of its arguments."""
    return SequenceMatcher(None, got[:MAX_CHARS], want[:MAX_CHARS]).ratio()


def _similar(got: str, want: str) -> float:
    """As `_ratio`, but 0 or 1 where one text is empty."""
    return _ratio(got, want) if got and want else float(got == want)


# ---- the levels


def _same_edit_target(got: Any, want: Any) -> bool:
    commands = str(got.get("command", "")), str(want.get("command", ""))
    if all(commands) and commands[0] != commands[1]:
        return False
    paths = _path(got), _path(want)
    if all(paths) and _suffix(paths[0], 2) != _suffix(paths[1], 2):
        return False
    if commands != ("view", "view"):
        return True
    viewed, wanted = _range(got.get("view_range")), _range(want.get("view_range"))
    if viewed is None or wanted is None:
        return True
    both = max(0, min(viewed[1], wanted[1]) - max(viewed[0], wanted[0]))
    return both / max(1, wanted[1] - wanted[0]) >= COVERED


def _command_paths(command: str) -> set[str]:
    found = (path for path in _PATHS.findall(command) if not path.startswith("--") and len(path) > 2)
    return {_suffix(path.rstrip("/"), 3) for path in found} - {""}


def _same_bash_target(got: Any, want: Any) -> bool:
    commands = _command(got), _command(want)
    if not all(commands):
        return True
    verbs = [command.split(maxsplit=1)[0].rsplit("/", 1)[-1] for command in commands]
    if all(verbs) and verbs[0] != verbs[1]:
        return False
    paths = [_command_paths(command) for command in commands]
    if all(paths) and not paths[0] & paths[1]:
        return False
    return _ratio(*commands) >= BASH_FLOOR


def _same_target(kinds: tuple[str, str], got: Any, want: Any) -> bool:
    if kinds == ("edit", "edit"):
        return _same_edit_target(got, want)
    if kinds == ("bash", "bash"):
        return _same_bash_target(got, want)
    if all(kind in ("search", "read") for kind in kinds):
        paths = _path(got), _path(want)
        return not all(paths) or _suffix(paths[0], 3) == _suffix(paths[1], 3)
    return True


def _similarity(kinds: tuple[str, str], got: Any, want: Any) -> float:
    if kinds == ("edit", "edit"):
        old, new = ([str(a.get(name, "")) for a in (got, want)] for name in ("old_str", "new_str"))
        if (old[0] or new[0]) and (old[1] or new[1]):
            return min(_similar(*old), _similar(*new))
        return _similar(_content(got), _content(want))
    if kinds == ("bash", "bash"):
        commands = _command(got), _command(want)
        return _ratio(*commands) if all(commands) else 1.0
    return 1.0


def _credit(similarity: float, config: TargetConfig) -> float:
    """Level 2's reward; 0 rejects."""
    low, full = config.similarity_threshold, config.similarity_full_credit
    if similarity >= full:
        return 1.0
    if config.reward_mode == "binary" or similarity < low:
        return 0.0
    return 0.5 + 0.5 * (similarity - low) / (full - low)


def _verify_call(want: Call, got: Call, config: TargetConfig) -> Verdict:
    kinds = category(got.name), category(want.name)
    given, wanted = _decode(got.arguments), _decode(want.arguments)
    if got.name.lower() != want.name.lower() and (kinds[0] != kinds[1] or kinds[0] == "unknown"):
        return Verdict(0.0, "tool_name_mismatch", f"called {show(got.name)}, want {show(want.name)}")
    if config.enable_target_match and not _same_target(kinds, given, wanted):
        return Verdict(0.0, "target_mismatch", f"{show(given)}, want {show(wanted)}")
    reward, details = 1.0, "the same tool"
    if config.enable_argument_similarity:
        similarity = _similarity(kinds, given, wanted)
        reward, details = _credit(similarity, config), f"similarity {similarity:.4f}"
        if not reward:
            return Verdict(0.0, "similarity_below_threshold", details)
    if config.enable_diff_size_shaping and config.reward_mode == "continuous" and kinds[0] == "edit":
        size = min(len(_content(given)) / EDIT_CHARS, 1.0)
        reward *= 1.0 - config.diff_size_alpha * size
    return Verdict(reward, "ok" if reward == 1 else "partial", details)


def _expected(candidate: Candidate) -> Call | None:
    """The expected call: the row's if the case holds one, else the demonstration's only call. May raise one
    of _RAISED.
    """
    case = candidate.case
    if not case.keys() & {"expected_action", "expected_answer", "metadata"}:
        calls = demonstrated_calls(candidate)
        return calls[0] if len(calls) == 1 else None
    places = [case.get("expected_action")]
    if isinstance(case.get("expected_answer"), str):
        try:
            places.append(json.loads(case["expected_answer"]))
        except json.JSONDecodeError:
            pass
    metadata = case.get("metadata")
    places.append(metadata.get("expected_action") if isinstance(metadata, dict) else None)
    for place in places:
        if isinstance(place, dict) and place.get("type") == "function_call":
            return Call(place["name"], place.get("arguments", ""))
    return None


def verify(candidate: Candidate, action: Action) -> Verdict:
    """The reward that the released `swe_pivot` gives. Never raises on `action`.

    Raises InputError for a configuration that the server would refuse.
    """
    config = read_config(candidate.case)
    try:
        expected = _expected(candidate)
        if expected is None:
            return Verdict(0.0, "expected_action_invalid", "the gold is not one call")
        # servers return an unreadable call, and everything beside it, as text
        if action.malformed or not action.calls:
            return Verdict(0.0, "model_output_invalid", action.malformed or "no call")
        return _verify_call(expected, action.calls[0], config)
    except _RAISED as e:
        return Verdict(0.0, "unknown_error", f"the released code raises here ({type(e).__name__})")


# ---- cases


def read_case(case: dict) -> tuple[Candidate, Action]:
    """A row {"id", "expected_action", "candidate": Responses items, "config"?, "row"?}. Raises InputError.

    Arguments stay as they are given: those that cannot be decoded are noticed when compared.
    """
    row = case["row"] if isinstance(case.get("row"), dict) else {}
    names = ("expected_action", "expected_answer", "metadata", "config")
    extra = {name: value for name in names for value in (case.get(name, row.get(name)),) if value is not None}
    read_config(extra)
    extra.setdefault("expected_action", {})
    items = [item for item in field(case, "candidate", list) if isinstance(item, dict)]
    calls = [Call(i.get("name"), i.get("arguments")) for i in items if i.get("type") == "function_call"]
    return case_candidate(case, NAME, {"role": "assistant"}, [], extra), Action(calls=tuple(calls))


VERIFIERS = (Verifier(NAME, "1", verify, read_case),)
