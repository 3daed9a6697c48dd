"""Endpoints that misbehave: what passes is waited for, what stays is a sentence, and nothing is lost."""

import email.utils
import json
import math
import socket
import struct
import threading
import time

import pytest
from support import endpoint
from support.endpoint import KEY, SAME, ask, completion, question, rewards, serve

from pivotrl_jax import endpoints
from pivotrl_jax.records import InputError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    endpoint.quick(monkeypatch)


# ---- endpoints that misbehave


def reset(handler):
    """Close the connection without an answer, with a TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def half(handler):
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


def slow(handler):
    time.sleep(1.0)
    handler.close_connection = True


PASSING = {
    "500": (500, {}, b"oops"),
    "503 with a page": (503, {"content-type": "text/html"}, b"<html>"),
    "408": (408, {}, b"{}"),
    "429": (429, {}, b'{"error": {"message": "slow down"}}'),
    "garbage JSON": (200, {}, b'{"choices": [{'),
    "a page": (200, {"content-type": "text/html"}, b"<html>hello</html>"),
    "a JSON list": (200, {}, b"[1]"),
    "an error in a 200": (200, {}, b'{"error": {"message": "overloaded"}}'),
    "reset": reset,
    "cut short": half,
    "timeout": slow,
}


@pytest.mark.parametrize("name", PASSING)
def test_trouble_that_passes_is_asked_through(name):
    with serve(lambda n, prompt: SAME if n == 2 else PASSING[name]) as (heard, url):
        assert rewards(ask(url, [question()], timeout=0.2)) == [1.0]
    assert len(heard.requests) == 3


@pytest.mark.parametrize("name", PASSING)
def test_trouble_that_stays_is_a_sentence_after_all_retries(name, tmp_path):
    with serve(lambda n, prompt: PASSING[name]) as (heard, url):
        with pytest.raises(InputError, match=r"did not answer \(.+\) in 3 tries; start again") as stopped:
            ask(url, [question()], timeout=0.2, cache=tmp_path)
    assert len(heard.requests) == 3
    assert KEY not in str(stopped.value) and "\n" not in str(stopped.value)


def test_no_endpoint_at_all():
    with serve(lambda n, prompt: SAME) as (_, url):
        pass
    with pytest.raises(InputError, match=r"did not answer \(.*[Cc]onnection.*in memory only"):
        ask(url, [question()], retries=0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        completion(None),
        completion([{"type": "text"}]),
        completion("I cannot say."),
    ],
)
def test_a_reply_without_a_verdict_is_an_abstention(body, tmp_path):
    with serve(lambda n, prompt: (200, {}, body)) as (heard, url):
        for _ in range(2):
            (verdict,) = ask(url, [question()], cache=tmp_path)
            assert (verdict.reward, verdict.reason) == (None, "judge_abstained")
    assert len(heard.requests) == 1, "the model has spoken"


def ended(reason, text="they mean [[A=B]]", **fields):
    choice = {"message": {"content": text}, "finish_reason": reason, **fields}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize("reply", [ended("abort"), ended("error"), ended("stop", error={"code": 502})])
def test_a_reply_that_broke_off_is_asked_for_again(reply, tmp_path):
    with serve(lambda n, prompt: SAME if n == 2 else reply) as (heard, url):
        assert rewards(ask(url, [question()], cache=tmp_path)) == [1.0]
    assert len(heard.requests) == 3


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_reply_that_was_cut_is_no_verdict(reason, tmp_path):
    with serve(lambda n, prompt: ended(reason)) as (_, url):
        (verdict,) = ask(url, [question()], cache=tmp_path)
    assert (verdict.reward, verdict.reason) == (None, "judge_abstained")


def test_a_key_with_a_line_break_works_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\n")
    with serve(lambda n, prompt: SAME) as (_, url):
        assert rewards(ask(url, [question()])) == [1.0]
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nx")
    with pytest.raises(InputError, match="holds characters that no API key has") as stopped:
        ask(url, [question()])
    assert KEY not in str(stopped.value)


def test_content_in_parts_is_read():
    body = completion([{"type": "text", "text": "[[A"}, {"type": "text", "text": "=B]]"}])
    with serve(lambda n, prompt: (200, {}, body)) as (_, url):
        assert rewards(ask(url, [question()])) == [1.0]


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_respected(as_date):
    came = []

    def behave(n, prompt):
        came.append(time.time())
        wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "0.7"
        return SAME if n else (429, {"retry-after": wait}, b"{}")

    with serve(behave) as (_, url):
        assert rewards(ask(url, [question()])) == [1.0]
    assert 0.7 <= came[1] - came[0] < 3


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3),
        ("", 0),
        ("-5", 0),
        ("nan", 0),
        ("soon", 0),
        ("inf", math.inf),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0),
    ],
)
def test_retry_after_headers(header, seconds):
    assert endpoints.retry_after(header) == seconds


def test_an_endpoint_that_wants_hours_of_rest_stops_the_run():
    with serve(lambda n, prompt: (429, {"retry-after": "7200"}, b"{}")) as (heard, url):
        with pytest.raises(InputError, match="asks for a pause of 7200 s"):
            ask(url, [question()])
    assert len(heard.requests) == 1


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "check config.judge"), (401, r"set \$OPENAI_API_KEY"), (404, "check config")]
)
def test_a_request_that_cannot_be_right_stops_at_once(status, advice):
    body = json.dumps({"error": {"message": f"no\nsuch model for {KEY}"}}).encode()
    with serve(lambda n, prompt: (status, {}, body)) as (heard, url):
        with pytest.raises(InputError, match=rf"refuses \(HTTP {status}: .*no such model.*{advice}") as e:
            ask(url, [question()])
    assert len(heard.requests) == 1
    assert KEY not in str(e.value)


def test_what_came_before_a_failure_is_kept_and_not_asked_again(tmp_path):
    down = threading.Event()

    def behave(n, prompt):
        if "gold 9\n" in prompt:
            down.set()
            return (500, {}, b"")
        if n > 5:
            down.wait(0.5)
        return SAME

    with serve(behave) as (heard, url):
        with pytest.raises(InputError, match=r"(\d+) replies are stored in .*replies.jsonl") as stopped:
            ask(url, [question(n) for n in range(10)], concurrency=2, cache=tmp_path)
        kept = len((tmp_path / "replies.jsonl").read_text().splitlines())
        assert f"{kept} replies are stored" in str(stopped.value) and kept >= 5
        before = len(heard.requests)
        heard.behave = lambda n, prompt: SAME
        assert rewards(ask(url, [question(n) for n in range(10)], cache=tmp_path)) == [1.0] * 10
        assert len(heard.requests) - before == 10 - kept


def test_a_failure_stops_the_questions_that_wait(tmp_path):
    with serve(lambda n, prompt: (400, {}, b"{}")) as (heard, url):
        with pytest.raises(InputError):
            ask(url, [question(n) for n in range(500)], concurrency=2)
    assert len(heard.requests) < 20


def test_no_more_than_concurrency_requests_at_a_time():
    def behave(n, prompt):
        time.sleep(0.02)
        return SAME

    with serve(behave) as (heard, url):
        assert rewards(ask(url, [question(n) for n in range(40)], concurrency=5)) == [1.0] * 40
    assert 2 <= heard.most <= 5
