"""Why an assistant turn is no candidate: the slugs of Trajectory.skip, and the rules all sources share."""

from collections.abc import Iterable

from pivotrl_jax.records import Message

GREETING = "greeting"  # it answers nobody: no user has spoken yet
NO_ACTION = "no_action"  # it says and does nothing, or its format wants an action and it has none
UNPARSEABLE_CALL = "unparseable_call"  # its action cannot be read
CALL_ERROR = "call_error"  # the environment answered with an error
REPEATED = "repeated"  # the same action was demonstrated often enough
CONTEXT = "context"  # given to the policy, not demonstrated: an example, or a copy of an earlier episode

# A call whose arguments are no JSON object keeps its text under this key, and its turn is skipped.
UNPARSEABLE = "unparseable"


def plain_skips(messages: list[Message], turns: Iterable[int]) -> dict[int, str]:
    """The turns among `turns` that are no candidates whatever the source."""
    spoken = next((i for i, m in enumerate(messages) if m["role"] in ("user", "tool")), len(messages))
    skip = {}
    for i in turns:
        calls = messages[i].get("tool_calls") or []
        if i == 0 or (i < spoken and not calls):
            skip[i] = GREETING
        elif any(UNPARSEABLE in c["function"]["arguments"] for c in calls):
            skip[i] = UNPARSEABLE_CALL
        elif not calls and not messages[i]["content"].strip():
            skip[i] = NO_ACTION
    return skip
