"""Random pivot rows as NeMo Gym's sets have them, whole and damaged, from a seed."""

import copy
import json
import random

WORDS = (
    *("", " ", "Oslo", "two words", "a\n\nb", "é\t", "<think>", "</think>", "<tool_call>", "null", "{}"),
    *('{"a": 1}', "rm -rf /", "\ud83d\ude00", "x" * 50),
)
NAMES = ("f", "g.h", "get_order", "bash")
KEYS = ("city", "id", "limit", "note", "enum", "default", "type")
AGENTS = (
    *("a_single_step_tool_use_with_argument_comparison_agent", "swe_pivot_tool_simulation_agent"),
    *("search_pivot_agent", "single_step_tool_use_with_argument_comparison_swe", "math_agent", ""),
    *("toolcall_schema_single_step_tool_use_with_argument_comparison_agent", "swe_agents_train"),
    *("terminus_judge_string_only_simple_agent", "terminal_multi_harness_codex_agent", "parallel_tool_calls"),
)


def scalar(r: random.Random):
    return r.choice(
        [
            None,
            True,
            False,
            0,
            1,
            -3,
            1.5,
            float("nan"),
            float("inf"),
            10**20,
            r.choice(WORDS),
            r.choice(WORDS),
        ]
    )


def value(r: random.Random, depth: int = 3):
    kind = r.random()
    if depth <= 0 or kind < 0.6:
        return scalar(r)
    if kind < 0.75:
        return [value(r, depth - 1) for _ in range(r.randrange(4))]
    return {r.choice(KEYS): value(r, depth - 1) for _ in range(r.randrange(4))}


def finite(v):
    """`value` without what strict JSON has not."""
    if isinstance(v, dict):
        return {k: finite(x) for k, x in v.items()}
    if isinstance(v, list):
        return [finite(x) for x in v]
    return 0.5 if isinstance(v, float) and (v != v or v in (float("inf"), float("-inf"))) else v


def arguments(r: random.Random) -> dict:
    return {k: finite(value(r, 2)) for k in r.sample(KEYS, r.randrange(4))}


def call(r: random.Random, i: int = 0) -> dict:
    made = arguments(r)
    return {
        "type": "function_call",
        "name": r.choice(NAMES),
        "arguments": json.dumps(made) if r.random() < 0.8 else made,
        "call_id": f"c{i}",
    }


def text_content(r: random.Random, kind: str):
    text = r.choice(WORDS)
    return r.choice([text, [{"type": kind, "text": text}], [{"type": kind, "text": text, "annotations": []}]])


def history(r: random.Random) -> list[dict]:
    items = [{"role": "system", "content": r.choice(WORDS)}] if r.random() < 0.5 else []
    number = 0
    for _ in range(r.randrange(1, 4)):
        items.append({"role": "user", "content": text_content(r, "input_text"), "type": "message"})
        for _ in range(r.randrange(3)):
            if r.random() < 0.5:
                thought = [{"type": "summary_text", "text": r.choice(WORDS)}]
                items.append({"type": "reasoning", "id": "r", "summary": thought})
            calls = [call(r, number + i) for i in range(r.choice([0, 1, 1, 2]))]
            number += len(calls)
            if not calls or r.random() < 0.3:
                content = text_content(r, "output_text")
                items.append({"role": "assistant", "content": content, "type": "message"})
            items += calls
            items += [
                {"type": "function_call_output", "call_id": c["call_id"], "output": r.choice(WORDS)}
                for c in calls
            ]
    items.append({"role": "user", "content": "and now?"})
    return items


def tools(r: random.Random) -> list[dict]:
    docs = []
    for name in r.sample(NAMES, r.randrange(5)):
        properties = {k: r.choice([{"type": "string"}, {}, None]) for k in r.sample(KEYS, r.randrange(4))}
        doc = {"name": name, "parameters": {"type": "object", "properties": properties}, "strict": True}
        form = r.random()
        docs.append({"type": "function", "function": doc} if form < 0.3 else {"type": "function", **doc})
    return docs


def terminus(r: random.Random) -> str:
    made = [{"keystrokes": r.choice(WORDS), "duration": 0.1} for _ in range(r.randrange(3))]
    return json.dumps({"analysis": "a", "plan": "p", "commands": made, "task_complete": r.random() < 0.2})


def row(r: random.Random) -> dict:
    """A whole row of one of the servers."""
    request = {"input": history(r), "tools": tools(r), "parallel_tool_calls": r.random() < 0.5}
    out = {
        "responses_create_params": request,
        "agent_ref": {"type": "responses_api_agents", "name": r.choice(AGENTS)},
    }
    kind = r.random()
    if kind < 0.35:
        out["expected_action"] = call(r)
    elif kind < 0.5:
        calls = [call(r, i) for i in range(r.randrange(1, 4))]
        out["expected_action"] = {"type": "function_call_batch", "calls": calls}
    elif kind < 0.7:
        out["expected_action"] = {"type": "message", "content": text_content(r, "output_text")}
    elif kind < 0.8:
        out["expected_answers"] = [
            {"name": c["name"], "arguments": c["arguments"]} for c in [call(r), call(r)]
        ]
    elif kind < 0.95:
        out |= {"expected_answer": terminus(r), "metadata": {"harness": "terminus_2", "task_name": "t"}}
    if "expected_action" in out and r.random() < 0.15:
        out |= {"harness": r.choice(["codex", "opencode", "x"]), "declared_tools": tools(r)}
    for name, made in (
        ("pass_rate", r.choice([0.25, 1, 0, 1.5, "x", float("nan")])),
        ("pass_rate_total", 16),
        ("pass_rate_passed", r.choice([3, -1, 20, 2.5])),
        ("qwen_235b_info", {"rewards": [0, 1], "reward_mean": r.choice([0.5, None, "x"])}),
        ("trajectory_id", r.choice([7, "t", None, True])),
        ("scenario", r.choice([None, "s", 3])),
        ("uuid", r.choice(["u-1", 3, None, ""])),
        ("threshold", r.choice([0.5, "x", None])),
        ("config", r.choice([{"threshold": 0.5}, {}, "x", None])),
    ):
        if r.random() < 0.3:
            out[name] = made
    return out


def damaged(r: random.Random, whole: dict) -> dict:
    """A copy with one to three places replaced, dropped, or filled with the keys of another object."""
    out = copy.deepcopy(whole)
    for _ in range(r.randrange(1, 4)):
        places: list = [(out, k) for k in out]
        for holder, key in places:
            inner = holder[key]
            if isinstance(inner, dict):
                places += [(inner, k) for k in inner]
            elif isinstance(inner, list):
                places += [(inner, i) for i in range(len(inner))]
        if not places:
            break
        holder, key = r.choice(places)
        way = r.random()
        if way < 0.5:
            holder[key] = value(r)
        elif way < 0.75 and isinstance(holder, dict):
            del holder[key]
        elif isinstance(holder, dict):  # as Arrow does
            holder |= {
                k: None for k in ("name", "arguments", "content", "calls", "summary") if k not in holder
            }
    return out
