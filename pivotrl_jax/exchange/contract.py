"""What NVIDIA NeMo Gym requires of a pivot row, and the YAML that routes rows to agents.

`validate` reimplements the rules of the validator that comes with NeMo Gym's pivot skill, of its request
model (unknown fields are refused) and of its checklist.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers import terminal_cases

# ---- the rules of a row

REQUEST_FIELDS = frozenset(
    "background include input instructions max_output_tokens max_tool_calls metadata model "
    "parallel_tool_calls previous_response_id prompt reasoning service_tier store temperature text "
    "tool_choice tools top_logprobs top_p truncation user stream".split()
)

HARNESSES = terminal_cases.TERMINUS


def validate(row: Any, agent: str | None = None) -> list[str]:
    """The faults of a row, one sentence each that begins with the field; [] if there are none.

    `agent`: the name that `agent_ref` must have.
    """
    if not isinstance(row, dict):
        return [f"the row is a {type(row).__name__}; want an object"]
    faults = _agent_faults(row.get("agent_ref"), agent)
    params = row.get("responses_create_params")
    if not isinstance(params, dict):
        return [*faults, f"responses_create_params is {_kind(params)}; want an object"]
    faults += _request_faults(params)
    if "expected_action" not in row and "expected_answer" in row:
        return faults + _terminus_faults(row)
    action_faults, called = _action_faults(row.get("expected_action"))
    faults += action_faults
    tools = params.get("tools")
    known = {_tool_name(tool) for tool in tools} if isinstance(tools, list) else set()
    faults += [
        f"expected_action calls {name!r}, which is not among responses_create_params.tools; add its doc"
        for name in sorted(set(called) - known)
    ]
    if len(called) > 1 and params.get("parallel_tool_calls") is False:
        faults.append("responses_create_params.parallel_tool_calls is false, but several calls are expected")
    return faults


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _agent_faults(reference: Any, agent: str | None) -> list[str]:
    if not isinstance(reference, dict):
        return [f"agent_ref is {_kind(reference)}; want an object with type and name"]
    faults = []
    if reference.get("type") != "responses_api_agents":
        faults.append(f'agent_ref.type is {reference.get("type")!r}; want "responses_api_agents"')
    name = reference.get("name")
    if not isinstance(name, str) or not name:
        faults.append(f"agent_ref.name is {name!r}; want the name of an agent block")
    elif agent is not None and name != agent:
        faults.append(f"agent_ref.name is {name!r}; want {agent!r}, as the configuration says")
    return faults


def _request_faults(params: dict) -> list[str]:
    faults = [
        f"responses_create_params.{key} is unknown; remove it" for key in sorted(set(params) - REQUEST_FIELDS)
    ]
    if "metadata" in params and params["metadata"] is None:
        faults.append("responses_create_params.metadata is null; leave it out")
    if "tool_choice" in params and params["tool_choice"] != "auto":
        faults.append(f'responses_create_params.tool_choice is {params["tool_choice"]!r}; want "auto"')
    if "parallel_tool_calls" in params and not isinstance(params["parallel_tool_calls"], bool):
        faults.append("responses_create_params.parallel_tool_calls is not a boolean; want true or false")
    tools = params.get("tools")
    if not isinstance(tools, list):
        faults.append(f"responses_create_params.tools is {_kind(tools)}; want a list")
    items = params.get("input")
    if not isinstance(items, list) or not items:
        return [
            *faults,
            "responses_create_params.input is not a non-empty list; want the state before the action",
        ]
    for i, item in enumerate(items):
        fault = _item_fault(item)
        faults += [f"responses_create_params.input[{i}]: {fault}"] if fault else []
    if isinstance(items[-1], dict) and items[-1].get("type") in ("function_call", "reasoning"):
        faults.append(f"responses_create_params.input ends on a {items[-1]['type']}; end it before the model")
    return faults


def _item_fault(item: Any) -> str:
    if not isinstance(item, dict):
        return f"a {type(item).__name__}; want an object"
    kind = item.get("type", "message")
    strings = {
        "message": (),
        "reasoning": ("id",),
        "function_call": ("name", "arguments", "call_id"),
        "function_call_output": ("call_id",),
    }.get(kind)
    if strings is None:
        return f"the type is {kind!r}; want message, reasoning, function_call or function_call_output"
    for name in strings:
        if not isinstance(item.get(name), str):
            return f"{name} is {_kind(item.get(name))}; want a string"
    if kind == "message" and item.get("role") not in ("system", "developer", "user", "assistant"):
        return f"the role is {item.get('role')!r}; want system, developer, user or assistant"
    content = {"message": "content", "function_call_output": "output", "reasoning": "summary"}.get(kind)
    if content and not isinstance(item.get(content), (str, list) if content != "summary" else list):
        return f"{content} is {_kind(item.get(content))}; want text or parts"
    return ""


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = tool.get("name") or (function.get("name") if isinstance(function, dict) else None)
    return name if isinstance(name, str) else None


def _action_faults(action: Any) -> tuple[list[str], list[str]]:
    """(faults of `expected_action`, the names it calls)."""
    if not isinstance(action, dict):
        return [f"expected_action is {_kind(action)}; want an object"], []
    kind = action.get("type")
    if kind == "message":
        good = isinstance(action.get("content"), str)
        return [] if good else ["expected_action.content is not text; want a string"], []
    if kind == "function_call":
        return _call_faults(action, "expected_action")
    if kind != "function_call_batch":
        want = "function_call, function_call_batch or message"
        return [f"expected_action.type is {kind!r}; want {want}"], []
    calls = action.get("calls")
    if not isinstance(calls, list) or len(calls) < 2:  # a response is never read as a batch of one
        return ["expected_action.calls holds fewer than two calls; want a function_call for one"], []
    results = [_call_faults(call, f"expected_action.calls[{i}]") for i, call in enumerate(calls)]
    return [f for faults, _ in results for f in faults], [name for _, names in results for name in names]


def _call_faults(call: Any, where: str) -> tuple[list[str], list[str]]:
    if not isinstance(call, dict) or call.get("type") != "function_call":
        return [f"{where} is not a function_call; want one"], []
    faults, name, arguments = [], call.get("name"), call.get("arguments")
    if not isinstance(name, str) or not name:
        faults.append(f"{where}.name is {name!r}; want the name of a tool")
    if not isinstance(arguments, str):
        faults.append(f"{where}.arguments is {_kind(arguments)}; want JSON in a string")
    elif not _is_object(arguments):
        faults.append(f"{where}.arguments is not a JSON object; want one in a string")
    return faults, [name] if isinstance(name, str) and name else []


def _is_object(text: Any) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def _terminus_faults(row: dict) -> list[str]:
    faults = []
    if not _is_object(row["expected_answer"]):
        faults.append("expected_answer is not a JSON object in a string; want the Terminus action")
    metadata = row.get("metadata")
    harness = metadata.get("harness") if isinstance(metadata, dict) else None
    if harness not in HARNESSES:
        faults.append(f"metadata.harness is {harness!r}; want one of {', '.join(HARNESSES)}")
    return faults


# ---- agents and their configuration

_STRINGS_ONLY = {
    "enable_string_similarity": True,
    "string_similarity_threshold": 0.9,
    "enable_llm_judge": False,
}


@dataclasses.dataclass(frozen=True)
class Agent:
    """A block of the YAML that rows are routed to, and the server that scores them."""

    name: str  # of the agent's block, as in agent_ref
    server: str  # NeMo Gym's resources server
    options: str  # what the server's block sets, as JSON

    @property
    def server_name(self) -> str:
        """The name of the server's block."""
        return f"{self.name.removesuffix('_agent')}_resources_server"


def server_of(candidate: Candidate) -> tuple[str, dict]:
    """(the server that scores like the candidate's verifier, its options). Our strict verifiers count calls,
    and no server scores exactly as they do, so this is the nearest."""
    name, _, mode = candidate.verifier.partition(":")
    config = candidate.case.get("config")
    config = config if isinstance(config, dict) else {}
    if name == "terminal" and terminal_cases.is_terminus(candidate):
        return "terminus_judge", {**_STRINGS_ONLY, **config}
    if name == "terminal":
        comparator = {"string_similarity_threshold": 0.9}
        return "terminal_multi_harness", {"tool_call_comparator_config": comparator, **config}
    if name == "swe":
        return "swe_pivot", config
    comparator = {"word_count_similarity_threshold": 0.3 if name == "search" else 0.1}
    if mode != "nemo_gym":
        comparator["parallel_tool_call_rewarding"] = True
    comparator |= config.get("tool_call_comparator_config") or {}
    return "single_step_tool_use_with_argument_comparison", {"tool_call_comparator_config": comparator}


def agents_of(candidates: Sequence[Candidate], prefix: str) -> list[Agent]:
    """The agent of every candidate: one per server and options. A server's second agent is number 2."""
    agents: dict[tuple[str, str], Agent] = {}
    out = []
    for candidate in candidates:
        server, options = server_of(candidate)
        key = server, json.dumps(options, sort_keys=True)
        if key not in agents:
            before = sum(other == server for other, _ in agents)
            number = f"_{before + 1}" if before else ""
            agents[key] = Agent(f"{prefix}_{server}{number}_agent", *key)
        out.append(agents[key])
    return out


def yaml_config(data: Iterable[tuple[Agent, str]]) -> str:
    """The configuration of agents and their servers; each agent trains on the rows in its file (path)."""
    blocks: dict[str, dict] = {}
    for agent, path in data:
        blocks[agent.server_name] = {
            "resources_servers": {
                agent.server: {
                    "entrypoint": "app.py",
                    "domain": "agent",
                    **json.loads(agent.options),
                    "verified": False,
                    "description": "Pivots exported by pivotrl_jax.",
                }
            }
        }
        kind = "simple_agent" if agent.server == "terminus_judge" else "tool_simulation_agent"
        blocks[agent.name] = {
            "responses_api_agents": {
                kind: {
                    "entrypoint": "app.py",
                    "resources_server": {"type": "resources_servers", "name": agent.server_name},
                    "model_server": {"type": "responses_api_models", "name": "policy_model"},
                    "datasets": [
                        {
                            "name": "train",
                            "type": "train",
                            "jsonl_fpath": path,
                            "num_repeats": 1,
                            "license": "TBD",
                        }
                    ],
                }
            }
        }
    return yaml.safe_dump(blocks, sort_keys=False, allow_unicode=True)
