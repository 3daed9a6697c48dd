"""tool_call:nemo_gym and search:nemo_gym: the rewards of NVIDIA NeMo Gym's released verifier.

They reproduce, defects included, the server single_step_tool_use_with_argument_comparison, which scores
conversational tool use, function calling and search pivots. The rules are written anew from its behaviour:

- Where a message is expected, any message is right, even an empty one or a broken call left in the text. An
  action with calls is no message; one with neither is no action.
- Names are equal. Arguments are decoded by `json.loads`; then values must be of the expected type (so that
  `true` passes for 1), objects must have the same keys, lists are compared item by item, and floats must be
  closer than `floating_point_comparison_threshold`.
- For two strings of at least two words each, the number of common words (with repeats, without case) over
  the sum of both word counts must reach `word_count_similarity_threshold`: equal strings reach 0.5. Other
  strings are compared exactly.
- By default surplus calls are accepted. With `parallel_tool_call_rewarding` counts matter: `allow_subset`,
  `allow_superset`, and a `parallel_tool_call_reward_mode` of binary_strict, fractional or f1 over a maximum
  matching.

`candidate.case["config"]["tool_call_comparator_config"]` sets these options per row. Where the released
code raises (its server answers 500), the reward is 0 with the reason "crash". Rows with `expected_answers`
follow NeMo Gym's xlam_fc server: values exactly equal, surplus arguments accepted, calls paired greedily.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat.json_text import nesting
from pivotrl_jax.chat.responses import output_texts
from pivotrl_jax.records import Action, Call, Candidate, InputError, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import CaseReader, calls_message, case_candidate, field
from pivotrl_jax.verifiers.common import demonstrated_calls, show
from pivotrl_jax.verifiers.compare.arguments import matched

MODES = ("binary_strict", "fractional", "f1")
NESTING = 800  # deeper JSON exhausts the released code's recursion


class _Crash(Exception):
    """The released code would raise here."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of `tool_call_comparator_config`, under its names."""

    word_count_similarity_threshold: float
    floating_point_comparison_threshold: float = 1e-6
    parallel_tool_call_rewarding: bool = False
    allow_subset: bool = False
    allow_superset: bool = False
    parallel_tool_call_reward_mode: str = "binary_strict"


def read_config(case: dict, threshold: float) -> Config:
    """The configuration of a case; `threshold` if it gives none. Raises InputError for unknown options."""
    given = case.get("config") or {}
    given = given.get("tool_call_comparator_config", {}) if isinstance(given, dict) else given
    types = {f.name: f.type for f in dataclasses.fields(Config)}
    if not isinstance(given, dict) or not set(given) <= set(types):
        raise InputError(f'the "config" of the case is {show(given)}; want options among {sorted(types)}')
    for name, value in given.items():
        kinds = (int, float) if types[name] is float else types[name]
        if not isinstance(value, kinds) or (types[name] is float and isinstance(value, bool)):
            raise InputError(f"{name} is {show(value)}; want a {types[name].__name__}")
    config = Config(**{"word_count_similarity_threshold": threshold, **given})
    if config.parallel_tool_call_reward_mode not in MODES:
        raise InputError(f"parallel_tool_call_reward_mode is {show(given)}; want one of {', '.join(MODES)}")
    return config


# ---- one call


def _decode(arguments: Any) -> tuple[str, Any]:
    """("", value), or ("decode", None) if the released code rejects, or ("crash", why) if it raises."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return "decode", None
        except (ValueError, RecursionError) as e:  # integers of thousands of digits; too deep nesting
            return "crash", f"the arguments cannot be read ({type(e).__name__})"
    elif not isinstance(arguments, dict):
        return "crash", f"the arguments are {show(arguments)}, want JSON in a string"
    if nesting(arguments, NESTING) > NESTING:
        return "crash", f"the arguments are nested deeper than {NESTING} levels"
    return "", arguments


def _words(text: str) -> Counter[str]:
    return Counter(text.lower().split())


def _similar(want: str, got: str, threshold: float, words: Callable[[str], Counter[str]]) -> bool:
    ours, theirs = words(want), words(got)
    total = ours.total() + theirs.total()
    if ours.total() < 2 or theirs.total() < 2:
        return want == got
    return (ours & theirs).total() / total >= threshold


def _difference(want: Any, got: Any, config: Config, words: Callable[[str], Counter[str]]) -> str:
    """The rule by which two values differ, "" if they do not; depth first as released, without recursion."""
    left = [(want, got)]
    while left:
        want, got = left.pop()
        if not isinstance(got, type(want)):
            return "type"
        if isinstance(want, dict):
            if want.keys() != got.keys():
                return "keys"
            left.extend((want[key], got[key]) for key in reversed(want))
        elif isinstance(want, list):
            if len(want) != len(got):
                return "length"
            left.extend(zip(reversed(want), reversed(got)))
        elif isinstance(want, float):
            if not abs(got - want) < config.floating_point_comparison_threshold:  # NaN is never less
                return "value"
        elif isinstance(want, str):
            if not _similar(want, got, config.word_count_similarity_threshold, words):
                return "value"
        elif want != got:
            return "value"
    return ""


def _choices(expected: tuple[Call, ...], actual: tuple[Call, ...], config: Config) -> tuple[list, str]:
    """(the actual calls that match each expected call, the reason of the first expected call without any)."""
    words = functools.cache(_words)
    wanted, given = [_decode(c.arguments) for c in expected], [_decode(c.arguments) for c in actual]
    choices, why = [], ""
    for call, (unread, want) in zip(expected, wanted):
        fits, reason = [], "name"
        for j, other in enumerate(actual):
            if call.name != other.name:
                continue
            if unread:  # the released code expects the row to be readable
                raise _Crash(want or "the demonstrated arguments are not JSON")
            fault, got = given[j]
            if fault == "crash":
                raise _Crash(got)
            difference = fault or _difference(want, got, config, words)
            if not difference:
                fits.append(j)
            elif reason == "name":
                reason = difference
        choices.append(fits)
        why = why or ("" if fits else reason)
    return choices, why


# ---- actions


def _score(found: int, expected: int, actual: int, config: Config) -> float:
    """The reward of `found` matched calls, for counts that `_admitted` accepts."""
    if not config.parallel_tool_call_rewarding:
        return float(found == expected)
    required = min(expected, actual) if config.allow_subset else expected
    if config.parallel_tool_call_reward_mode == "f1":
        return 2 * found / (expected + actual)
    if config.parallel_tool_call_reward_mode == "fractional":
        return found / required
    return float(found == required)


def _admitted(expected: int, actual: int, config: Config) -> bool:
    if not config.parallel_tool_call_rewarding or expected == actual:
        return True
    return config.allow_subset if actual < expected else config.allow_superset


def _compare(expected: tuple[Call, ...], actual: tuple[Call, ...], config: Config) -> Verdict:
    counts = f"{len(actual)} calls for {len(expected)} expected"
    if not _admitted(len(expected), len(actual), config):
        return Verdict(0.0, "count", counts)
    try:
        choices, why = _choices(expected, actual, config)
    except _Crash as e:
        return Verdict(0.0, "crash", f"NeMo Gym's server fails on this: {e}")
    found = len(matched(choices))
    if len(expected) == len(actual) == 1:  # one for one is binary in every mode
        reward = float(found)
    else:
        reward = _score(found, len(expected), len(actual), config)
    if reward == 1:
        return Verdict(1.0, "ok", f"{found} calls matched, {counts}")
    surplus = found == len(expected) or found == len(actual)
    return Verdict(reward, "count" if surplus else why or "value", f"{found} calls matched, {counts}")


def _is_message(action: Action) -> bool:
    """Whether a server would have returned a message: text, or a call that its parser left as text."""
    if action.malformed:
        return bool(action.content) or "<tool_call>" in action.text
    return bool(action.content) or bool(action.text and not action.reasoning)


def _verify(candidate: Candidate, action: Action, threshold: float) -> Verdict:
    expected = demonstrated_calls(candidate)
    if candidate.case.get("server") == "xlam_fc":
        return _xlam(expected, action.calls)
    config = read_config(candidate.case, threshold)
    # servers return an unreadable call, and everything beside it, as text
    calls = () if action.malformed else action.calls
    if not calls and not _is_message(action):
        return Verdict(0.0, "no_action", "no call and no message")
    if not expected:
        if calls:
            return Verdict(0.0, "called", f"called {show(calls[0].name)} where a message is expected")
        return Verdict(1.0, "ok", "a message, as expected")
    if not calls:
        return Verdict(0.0, "no_call", "a message where a call is expected")
    return _compare(expected, calls, config)


def _xlam(expected: tuple[Call, ...], actual: tuple[Call, ...]) -> Verdict:
    try:
        found = _xlam_matches(expected, actual)
    except (TypeError, AttributeError, ValueError, RecursionError) as e:
        return Verdict(0.0, "crash", f"NeMo Gym's server fails on this ({type(e).__name__})")
    if found == len(expected) == len(actual):
        return Verdict(1.0, "ok", f"{found} calls matched")
    details = f"{found} of {len(expected)} calls matched by {len(actual)}"
    return Verdict(0.0, "count" if len(expected) != len(actual) else "value", details)


def _xlam_arguments(arguments: Any) -> Any:
    """Arguments as that server reads them. May raise what Python's json raises."""
    if isinstance(arguments, str):
        try:
            return json.loads(arguments)
        except json.JSONDecodeError:
            return {}
    return arguments if isinstance(arguments, dict) else {}


def _xlam_matches(expected: tuple[Call, ...], actual: tuple[Call, ...]) -> int:
    """How many expected calls that server finds. Raises where it raises."""
    left = [(c.name, _xlam_arguments(c.arguments)) for c in actual]
    found = 0
    for call in expected:
        for i, (called, once) in enumerate(left):
            if called != call.name:
                continue
            got = _xlam_arguments(once)  # decoded a second time, so that JSON in JSON is read
            wanted = _xlam_arguments(call.arguments)
            if all(k in got and not _unequal(got[k], v) for k, v in wanted.items()):
                found += 1
                del left[i]
                break
    return found


def _unequal(got: Any, want: Any) -> bool:
    """Python's `!=`; values nested too deeply for its recursion count as unequal."""
    try:
        return bool(got != want)
    except RecursionError:
        return True


# ---- cases


def _calls(expected: dict) -> list[tuple[str, Any]]:
    """(name, arguments as given) of each expected call. They are decoded when compared."""
    items = expected.get("calls") if expected["type"] == "function_call_batch" else [expected]
    if not isinstance(items, list) or not items:
        raise InputError('"expected_action" is a function_call_batch without "calls"; list them')
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InputError(f'"expected_action" holds the call {show(item)}; want an object with a "name"')
    return [(item["name"], item.get("arguments")) for item in items]


def _read_action(items: list) -> Action:
    calls, texts = [], []
    for item in items:
        item = item if isinstance(item, dict) else {}
        if item.get("type") == "function_call":
            calls.append(Call(item.get("name"), item.get("arguments")))
        elif item.get("type") == "message":
            texts += output_texts(item)
    texts = [text for text in texts if isinstance(text, str)]
    # `text` is a space for an empty message, which is a message nevertheless
    return Action(texts[0] if texts else "", "", tuple(calls), "", texts[0] or " " if texts else "")


def _read_case(name: str) -> CaseReader:
    def read_case(case: dict) -> tuple[Candidate, Action]:
        config = field(case, "config", dict) if case.get("config") is not None else {}
        extra: dict = {"config": config}
        if "expected_action" not in case and isinstance(case.get("expected_answers"), list):
            expected = {"type": "function_call_batch", "calls": case["expected_answers"]}
            extra["server"] = "xlam_fc"
        else:
            expected = field(case, "expected_action", dict)
        kind = expected.get("type")
        if kind == "message" or (extra.get("server") and not expected["calls"]):
            demonstration = {"role": "assistant", "content": str(expected.get("content") or "")}
        elif kind in ("function_call", "function_call_batch"):
            demonstration = calls_message(_calls(expected))
        else:
            raise InputError(
                f'"expected_action" has the type {show(kind)}; want a call, a batch or a message'
            )
        candidate = case_candidate(case, name, demonstration, [], extra)
        return candidate, _read_action(field(case, "candidate", list))

    return read_case


def _verifier(name: str, threshold: float) -> Verifier:
    def verify(candidate: Candidate, action: Action) -> Verdict:
        """NeMo Gym's reward. Never raises on an action; raises InputError for an unknown configuration."""
        return _verify(candidate, action, threshold)

    return Verifier(name, "2", verify, _read_case(name))


# the thresholds of the released configurations for tool use and for search pivots
VERIFIERS = (_verifier("tool_call:nemo_gym", 0.1), _verifier("search:nemo_gym", 0.3))
