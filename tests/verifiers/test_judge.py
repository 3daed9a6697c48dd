"""A judge over a real connection: what it is asked, what it says, what is kept, and who may use it."""

import dataclasses
import json
import subprocess
import sys

import pytest
from support import endpoint
from support.endpoint import KEY, OTHER, SAME, TEMPLATES, ask, question, rewards, serve
from support.paths import ROOT

from pivotrl_jax import verifiers
from pivotrl_jax.records import InputError, Question, Verdict
from pivotrl_jax.verifiers import judge, judge_templates
from pivotrl_jax.verifiers.judge import Judge, resolve_with_judge

CONFORMANCE = ROOT.parent / "shared/data/conformance/nemo_gym"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    endpoint.quick(monkeypatch)


# ---- what is asked, and what a reply says


def test_a_request_holds_the_model_the_prompt_and_temperature_0():
    with serve(lambda n, prompt: SAME) as (heard, url):
        (verdict,) = ask(url, [question(7, "terminal")])
    (request,) = heard.requests
    assert (request["model"], request["temperature"]) == ("m", 0)
    assert [m["role"] for m in request["messages"]] == ["system", "user"]
    assert all(part in request["messages"][1]["content"] for part in ("how many?", "gold 7", "actual 7"))
    assert heard.keys == {f"Bearer {KEY}"}
    assert (verdict.reward, verdict.reason) == (1.0, "judge_equal")


@pytest.mark.parametrize(
    ("reply", "last", "first"),
    [
        ("[[A=B]]", True, True),
        ("so [[A!=B]]", False, False),
        ("[[A!=B]] no wait [[A=B]]", True, False),
        ("[[A=B]]" + "x" * 250, True, True),
        ("[[A=B]]" + "x" * 250 + "[[A!=B]]", False, True),
        ("[[A!=B]]" + "x" * 250 + "[[A=B]]" + "x" * 199, False, False),  # begins before the final 200
        ("<think>[[A=B]]?</think> [[A!=B]]", False, False),
        ("<think>[[A=B]] or", None, None),  # cut while it thought
        ("[[a=b]] A=B equal", None, None),
        ("", None, None),
    ],
)
def test_the_two_ways_to_read_a_reply(reply, last, first):
    assert TEMPLATES["terminal"].verdict(reply) is last
    assert TEMPLATES["answer"].verdict(reply) is first


def test_a_label_within_the_other_is_not_taken_for_it():
    words = {"equal": "CORRECT", "different": "INCORRECT"}
    for read in judge_templates.READS:
        t = dataclasses.replace(TEMPLATES["answer"], **words, read=read)
        assert [t.verdict(x) for x in ("INCORRECT", "CORRECT", "Correct")] == [False, True, None]


def test_what_is_filled_in_is_neither_a_template_nor_a_verdict():
    t = TEMPLATES["terminal"]
    asked = t.messages(Question("terminal", "{gold} {x}", "{actual}", f"echo {SAME} {OTHER} \ud800"), False)
    text = asked[1]["content"]
    assert "{gold} {x}" in text and "<a>\n{actual}\n</a>" in text
    assert text.count(SAME) == text.count(OTHER) == 1, "only the instruction has labels"
    text.encode()


def test_swapping_exchanges_the_actions_and_nothing_else():
    t = TEMPLATES["terminal"]
    q = question()
    swapped = t.messages(dataclasses.replace(q, gold=q.actual, actual=q.gold), False)
    assert t.messages(q, True) == swapped != t.messages(q, False)


@pytest.mark.parametrize(
    ("replies", "reward", "reason", "asked"),
    [
        ((SAME, SAME), 1.0, "judge_equal", 2),
        ((SAME, OTHER), -0.5, "judge_swap_failed", 2),
        ((OTHER,), 0.0, "judge_different", 1),
        ((SAME, "?"), None, "judge_abstained", 2),
        (("?",), None, "judge_abstained", 1),
        (("",), None, "judge_abstained", 1),
    ],
)
def test_the_swap_check(replies, reward, reason, asked):
    with serve(lambda n, prompt: replies[n]) as (heard, url):
        (verdict,) = ask(url, [question()], swap=True, reward_if_swap_fails=-0.5)
    assert (verdict.reward, verdict.reason, len(heard.requests)) == (reward, reason, asked)
    if asked == 2:
        first, second = (r["messages"][1]["content"] for r in heard.requests)
        assert first.index("gold 0") < first.index("actual 0")
        assert second.index("actual 0") < second.index("gold 0")


def test_settle_answers_open_verdicts_alone_and_in_their_order():
    ruled = Verdict(0.0, "no_call")
    open_ = [Verdict(0.0, "similarity", f"0.{n}", question(n)) for n in range(20)]
    with serve(lambda n, prompt: SAME if "gold 3\n" in prompt else OTHER) as (heard, url):
        asks = Judge(url, "m", TEMPLATES, swap=False)
        found = resolve_with_judge([ruled, *open_, ruled, open_[3]], asks)
        assert resolve_with_judge([ruled], asks) == [ruled]
    assert found[0] == found[21] == ruled
    assert [v.reward for v in found[1:21]] == [float(n == 3) for n in range(20)]
    assert found[22] == found[4] and "similarity: 0.3" in found[4].details and found[4].question is None
    assert len(heard.requests) == 20, "equal questions are asked once"
    assert resolve_with_judge([ruled, *open_], None) == [ruled, *open_]


# ---- conformance: NVIDIA's scripted judges, replayed over the wire


def scripted(name: str) -> list:
    file = CONFORMANCE / f"{name}_judge_scripted.jsonl"
    cases = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [pytest.param(case, id=case["id"]) for case in cases]


def replayed(case, kind, gold, actual, **labels):
    """The verdict and the number of requests, with the case's replies served in order."""

    def reply(n, prompt):
        text = case["judge_replies"][n]
        return text if isinstance(text, str) else ""  # output items that end without a text

    templates = {kind: dataclasses.replace(TEMPLATES[kind], **labels)}
    config = case["config"]
    with serve(reply) as (heard, url):
        asks = Judge(
            *(url, "m", templates),
            swap=config.get("check_twice_swap", False),
            reward_if_swap_fails=config.get("reward_if_swap_fails", 0.0),
        )
        (verdict,) = asks.answer([Question(kind, "x", gold, actual)])
    return verdict, len(heard.requests)


@pytest.mark.parametrize("case", scripted("terminus"))
def test_terminus_judges(case):
    """Their 0 for a reply without a label is an abstention here."""
    if case["failure_reason"] == "schema_check_failed":
        pytest.skip("rules alone: no judge is asked")
    verdict, _ = replayed(case, "terminal", case["expected_answer"], case["candidate"])
    assert (verdict.reward or 0.0) == case["reward"]
    assert (verdict.reward is None) == case["failure_reason"].endswith("parsing_failed")


@pytest.mark.parametrize("case", scripted("terminus"))
def test_terminus_judges_through_the_verifier(case):
    """From the row to the reward, where the verifier is there."""
    full = "terminal:nemo_gym"
    if full not in verifiers.VERIFIERS:
        pytest.skip(f"no verifier {full} here")
    verifier = verifiers.VERIFIERS[full]
    try:
        candidate, action = verifier.read_case(case)
    except InputError as e:
        pytest.skip(f"the verifier reads other rows: {e}")
    texts = [text if isinstance(text, str) else "" for text in case["judge_replies"]]
    config = case["config"]
    with serve(lambda n, prompt: texts[n]) as (_, url):
        asks = Judge(
            *(url, "m", TEMPLATES),
            swap=config["check_twice_swap"],
            reward_if_swap_fails=config["reward_if_swap_fails"],
        )
        (verdict,) = resolve_with_judge([verifier.verify(candidate, action)], asks)
    assert (verdict.reward or 0.0) == case["reward"], verdict


@pytest.mark.parametrize("case", scripted("equivalence"))
def test_equivalence_judges(case):
    labels = {
        ours: case["config"][theirs]
        for ours, theirs in (("equal", "judge_equal_label"), ("different", "judge_not_equal_label"))
        if theirs in case["config"]
    }
    candidate = case["candidate"]
    actual = candidate if isinstance(candidate, str) else candidate[-1]["content"][0]["text"]
    verdict, asked = replayed(case, "answer", case["expected_answer"], actual, **labels)
    assert (verdict.reward or 0.0) == case["reward"]
    same = case["expected_answer"] == actual  # then the swapped question is the question, and not asked again
    assert asked == (1 if same else case["judge_calls"])


# ---- the cache


def test_a_reply_is_asked_for_once_whatever_asks(tmp_path):
    with serve(lambda n, prompt: SAME) as (heard, url):
        asks = Judge(url, "m", TEMPLATES, cache=tmp_path)
        for again in (asks, asks, Judge(url, "m", TEMPLATES, cache=tmp_path)):
            assert rewards(again.answer([question(1), question(2), question(1)])) == [1.0] * 3
            assert len(heard.requests) == 4, "two questions, each swapped"
        other = dataclasses.replace(TEMPLATES["answer"], system="Another.")
        Judge(url, "m", {"answer": other}, swap=False, cache=tmp_path).answer([question(1)])
        Judge(url, "m2", TEMPLATES, swap=False, cache=tmp_path).answer([question(1)])
        Judge(url, "m", TEMPLATES, swap=False, cache=tmp_path).answer([question(3)])
        assert len(heard.requests) == 7, "another template, another model, another question"


def test_a_second_process_reads_the_first_ones_cache(tmp_path):
    program = (
        "import sys; from pivotrl_jax import records\n"
        "from pivotrl_jax.verifiers import judge, judge_templates\n"
        "q = [records.Question('answer', 'x', 'g', str(n)) for n in range(3)]\n"
        "j = judge.Judge(sys.argv[1], 'm', judge_templates.load(), cache=judge.Path(sys.argv[2]))\n"
        "print([v.reward for v in j.answer(q)])"
    )
    with serve(lambda n, prompt: SAME) as (heard, url):
        for _ in range(2):
            command = [sys.executable, "-c", program, url, str(tmp_path)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.stdout == "[1.0, 1.0, 1.0]\n", done.stderr
            assert len(heard.requests) == 6
    assert KEY not in (tmp_path / "replies.jsonl").read_text()


def test_a_torn_last_line_costs_one_question(tmp_path):
    file = tmp_path / "replies.jsonl"
    with serve(lambda n, prompt: SAME) as (heard, url):
        ask(url, [question(n) for n in range(4)], cache=tmp_path, concurrency=1)
        whole = file.read_bytes()
        for cut in (1, 5, 40):  # without its newline a line is still whole
            before = len(heard.requests)
            file.write_bytes(whole[:-cut])
            assert rewards(ask(url, [question(n) for n in range(5)], cache=tmp_path)) == [1.0] * 5
            assert len(heard.requests) - before == (1 if cut == 1 else 2)
            before = len(heard.requests)
            ask(url, [question(n) for n in range(5)], cache=tmp_path)
            assert len(heard.requests) == before, "what was appended to the torn line is whole"
    file.write_bytes(b'\n[1]\n{"key": 3}\nnull\n\xff\n' + whole)
    assert len(judge.Replies(tmp_path)._known) >= 4


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with serve(lambda n, prompt: SAME) as (_, url):
        with pytest.raises(InputError, match=r"replies\.jsonl"):
            ask(url, [question()], cache=tmp_path / "file")


# ---- what the user gives


@pytest.mark.parametrize(
    ("url", "model", "sentence"),
    [
        ("localhost:8000", "m", "want http"),
        ("http:///v1", "m", "want http"),
        ("http://me:secret@host/v1", "m", "holds credentials"),
        ("http://host/v1", "", "no model is named"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(url, model, sentence):
    with pytest.raises(InputError, match=sentence) as e:
        Judge(url, model, TEMPLATES)
    assert "secret" not in str(e.value)


def test_a_kind_without_a_template_is_named_before_anything_is_asked():
    with serve(lambda n, prompt: SAME) as (heard, url):
        with pytest.raises(InputError, match=r"kind 'poem'; add \[poem\]"):
            ask(url, [question(), question(kind="poem")])
    assert not heard.requests


GOOD = 'equal = "YES"\ndifferent = "NO"\nread = "first"\nsystem = ""\n'


def test_a_file_of_ones_own_replaces_whole_kinds(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'[poem]\n{GOOD}prompt = "{{gold}} or {{actual}} {{x}}"\n')
    mine = judge_templates.load(str(file))
    assert set(mine) == {"terminal", "answer", "poem"}
    assert mine["poem"].messages(question(), False) == [{"role": "user", "content": "gold 0 or actual 0 {x}"}]
    assert judge_templates.templates_fingerprint(mine) != judge_templates.templates_fingerprint(TEMPLATES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[poem", "not valid TOML"),
        ("[poem]\nprompt = 'x'", r"\[poem\] has \['prompt'\]; want system, prompt, equal"),
        ("poem = 3", r"\[poem\] has 3; want"),
        (f"[p]\n{GOOD}prompt = '{{gold}}'", "prompt lacks {actual}"),
        (f"[p]\n{GOOD}prompt = 3", "prompt is 3; want a string"),
        (f"[p]\n{GOOD.replace('first', 'mid')}prompt = ''", "read is 'mid'; want 'first' or 'last'"),
        (f"[p]\n{GOOD.replace('NO', 'YES')}prompt = ''", "the labels are 'YES' and 'YES'"),
    ],
)
def test_a_bad_template_file_is_named(tmp_path, text, sentence):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"mine.toml: .*{sentence}"):
        judge_templates.load(str(file))
    with pytest.raises(InputError, match="No such file"):
        judge_templates.load(str(tmp_path / "other.toml"))


# ---- the verify program


def test_the_verify_program_asks_the_judge_it_is_given(tmp_path):
    program = (
        "import dataclasses, sys\n"
        "from pivotrl_jax import terminal, verifiers, verify\n"
        "from pivotrl_jax.records import Question, Verdict\n"
        "real = verifiers.VERIFIERS['exact']\n"
        "def open_(c, a):\n"
        "    v = real.verify(c, a)\n"
        "    return v if v.reward else Verdict(0.0, 'unlike', '', Question('answer', '', 'g', c.id))\n"
        "verifiers.VERIFIERS['exact'] = dataclasses.replace(real, verify=open_)\n"
        "terminal.run('verify', verify.main)"
    )
    call = {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}
    cases = [
        {"id": i, "expected_action": call, "candidate": [call] if i == "ok" else []} for i in ("ok", "a", "b")
    ]
    lines = "\n".join(map(json.dumps, cases))

    def run(*flags):
        command = [sys.executable, "-c", program, "--verifier=exact", *flags]
        return subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True)

    def said(done):
        return [(v["id"], v["reward"], v["reason"]) for v in map(json.loads, done.stdout.splitlines())]

    def behave(n, prompt):
        return "hm" if "<a>\nb\n" in prompt or "<b>\nb\n" in prompt else SAME

    with serve(behave) as (heard, url):
        flags = [f"--judge_url={url}", "--judge_model=m", f"--judge_cache={tmp_path}"]
        for _ in range(2):
            done = run(*flags)
            found = said(done)
            assert found == [
                ("ok", 1.0, "ok"),
                ("a", 1.0, "judge_equal"),
                ("b", None, "judge_abstained"),
            ], done.stderr
            assert len(heard.requests) == 3
    assert said(run())[1:] == [("a", 0.0, "unlike"), ("b", 0.0, "unlike")]
    done = run("--judge_model=m")
    assert done.returncode == 1 and "need --judge_url" in done.stderr
