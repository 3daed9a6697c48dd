"""Random conversations of an agent, and writers that put one into each format that a reader of ours reads."""

import dataclasses
import json
import random

PIECES = [
    "\n",
    " ",
    '"',
    "'",
    "{",
    "}",
    "<",
    "</think>",
    "```",
    "é",
    "雪",
    "\\",
    "attachment://",
    "a" * 40,
    "0",
]
NAMES = ["bash", "get_weather", "Edit", "web_search", "f"]


@dataclasses.dataclass
class Turn:
    """An assistant's turn; each call is (id, name, arguments, result, whether the call failed)."""

    text: str
    reasoning: str
    calls: list[tuple[str, str, dict, str, bool]]


@dataclasses.dataclass
class Conversation:
    """`turns` maps what the user said to the turns that followed."""

    system: str
    turns: list[tuple[str, list[Turn]]]


def text(rng: random.Random, tag: str) -> str:
    """A text that begins with `tag` and ends with a word."""
    return tag + "".join(rng.choice(PIECES) for _ in range(rng.randrange(6))) + "z"


def value(rng: random.Random, depth: int = 0):
    kinds = ["text", "int", "bool", "list", "dict"] if depth < 2 else ["text", "int", "bool"]
    kind = rng.choice(kinds)
    if kind == "text":
        return text(rng, "v")
    if kind == "list":
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == "dict":
        return {f"k{i}": value(rng, depth + 1) for i in range(rng.randrange(3))}
    return rng.randrange(-5, 99) if kind == "int" else rng.random() < 0.5


def conversation(rng: random.Random, shell: bool = False) -> Conversation:
    """With `shell`, every turn makes one call, of bash."""
    turns, number = [], 0
    for u in range(rng.randrange(1, 3)):
        answers = []
        for _ in range(rng.randrange(1, 4)):
            calls = []
            for _ in range(1 if shell else rng.choice([0, 1, 1, 2])):
                number += 1
                name = "bash" if shell else f"{rng.choice(NAMES)}_{number}"
                given = {"command": text(rng, f"ls{number}").replace("`", "'")} if shell else value(rng)
                given = given if isinstance(given, dict) else {"x": given}
                calls.append((f"id{number}", name, given, text(rng, "r"), rng.random() < 0.2))
            said = (
                text(rng, f"t{number}_{u}_{len(answers)}").replace("`", "'")
                if shell or rng.random() < 0.8
                else ""
            )
            said = said.replace("</think>", "</thin>")  # it would end a thought
            if not calls and not said:
                said = "t"
            answers.append(Turn(said, text(rng, "h") if rng.random() < 0.5 else "", calls))
            if not calls:
                break
        turns.append((text(rng, f"u{u}"), answers))
    return Conversation(text(rng, "s"), turns)


def told(
    conversation: Conversation, system: bool = True, reasoning: bool = True, errors: bool = True
) -> list:
    """What a reader must find: (role, text, calls, reasoning, error) of every message."""
    found: list = [("system", conversation.system)] if system else []
    for said, answers in conversation.turns:
        found.append(("user", said))
        for turn in answers:
            calls = [(name, given) for _, name, given, _, _ in turn.calls]
            found.append(("assistant", turn.text, calls, turn.reasoning if reasoning else ""))
            found += [("tool", result, failed and errors) for _, _, _, result, failed in turn.calls]
    return found


def read_back(messages: list[dict]) -> list:
    """The messages of a trajectory in the form of `told`."""
    found: list = []
    for m in messages:
        if m["role"] == "assistant":
            calls = [(c["function"]["name"], c["function"]["arguments"]) for c in m.get("tool_calls", ())]
            found.append(("assistant", m["content"], calls, m.get("reasoning_content", "")))
        elif m["role"] == "tool":
            found.append(("tool", m["content"], m.get("error", False)))
        else:
            found.append((m["role"], m["content"]))
    return found


# ---- writers: a conversation as a document of a format


def anthropic(c: Conversation):
    messages = []
    for said, answers in c.turns:
        messages.append({"role": "user", "content": said})
        for turn in answers:
            messages.append({"role": "assistant", "content": _blocks(turn)})
            if turn.calls:
                messages.append({"role": "user", "content": _results(turn)})
    return {"system": [{"type": "text", "text": c.system}], "messages": messages}


def _blocks(turn: Turn) -> list[dict]:
    blocks = [{"type": "thinking", "thinking": turn.reasoning, "signature": "x"}] if turn.reasoning else []
    blocks += [{"type": "text", "text": turn.text}] if turn.text else []
    return blocks + [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a, _, _ in turn.calls]


def _results(turn: Turn) -> list[dict]:
    return [
        {"type": "tool_result", "tool_use_id": i, "content": [{"type": "text", "text": r}], "is_error": e}
        for i, _, _, r, e in turn.calls
    ]


def claude_code(c: Conversation):
    lines: list[dict] = [{"type": "summary", "summary": "x", "leafUuid": "n1"}]

    def add(kind: str, message: dict) -> None:
        uuid, parent = f"n{len(lines)}", f"n{len(lines) - 1}" if len(lines) > 1 else None
        line = {"type": kind, "uuid": uuid, "parentUuid": parent, "sessionId": "s", "isSidechain": False}
        lines.append({**line, "message": message})

    number = 0
    for said, answers in c.turns:
        add("user", {"role": "user", "content": said})
        for turn in answers:
            number += 1
            for block in _blocks(turn):
                add("assistant", {"id": f"m{number}", "role": "assistant", "content": [block]})
            for result in _results(turn):
                add("user", {"role": "user", "content": [result]})
    return lines


def codex(c: Conversation):
    lines = [{"type": "session_meta", "payload": {"id": "s", "base_instructions": {"text": c.system}}}]

    def add(**item) -> None:
        lines.append({"type": "response_item", "payload": item})

    for said, answers in c.turns:
        add(type="message", role="user", content=[{"type": "input_text", "text": said}])
        for turn in answers:
            if turn.reasoning:
                add(type="reasoning", summary=[{"type": "summary_text", "text": turn.reasoning}])
            if turn.text:
                add(type="message", role="assistant", content=[{"type": "output_text", "text": turn.text}])
            for i, n, a, _, _ in turn.calls:
                add(type="function_call", name=n, arguments=json.dumps(a), call_id=i)
            for i, _, _, r, _ in turn.calls:
                add(type="function_call_output", call_id=i, output=r)
            lines.append({"type": "event_msg", "payload": {"type": "token_count"}})
    return lines


def openhands_v1(c: Conversation):
    events = [{"kind": "SystemPromptEvent", "system_prompt": {"type": "text", "text": c.system}, "tools": []}]
    number = 0
    for said, answers in c.turns:
        message = {"role": "user", "content": [{"type": "text", "text": said}]}
        events.append({"kind": "MessageEvent", "llm_message": message})
        for turn in answers:
            number += 1
            if not turn.calls:
                message = {"role": "assistant", "content": [{"type": "text", "text": turn.text}]}
                message["reasoning_content"] = turn.reasoning
                events.append({"kind": "MessageEvent", "llm_message": message})
            for k, (i, n, a, _, _) in enumerate(turn.calls):
                thought = [{"type": "text", "text": turn.text}] if turn.text and not k else []
                call = {"id": i, "name": n, "arguments": json.dumps(a)}
                event = {"kind": "ActionEvent", "thought": thought, "tool_call": call, "tool_name": n}
                event["reasoning_content"] = turn.reasoning if not k else None
                events.append({**event, "tool_call_id": i, "llm_response_id": f"r{number}"})
            for i, _, _, r, e in turn.calls:
                seen = {"content": [{"type": "text", "text": r}], "is_error": e}
                events.append({"kind": "ObservationEvent", "tool_call_id": i, "observation": seen})
    return [{"id": str(i), "source": "agent", **event} for i, event in enumerate(events)]


def inspect_log(c: Conversation):
    messages = [{"role": "system", "content": c.system}]
    for said, answers in c.turns:
        messages.append({"role": "user", "content": said})
        for turn in answers:
            content = [{"type": "reasoning", "reasoning": turn.reasoning}] if turn.reasoning else []
            content += [{"type": "text", "text": turn.text}] if turn.text else []
            calls = [{"id": i, "function": n, "arguments": a} for i, n, a, _, _ in turn.calls]
            messages.append({"role": "assistant", "content": content, "tool_calls": calls})
            for i, _, _, r, e in turn.calls:
                error = {"type": "unknown", "message": r} if e else None
                content = "" if e else r
                messages.append({"role": "tool", "tool_call_id": i, "content": content, "error": error})
    return {"eval": {"task": "t"}, "samples": [{"id": 1, "epoch": 1, "messages": messages}]}


def langchain(c: Conversation):
    messages = [{"type": "system", "data": {"content": c.system}}]
    for said, answers in c.turns:
        messages.append({"type": "human", "data": {"content": said}})
        for turn in answers:
            calls = [{"name": n, "args": a, "id": i, "type": "tool_call"} for i, n, a, _, _ in turn.calls]
            extra = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
            data = {"content": turn.text, "tool_calls": calls, "additional_kwargs": extra}
            messages.append({"type": "ai", "data": data})
            for i, _, _, r, e in turn.calls:
                status = "error" if e else "success"
                messages.append({"type": "tool", "data": {"content": r, "tool_call_id": i, "status": status}})
    return {"messages": messages}


def tau2(c: Conversation):
    messages = []
    for said, answers in c.turns:
        messages.append({"role": "user", "content": said})
        for turn in answers:
            calls = [{"id": i, "name": n, "arguments": a} for i, n, a, _, _ in turn.calls]
            messages.append({"role": "assistant", "content": turn.text, "tool_calls": calls or None})
            messages += [{"role": "tool", "id": i, "content": r, "error": e} for i, _, _, r, e in turn.calls]
    world = {"environment_info": {"domain_name": "d", "policy": c.system}}
    return {"info": world, "tasks": [{"id": "1"}], "simulations": [{"task_id": "1", "messages": messages}]}


def atif(c: Conversation):
    steps = [{"source": "system", "message": c.system}]
    for said, answers in c.turns:
        steps.append({"source": "user", "message": said})
        for turn in answers:
            step = {"source": "agent", "message": turn.text, "reasoning_content": turn.reasoning or None}
            step["tool_calls"] = [
                {"tool_call_id": i, "function_name": n, "arguments": a} for i, n, a, _, _ in turn.calls
            ]
            results = [
                {"source_call_id": i, "content": r, "extra": {"is_error": e}} for i, _, _, r, e in turn.calls
            ]
            steps.append({**step, "observation": {"results": results}} if results else step)
    return {"schema_version": "ATIF-v1.7", "agent": {"name": "a"}, "steps": steps}


def openhands(c: Conversation):
    events = [{"source": "agent", "action": "system", "args": {"content": c.system}}]
    for said, answers in c.turns:
        events.append({"source": "user", "action": "message", "args": {"content": said}})
        for number, turn in enumerate(answers):
            calls = [
                {"id": i, "function": {"name": n, "arguments": json.dumps(a)}} for i, n, a, _, _ in turn.calls
            ]
            message = {"content": turn.text, "reasoning_content": turn.reasoning or None, "tool_calls": calls}
            response = {"id": f"r{len(events)}_{number}", "choices": [{"message": message}]}
            if not turn.calls:
                meta = {"tool_call_metadata": {"model_response": response}}
                events.append(
                    {"source": "agent", "action": "message", "args": {"content": turn.text}, **meta}
                )
            for i, n, a, r, e in turn.calls:
                meta = {
                    "tool_call_metadata": {"tool_call_id": i, "function_name": n, "model_response": response}
                }
                id = len(events)
                events.append({"id": id, "source": "agent", "action": "run", "args": a, **meta})
                kind = "error" if e else "run"
                events.append({"source": "agent", "observation": kind, "cause": id, "content": r})
    return {"history": [{"id": i, **event} for i, event in enumerate(events)]}


def _mini(c: Conversation, answer, result):
    messages = [{"role": "system", "content": c.system}]
    for said, answers in c.turns:
        messages += [{"role": "user", "content": said}]
        for turn in answers:
            messages += [answer(turn), *map(result, turn.calls)]
    return {"trajectory_format": "mini-swe-agent-1.1", "info": {"mini_version": "2"}, "messages": messages}


def _exception(call) -> dict:
    return {"returncode": -1 if call[4] else 1, "exception_info": "killed" if call[4] else ""}


def mini_fence(c: Conversation):
    return _mini(
        c,
        lambda t: {
            "role": "assistant",
            "content": f"{t.text}\n\n```mswea_bash_command\n{t.calls[0][2]['command']}\n```",
            "reasoning_content": t.reasoning,
        },
        lambda call: {"role": "user", "content": call[3], "extra": _exception(call)},
    )


def mini_xml(c: Conversation):
    return _mini(
        c,
        lambda t: {
            "role": "assistant",
            "content": f"{t.text}\n<mswea_bash_command>{t.calls[0][2]['command']}</mswea_bash_command>",
            "reasoning_content": t.reasoning,
        },
        lambda call: {"role": "user", "content": call[3], "extra": _exception(call)},
    )


def mini_native(c: Conversation):
    def answer(t: Turn) -> dict:
        calls = [{"id": i, "function": {"name": n, "arguments": json.dumps(a)}} for i, n, a, _, _ in t.calls]
        return {"role": "assistant", "content": t.text, "reasoning": t.reasoning, "tool_calls": calls}

    return _mini(
        c,
        answer,
        lambda call: {"role": "tool", "tool_call_id": call[0], "content": call[3], "extra": _exception(call)},
    )


def mini_responses(c: Conversation):
    def answer(t: Turn) -> dict:
        items = [{"type": "reasoning", "summary": [{"text": t.reasoning}]}] if t.reasoning else []
        items += [{"type": "message", "content": [{"type": "output_text", "text": t.text}]}]
        items += [
            {"type": "function_call", "name": n, "arguments": json.dumps(a), "call_id": i}
            for i, n, a, _, _ in t.calls
        ]
        return {"object": "response", "output": items}

    def result(call) -> dict:
        return {
            "type": "function_call_output",
            "call_id": call[0],
            "output": call[3],
            "extra": _exception(call),
        }

    return _mini(c, answer, result)


def swe_calls(c: Conversation):
    history = [{"role": "system", "content": c.system}]
    for said, answers in c.turns:
        history.append({"role": "user", "content": said})
        for t in answers:
            calls = [
                {"id": i, "function": {"name": n, "arguments": json.dumps(a)}} for i, n, a, _, _ in t.calls
            ]
            blocks = [{"type": "thinking", "thinking": t.reasoning}] if t.reasoning else []
            history.append(
                {"role": "assistant", "content": t.text, "tool_calls": calls, "thinking_blocks": blocks}
            )
            history += [{"role": "tool", "content": r, "tool_call_ids": [i]} for i, _, _, r, _ in t.calls]
    return {"history": history, "info": {}}


def swe_fences(c: Conversation):
    history = [{"role": "system", "content": c.system}]
    for said, answers in c.turns:
        history.append({"role": "user", "content": said})
        for t in answers:
            content = f"{t.text}\n```\n{t.calls[0][2]['command']}\n```"
            history.append({"role": "assistant", "content": content})
            history.append({"role": "user", "content": t.calls[0][3]})
    return {"history": history, "trajectory": []}
