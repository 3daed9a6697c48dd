"""Samples in the notation of demonstrations, so that the two can be compared.

A sample's text is parsed as the run parsed it, with the dialect that run.json names; what cannot be read
stays as it was sampled.
"""

import dataclasses

from pivotrl_jax.chat.actions import action_to_message, message_to_action
from pivotrl_jax.chat.dialects.base import Schemas, schemas_of
from pivotrl_jax.pivots.notation import Notation
from pivotrl_jax.records import Action, Call, Candidate, Rollout
from pivotrl_jax.report.page import message_text


@dataclasses.dataclass(frozen=True)
class Said:
    """What a sample says, in the notation of `message_text`."""

    text: str
    fault: str = ""  # what could not be read; the text is then the sample's own
    same: bool = False  # says and calls what the demonstration does, whatever it thinks before


class Reader:
    """Reads the samples of one candidate."""

    def __init__(self, notation: Notation, candidate: Candidate):
        self._notation, self._tools = notation, candidate.tools
        self._schemas: Schemas | None = None
        self._read: dict[str, Said] = {}  # by text, of those that are parsed from it
        self._gold = _called(candidate)

    def said(self, rollout: Rollout) -> Said:
        """What a sample of the candidate says."""
        if rollout.served:
            return self._said(rollout)
        if rollout.text not in self._read:
            self._read[rollout.text] = self._said(rollout)
        return self._read[rollout.text]

    def _said(self, rollout: Rollout) -> Said:
        action = self._action(rollout)
        if action.malformed:
            return Said(rollout.text, action.malformed)
        # arguments have no order: they are shown in the demonstration's
        calls = tuple(
            _in_order(call, self._gold.calls[i] if i < len(self._gold.calls) else None)
            for i, call in enumerate(action.calls)
        )
        text = message_text(action_to_message(dataclasses.replace(action, calls=calls)))
        same = (action.calls, action.content.strip()) == (self._gold.calls, self._gold.content.strip())
        return Said(text, same=same)

    def _action(self, rollout: Rollout) -> Action:
        if self._schemas is None:
            self._schemas = schemas_of(self._tools)
        return self._notation.action(rollout, self._tools, self._schemas)


def _called(candidate: Candidate) -> Action:
    action = message_to_action(candidate.demonstration)
    content = action.content if isinstance(action.content, str) else ""
    return dataclasses.replace(action, content=content)


def _in_order(call: Call, other: Call | None) -> Call:
    """A call with its arguments in the order of another's."""
    if other is None or not (isinstance(call.arguments, dict) and isinstance(other.arguments, dict)):
        return call
    names = [*(n for n in other.arguments if n in call.arguments), *call.arguments]
    return Call(call.name, {n: call.arguments[n] for n in dict.fromkeys(names)})
