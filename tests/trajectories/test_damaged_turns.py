"""Trajectories as pipelines damage them: results lost or told twice, calls in pieces, copies."""

import json

import pytest

from pivotrl_jax.trajectories.readers import anthropic, claude_code, langchain, openai_chat, tau_bench

ASK = {"role": "user", "content": "go"}
DONE = {"role": "assistant", "content": "Done."}
SAY = {"role": "assistant", "content": "One moment."}


def call(id, **arguments):
    function = {"name": f"f_{id}", "arguments": json.dumps(arguments)}
    return {"id": id, "type": "function", "function": function}


def does(*ids, **more):
    return {"role": "assistant", "content": "", "tool_calls": [call(id) for id in ids], **more}


def result(id, **more):
    return {"role": "tool", "tool_call_id": id, "content": f"r_{id}", **more}


def shape(trajectory):
    """Who speaks or which calls and results stand where: "user", "ab" for two calls, "=a:x" for a result."""
    names = []
    for message in trajectory.messages:
        calls = "".join(c["function"]["name"][2:] for c in message.get("tool_calls") or ())
        answer = message["role"] == "tool" and f"={message['name'][2:]}:{message['content'][2:]}"
        names.append(calls or answer or message["role"])
    return names


def read(*messages, **row):
    return openai_chat.trajectory({"messages": [ASK, *messages], **row}, "rows.jsonl:1")


# ---- results


@pytest.mark.parametrize(
    "messages, shown, skip",
    [
        ([does("a"), DONE], ["user", "a", "assistant"], {2: "result_missing"}),
        ([does("a", "b"), result("a"), DONE], ["user", "ab", "=a:a", "assistant"], {3: "result_missing"}),
        # not a parallel action: every other call has its result before the next
        (
            [does("a"), does("b"), result("b"), DONE],
            ["user", "a", "b", "=b:b", "assistant"],
            {2: "result_missing", 4: "result_missing"},
        ),
        (
            [does("a"), does("b"), result("b"), result("a"), DONE],
            ["user", "ab", "=b:b", "=a:a", "assistant"],
            {},
        ),
        ([does("a"), does("b")], ["user", "ab"], {}),
        ([does("a"), ASK, does("b")], ["user", "a", "user", "b"], {}),
        ([does("a"), SAY, result("a"), DONE], ["user", "a", "=a:a", "assistant"], {}),
    ],
)
def test_a_state_without_a_result_is_none_that_the_agent_saw(messages, shown, skip):
    t = read(*messages)
    assert shape(t) == shown and t.skip == skip


def test_one_result_without_an_id_may_answer_several_calls():
    both = {"role": "tool_call", "content": '[{"name": "f_a", "arguments": {}}, {"name": "f_b"}]'}
    assert read(both, {"role": "tool_response", "content": "r_x"}, DONE).skip == {}


def test_a_call_that_nobody_could_run_has_no_result():
    bad = does("a")
    bad["tool_calls"][0]["function"]["arguments"] = '{"x": '
    assert read(bad, DONE).skip == {1: "unparseable_call"}


def test_words_before_the_results_belong_to_the_calls():
    assert read(does("a"), SAY, result("a"), DONE).messages[1]["content"] == "One moment."


@pytest.mark.parametrize("key", ["id", "call_id", "toolCallId", "tool_use_id", "callId", "toolUseId"])
def test_a_result_names_its_call_under_any_name(key):
    results = [{"role": "tool", key: id, "content": f"r_{id}"} for id in "ba"]
    t = read(does("a", "b"), *results, DONE)
    assert shape(t) == ["user", "ab", "=b:b", "=a:a", "assistant"] and t.unused == ()


def test_an_id_of_the_message_itself_is_no_name_of_a_call():
    results = [{"role": "tool", "id": f"msg_{id}", "content": f"r_{id}"} for id in "ab"]
    assert shape(read(does("a", "b"), *results)) == ["user", "ab", "=a:a", "=b:b"]


def test_a_result_of_several_calls_is_as_many():
    both = {"role": "tool", "tool_call_ids": ["b", "a"], "content": ["r_b", "r_a"]}
    assert shape(read(does("a", "b"), both)) == ["user", "ab", "=b:b", "=a:a"]


# ---- copies and contradictions


def test_a_message_that_stands_there_twice_counts_once():
    assert shape(read(does("a"), does("a"), result("a"), DONE, DONE)) == ["user", "a", "=a:a", "assistant"]
    nameless = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f_roll"}}]}
    assert shape(read(nameless, nameless)) == ["user", "rollroll"]


WRITTEN = '<tool_call>\n{"name": "f_a", "arguments": {"x": 1}}\n</tool_call>'


def test_a_text_that_makes_another_call_costs_its_turn():
    same = {**does(), "content": f"So. {WRITTEN}", "tool_calls": [call("a", x=1, y=None)]}
    assert (read(same).messages[1]["content"], read(same).skip) == ("So.", {})
    assert read({**same, "tool_calls": [call("a", x=2)]}, result("a"), DONE).skip == {1: "unparseable_call"}


def test_the_calls_of_a_text_are_told_once_by_anthropic_too():
    def row(**arguments):
        use = {"type": "tool_use", "id": "a", "name": "f_a", "input": arguments}
        return {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": WRITTEN}, use]}]}

    t = anthropic.trajectory(row(x=1), "rows.jsonl:1")
    assert t.messages[1]["content"] == "" and t.skip == {}
    other = row(x=2)
    other["messages"] = [*row(x=1)["messages"], ASK, *other["messages"][1:]]
    assert anthropic.trajectory(other, "rows.jsonl:1").skip == {3: "unparseable_call"}


def test_outcomes_that_contradict_each_other_are_named():
    assert read(DONE, reward=0, success=True).unused == ("success",)
    assert read(DONE, reward=0.5, success=True, resolved=None).unused == ()


# ---- the same in other sources


def tool_use(*ids):
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": i, "name": f"f_{i}", "input": {}} for i in ids],
    }


def tool_results(*ids):
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": i, "content": f"r_{i}"} for i in ids],
    }


@pytest.mark.parametrize(
    "messages, shown, skip",
    [
        ([tool_use("a"), DONE], ["user", "a", "assistant"], {2: "result_missing"}),
        (
            [tool_use("a"), tool_use("b"), tool_results("a", "b"), DONE],
            ["user", "ab", "=a:a", "=b:b", "assistant"],
            {},
        ),
        (
            [tool_use("a"), tool_use("b"), tool_results("b"), DONE],
            ["user", "a", "b", "=b:b", "assistant"],
            {2: "result_missing", 4: "result_missing"},
        ),
        (
            [tool_use("a"), tool_results("a", "a"), DONE],
            ["user", "a", "=a:a", "user", "assistant"],
            {4: "result_without_call"},
        ),
        ([tool_use("a"), tool_results("a"), DONE, DONE], ["user", "a", "=a:a", "assistant"], {}),
    ],
)
def test_damage_in_anthropics_messages(messages, shown, skip):
    t = anthropic.trajectory({"messages": [ASK, *messages]}, "rows.jsonl:1")
    assert shape(t) == shown and t.skip == skip


def test_copies_and_words_between_in_tau_bench():
    task = {"user_id": "u", "actions": []}
    turns = [ASK, does("a"), does("a"), SAY, result("a"), DONE, DONE]
    episode = {"task_id": 0, "trial": 0, "reward": 1.0, "info": {"task": task}, "traj": turns}
    assert shape(tau_bench.trajectory(episode, "tau.json:1")) == ["user", "a", "=a:a", "assistant"]


def test_two_messages_of_claude_code_that_call_are_no_parallel_calls_without_both_results():
    def line(role, content, id):
        message = {"role": role, "content": content, "id": id}
        return {"type": role, "uuid": id, "sessionId": "s", "message": message}

    lines = [
        line("user", "go", "0"),
        *(line("assistant", tool_use(i)["content"], f"msg_{i}") for i in "ab"),
        line("user", tool_results("b")["content"], "3"),
    ]
    t = claude_code.trajectory({"lines": lines, "name": "s", "cut": None}, "s.jsonl")
    assert shape(t) == ["user", "a", "b", "=b:b"] and t.skip == {2: "result_missing"}


# ---- several answers to one request


def ai(text):
    return {"text": text, "message": {"type": "ai", "data": {"content": text}}}


@pytest.mark.parametrize("more", [[], [ai("Or not.")]])
def test_other_answers_of_a_langchain_run_are_named(more):
    human = {"type": "human", "data": {"content": "go"}}
    run = {"inputs": {"messages": [[human]]}, "outputs": {"generations": [[ai("Done."), *more]]}}
    t = langchain.trajectory(run, "runs.jsonl:1")
    assert t.messages[1]["content"] == "Done."
    assert t.unused == (("generations after the first",) if more else ())


@pytest.mark.parametrize("more", [[], [{"content": {"role": "model", "parts": [{"text": "Or not."}]}}]])
def test_other_candidates_of_gemini_are_named(more):
    first = {"content": {"role": "model", "parts": [{"text": "Done."}]}}
    row = {
        "request": {"contents": [{"role": "user", "parts": [{"text": "go"}]}]},
        "response": {"candidates": [first, *more]},
    }
    assert openai_chat.trajectory(row, "rows.jsonl:1").unused == (
        ("candidates after the first",) if more else ()
    )


# ---- thinking between words, and answers that ended before their end

HERMES = '<tool_call>\n{"name": "f_a", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    "content, thought, words",
    [
        ("Sure.\n<think>\nhm\n</think>\nDone.", "hm", "Sure.\nDone."),
        ("<think>a</think>So.\n<thinking>\nb\n</thinking>\nDone.", "a\nb", "So.\nDone."),
        ("<THINK>hm</THINK>Done.", "hm", "Done."),
        ("<think>\r\nhm\r\n</think>\r\n\r\nDone.", "hm", "Done."),
        ("Write <think> and </think> around it.", None, "Write <think> and </think> around it."),
        ("So:\n```\n<think>\nhm\n</think>\n```", None, "So:\n```\n<think>\nhm\n</think>\n```"),
    ],
)
def test_thinking_between_words_is_no_talk(content, thought, words):
    message = read({"role": "assistant", "content": content}).messages[1]
    assert (message.get("reasoning_content"), message["content"]) == (thought, words)


def test_thinking_before_a_call_in_the_text_and_calls_in_thinking():
    thinks = {"role": "assistant", "content": f"Sure.\n<think>\nhm\n</think>\n{HERMES}"}
    t = read(thinks)
    assert (t.messages[1]["reasoning_content"], t.messages[1]["content"], t.skip) == ("hm", "Sure.", {})
    only_thought = {"role": "assistant", "content": f"Sure.\n<think>\n{HERMES}\n</think>\nDone."}
    assert read(only_thought, ASK, thinks).skip == {1: "unparseable_call"}


def test_what_a_call_passes_is_no_thinking():
    text = "<think>\nhm\n</think>\nx"
    body = f"<function=f_a>\n<parameter=x>\n{text}\n</parameter>\n</function>"
    t = read({"role": "assistant", "content": f"<tool_call>\n{body}\n</tool_call>"})
    assert t.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": text}
    typed = f"<response><commands><keystrokes>cat > a\n{text}\n</keystrokes></commands></response>"
    assert read(DONE, ASK, {"role": "assistant", "content": typed}).messages[3]["content"] == typed


def test_an_answer_that_thinks_to_its_end_is_cut():
    assert read(DONE, ASK, {"role": "assistant", "content": "Sure.\n<think>hm"}).skip == {3: "cut"}


@pytest.mark.parametrize(
    "end, skip",
    [("content_filter", "cut"), ("SAFETY", "cut"), ("abort", "cut"), ("error", "cut"), ("stop", "")],
)
def test_an_answer_that_a_filter_or_a_failure_ended_is_cut(end, skip):
    t = read(response={"choices": [{"finish_reason": end, "message": DONE}]})
    assert t.skip == ({1: skip} if skip else {})
