"""One small document per format that `reading` knows, each about the same: a question, a call, an answer."""

import json
import random

from pivotrl_jax.trajectories import reading
from support import conversations

CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"command": "ls"}'},
}

OPENAI = {
    "id": "o",
    "reward": 1,
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "list"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "a.py"},
        {"role": "assistant", "content": "a.py", "weight": 0},
    ],
}

TAU = [
    {
        "task_id": 3,
        "trial": 1,
        "reward": 0.0,
        "info": {
            "task": {
                "user_id": "mia",
                "actions": [{"name": "cancel", "kwargs": {"id": 7}}],
                "instruction": "cancel 7",
            }
        },
        "traj": [
            {"role": "system", "content": "policy"},
            {"role": "user", "content": "cancel 7"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "t",
                        "type": "function",
                        "function": {"name": "cancel", "arguments": '{"id": 7'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "t", "name": "cancel", "content": "Error: no such order"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "well?"},
            {"role": "assistant", "content": "Sorry."},
        ],
    }
]

TAU2 = {
    "info": {
        "environment_info": {
            "domain_name": "telecom",
            "policy": "the policy",
            "tool_defs": {
                "cancel": {"name": "cancel", "doc": "Cancel.", "params": {"type": "object", "properties": {}}}
            },
        }
    },
    "tasks": [
        {
            "id": "7",
            "evaluation_criteria": {
                "actions": [
                    {
                        "action_id": "a",
                        "requestor": "assistant",
                        "name": "cancel",
                        "arguments": {"id": 7},
                        "compare_args": ["id"],
                    },
                    {"action_id": "b", "requestor": "user", "name": "reboot", "arguments": {}},
                ]
            },
        }
    ],
    "simulations": [
        {
            "id": "s",
            "task_id": "7",
            "trial": trial,
            "reward_info": {"reward": reward},
            "messages": [
                {"role": "assistant", "content": "Hi! How can I help you today?"},
                {"role": "user", "content": "cancel 7"},
                {
                    "role": "user",
                    "content": None,
                    "tool_calls": [{"id": "u", "name": "reboot", "arguments": {}, "requestor": "user"}],
                },
                {"role": "tool", "id": "u", "content": "ok", "requestor": "user", "error": False},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "t", "name": "cancel", "arguments": {"id": 7}}],
                },
                {"role": "tool", "id": "t", "content": "no", "requestor": "assistant", "error": True},
            ],
        }
        for trial, reward in ((0, 1.0), (1, 0.0))
    ],
}

SWE_CALLS = {
    "environment": "main",
    "trajectory": [],
    "info": {"exit_status": "submitted"},
    "history": [
        {"role": "system", "content": "tools", "agent": "main"},
        {"role": "user", "content": "fix", "agent": "main"},
        {
            "role": "assistant",
            "content": "look",
            "agent": "main",
            "tool_calls": "[{'function': {'arguments': '{\"command\": \"ls\"}', 'name': 'bash'}, 'id': 'x'}]",
        },
        {"role": "tool", "content": "a.py", "agent": "main", "tool_call_ids": ["x"]},
        {"role": "assistant", "content": "thinking aloud", "agent": "main"},
        {
            "role": "assistant",
            "content": "broken",
            "agent": "main",
            "tool_calls": "[{'function': __import__('os').getcwd()}]",
        },
    ],
}

SWE_FENCES = {
    "environment": "swe_main",
    "trajectory": [],
    "history": [
        {"role": "system", "content": "use fences"},
        {"role": "user", "content": "a demonstration", "is_demo": True},
        {"role": "assistant", "content": "demo\n```\nls\n```", "is_demo": True},
        {"role": "user", "content": "a.py", "is_demo": True},
        {"role": "user", "content": "fix"},
        {
            "role": "assistant",
            "content": "First,\n```\ncat a.py\n```\nthen\n```bash\nedit 1:2\nx\nend_of_edit\n```",
        },
        {"role": "user", "content": "Your proposed edit has introduced new syntax error(s)."},
        {"role": "assistant", "content": "no command"},
        {"role": "user", "content": "Your output was not formatted correctly"},
        {
            "role": "assistant",
            "content": "Done.\n```\nsubmit\n```",
            "thought": "Done.\n",
            "action": "submit\n",
        },
    ],
}

MINI = [
    {"role": "system", "content": "use fences"},
    {"role": "user", "content": "fix"},
    {"role": "assistant", "content": "See:\n\n```mswea_bash_command\nls -a\n```"},
    {"role": "user", "content": "<returncode>1</returncode>\n<output>\n</output>"},
    {"role": "assistant", "content": "```bash\na\n```\n```bash\nb\n```"},
    {"role": "user", "content": "exactly one, please"},
    {"role": "assistant", "content": "```bash\necho done\n```"},
    {"role": "user", "content": ""},
]

MINI2 = {
    "trajectory_format": "mini-swe-agent-1.1",
    "instance_id": "repo__1",
    "info": {"exit_status": "Submitted", "mini_version": "2.0"},
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "fix"},
        {
            "role": "assistant",
            "content": "look",
            "tool_calls": [CALL],
            "extra": {"actions": [{"command": "ls", "tool_call_id": "c1"}]},
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a.py", "extra": {"returncode": 2}},
        {"role": "exit", "content": "", "extra": {"exit_status": "Submitted", "submission": ""}},
    ],
}


def _metadata(id: str) -> dict:
    calls = [
        {"id": i, "type": "function", "function": {"name": "run", "arguments": json.dumps({"command": c})}}
        for i, c in (("a", "ls"), ("b", "cat x"))
    ]
    message = {"role": "assistant", "content": "both", "tool_calls": calls}
    response = {"id": "r1", "choices": [{"message": message}]}
    return {"function_name": "run", "tool_call_id": id, "model_response": response}


OPENHANDS = {
    "instance_id": "repo__2",
    "test_result": {"report": {"resolved": True}},
    "history": [
        {"id": 0, "source": "agent", "action": "system", "args": {"content": "sys", "tools": None}},
        {"id": 1, "source": "user", "action": "message", "args": {"content": "fix"}},
        {"id": 2, "source": "environment", "observation": "agent_state_changed", "content": ""},
        {
            "id": 3,
            "source": "agent",
            "action": "run",
            "args": {"command": "ls"},
            "tool_call_metadata": _metadata("a"),
        },
        {
            "id": 4,
            "source": "agent",
            "observation": "run",
            "cause": 3,
            "content": "x",
            "extras": {"metadata": {"exit_code": 0}},
        },
        {
            "id": 5,
            "source": "agent",
            "action": "run",
            "args": {"command": "cat x"},
            "tool_call_metadata": _metadata("b"),
        },
        {
            "id": 6,
            "source": "agent",
            "observation": "run",
            "cause": 5,
            "content": "no",
            "extras": {"metadata": {"exit_code": 1}},
        },
        {
            "id": 7,
            "source": "agent",
            "action": "run",
            "args": {"command": "pwd", "thought": "where?", "hidden": False, "timeout": None},
        },
        {"id": 8, "source": "agent", "observation": "error", "cause": 7, "content": "gone"},
        {"id": 9, "source": "agent", "action": "message", "args": {"content": "I give up"}},
    ],
}

ATIF = {
    "schema_version": "ATIF-v1.7",
    "session_id": "session",
    "agent": {
        "name": "terminus-2",
        "version": "2",
        "tool_definitions": [{"type": "function", "function": {"name": "bash_command", "parameters": {}}}],
    },
    "steps": [
        {"step_id": 1, "source": "user", "message": "old", "is_copied_context": True},
        {"step_id": 2, "source": "agent", "message": "old answer", "is_copied_context": True},
        {"step_id": 3, "source": "user", "message": [{"type": "text", "text": "list"}]},
        {
            "step_id": 4,
            "source": "agent",
            "message": "look",
            "reasoning_content": "hm",
            "tool_calls": [
                {"tool_call_id": "1", "function_name": "bash_command", "arguments": {"keystrokes": "ls\n"}},
                {"tool_call_id": "2", "function_name": "bash_command", "arguments": {"keystrokes": "pwd\n"}},
            ],
            "observation": {"results": [{"content": "a.py"}]},
        },
        {"step_id": 5, "source": "agent", "message": "", "observation": {"results": [{"content": "idle"}]}},
    ],
    "subagent_trajectories": [
        {
            "schema_version": "ATIF-v1.7",
            "trajectory_id": "sub",
            "agent": {"name": "browser", "version": "1"},
            "extra": {"reward": 0.5},
            "steps": [
                {"step_id": 1, "source": "user", "message": "find"},
                {
                    "step_id": 2,
                    "source": "agent",
                    "message": "",
                    "tool_calls": [
                        {"tool_call_id": "s", "function_name": "web_search", "arguments": {"query": "x"}}
                    ],
                },
            ],
        }
    ],
}


def typed(*keys: str, done: bool = False) -> str:
    """A Terminus-2 turn."""
    commands = [{"keystrokes": k, "duration": 0.1} for k in keys]
    return json.dumps({"analysis": "a", "plan": "p", "commands": commands, "task_complete": done})


TERMINUS = {
    "task": "list-files",
    "conversations": [
        {"role": "user", "content": "You are ... Task: list"},
        {"role": "assistant", "content": "<think>\nhm {x}\n</think>\n" + typed("ls\n")},
        {"role": "user", "content": "a.py"},
        {"role": "assistant", "content": typed("cat a.py\n", "\n")},
        {"role": "user", "content": "x = 1"},
        {"role": "assistant", "content": '{"commands": [{"keys": "oops"}]}'},
        {"role": "user", "content": "ERROR: fix your JSON"},
        {"role": "assistant", "content": typed()},
        {"role": "user", "content": "well?"},
        {"role": "assistant", "content": "I think " + typed("pwd\n")},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": typed(done=True)},
    ],
}

SAMPLES = {
    "openai": (OPENAI, "openai_chat"),
    "tau": (TAU, "tau_bench"),
    "tau2": (TAU2, "tau_bench"),
    "swe calls": (SWE_CALLS, "swe_agent"),
    "swe fences": (SWE_FENCES, "swe_agent"),
    "mini": (MINI, "mini_swe_agent"),
    "mini 2": (MINI2, "mini_swe_agent"),
    "openhands": (OPENHANDS, "openhands"),
    "atif": (ATIF, "atif"),
    "terminus": (TERMINUS, "terminus"),
}
for _name in ("anthropic", "claude_code", "codex", "openhands_v1", "inspect_log", "langchain"):
    _talk = conversations.conversation(random.Random(3))
    SAMPLES[_name] = (getattr(conversations, _name)(_talk), _name)


def read(tmp_path, value, name="data.json", **options):
    """Write `value` and read it."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return reading.read(path, **options)


def only(tmp_path, value, **options):
    (trajectory,), named = read(tmp_path, value, **options)
    assert named == {}
    return trajectory


def call(name, arguments, id):
    """A tool call in our form."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
