"""How a run's samples are written: the dialect of their calls, and whether they begin inside thinking."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from pivotrl_jax.chat import dialects, replies
from pivotrl_jax.chat.actions import END_THINK, THINK, parse_action
from pivotrl_jax.chat.dialects.base import Schemas
from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.records import Action, Rollout

_READ = 200  # rollouts that tell the dialect of a run that does not name it


@dataclasses.dataclass(frozen=True)
class Notation:
    """How a run's samples are parsed."""

    dialect: str
    opens_thinking: bool | None  # None: the run does not say, so each text is judged by itself

    def action(self, rollout: Rollout, tools: Sequence[dict], schemas: Schemas) -> Action:
        """What a sample does, as the run parsed it; `schemas` are those of `tools`."""
        reply = replies.message_of(rollout.served)
        if reply is not None:
            return replies.action_of(reply, tools)
        opens = self.opens_thinking
        if opens is None:  # a text that closes a think block which it never opened began inside one
            before, closes, _ = rollout.text.partition(END_THINK)
            opens = bool(closes) and THINK not in before
        return parse_action(rollout.text, opens, self.dialect, schemas)


def notation_of(run: dict, rollouts: Path) -> Notation:
    """That of a run; if its run.json does not name the dialect, the one in which most of its first rollouts
    call."""
    chat = run.get("chat")
    chat = chat if isinstance(chat, dict) else {}
    dialect, opens = chat.get("dialect"), chat.get("opens_thinking")
    if dialect not in dialects.DIALECTS:
        dialect = dialects.most_used(list(itertools.islice(_texts(rollouts), _READ)))
    return Notation(dialect, opens if isinstance(opens, bool) else None)


def _texts(folder: Path) -> Iterator[str]:
    return (r.text for file in sorted(folder.glob("*.jsonl")) for r in rollout_files.summaries(file))
