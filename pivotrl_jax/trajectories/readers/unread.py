"""What a reader does not read of a document: the fields with content that it does not know.

A reader says which fields it reads, and which fields of its format hold nothing that the model saw. Every
other field with content is named, once per file, so that nothing falls silently.
"""

from collections.abc import Iterable
from typing import Any

from pivotrl_jax.chat.reasoning import FIELDS as REASONING
from pivotrl_jax.trajectories.readers.weights import LABELS, WEIGHTS

MAX_NAME = 60  # characters of a name that are shown

# what logs keep beside what was said: ids, times, costs, versions
BOOKKEEPING = """
    id uuid name run_id trace_id request_id response_id session_id sessionId thread_id parent_id parent_run_id
    parentUuid index idx step step_id turn turn_idx trial seed
    timestamp timestamps time date created created_at updated_at start_time end_time started_at completed_at
    duration duration_ms elapsed elapsed_ms latency latency_ms total_time working_time
    usage cost total_cost metrics tokens token_usage model_usage model_stats llm_metrics final_metrics
    version schema_version format model model_name provider model_provider """

# what a false says something by
TELLING = (*WEIGHTS, *LABELS, "passed", "resolved", "is_resolved", "success", "reward")

# a message in the forms of OpenAI and Anthropic
MESSAGE = """
    role content type tool_calls tool_call_id tool_call_ids function_call refusal annotations is_error status
    cache_control stop_reason stop_sequence finish_reason provider_specific_fields """
MESSAGE += " ".join(REASONING)


def unread(values: Iterable[Any], read: str, of: str = "") -> tuple[str, ...]:
    """The names of the fields with content that are neither in `read` nor bookkeeping, sorted, each once.

    `values` are documents, or the messages, steps or events of one; what is no object is left out. `read`
    lists names, with blanks between them. `of` names the list that the values stand in: "steps" gives
    "steps.reward".
    """
    known = {*BOOKKEEPING.split(), *read.split()}
    found = {
        name
        for v in values
        if isinstance(v, dict)
        for name in v.keys() - known
        if _has_content(v[name]) or (v[name] is False and name in TELLING)
    }
    shown = {name[:MAX_NAME] for name in found}
    return tuple(sorted(f"{of}.{name}" if of else name for name in shown))


def _has_content(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [], {})
