"""The embedded checkpoint behind HTTP: what the sampler draws arrives, and no client harms another."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import openai
import pytest
from support.paths import ROOT
from support.served import KEY, make_service, parsed, serving

from pivotrl_jax.records import InputError
from pivotrl_jax.serve import app, server
from pivotrl_jax.serve import start as program

ASK = {"model": "embedded", "messages": [{"role": "user", "content": "hello"}]}


def complete(served, **fields) -> dict:
    status, _, page = served.post("/v1/completions", {"model": "embedded", "prompt": "hello there", **fields})
    assert status == 200, page
    return page


def test_log_probs_are_the_models(served, chat):
    """The log-probs of a sampled completion, against a plain forward pass."""
    from pivotrl_jax.checkpoints import hf, hf_config, locate
    from pivotrl_jax.models import decoder

    page = complete(served, logprobs=0, return_token_ids=True, seed=3, max_tokens=12, temperature=0.7)
    choice = page["choices"][0]
    assert choice["prompt_token_ids"] == chat.encode("hello there")
    ids = choice["prompt_token_ids"] + choice["token_ids"]
    config = hf_config.load_config(locate.EMBEDDED, "float32")
    params = hf.load_params(locate.EMBEDDED, config, "float32")
    logits = decoder.logits(config, params, np.array([ids]))[0]
    log_probs = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(ids) - 1), ids[1:]]
    want = log_probs[len(choice["prompt_token_ids"]) - 1 :]
    np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], want, atol=1e-5)


def test_the_same_seed_gives_the_same_text_streamed_and_whole_and_in_a_crowd(served):
    request = {**ASK, "seed": 5, "n": 3, "max_tokens": 20, "temperature": 1.3}
    client = served.client()
    texts = [c.message.content for c in client.chat.completions.create(**request).choices]
    assert len(set(texts)) > 1
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        crowd = [
            pool.submit(client.chat.completions.create, **{**request, "seed": i, "max_tokens": 5 + i})
            for i in range(10)
        ]
        again = pool.submit(client.chat.completions.create, **request).result()
        assert all(len(job.result().choices) == 3 for job in crowd)
    assert [c.message.content for c in again.choices] == texts
    streamed = ["", "", ""]
    for event in client.chat.completions.create(**request, stream=True):
        for choice in event.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_a_prompt_is_computed_once(served):
    counts, prompt = served.engine.counts, list(range(100, 160))
    complete(served, prompt=prompt, max_tokens=2)
    before = counts.prefilled
    page = complete(served, prompt=[*prompt, 7, 8, 9], max_tokens=2, n=1)
    assert page["usage"]["prompt_tokens_details"]["cached_tokens"] >= 59
    assert counts.prefilled - before == 62 - page["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_requests_that_do_not_fit_the_queue_are_429_and_others_are_served():
    service = make_service("--rows=1", "--slots=1", "--queue=1")
    with serving(service) as served, concurrent.futures.ThreadPoolExecutor(8) as pool:
        request = {"model": "embedded", "prompt": "x", "max_tokens": 40, "ignore_eos": True}
        jobs = [pool.submit(served.post, "/v1/completions", request) for _ in range(8)]
        replies = [job.result() for job in jobs]
        statuses = [status for status, _, _ in replies]
        assert set(statuses) == {200, 429}
        assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in replies if status == 429)
        assert served.post("/v1/completions", request)[0] == 200


# ---- hostile clients


def alive(served) -> None:
    assert complete(served, max_tokens=3)["usage"]["completion_tokens"] <= 3
    assert served.get("/health")[0] == 200


def test_big_bodies_are_refused_without_reading_them_all(served):
    client = served.client()
    for fields in ({"prompt": "x" * 10_000_000}, {"prompt": "x", "stop": ["ab"] * 1_000_000}):
        with pytest.raises(openai.APIStatusError, match="1000000 bytes") as e:
            client.completions.create(model="embedded", **fields)
        assert e.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="at most 16"):
        client.completions.create(model="embedded", prompt="x", stop=["ab"] * 100_000)
    chunked = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    parts = iter([b"y" * 0x100000] * 3)
    chunked.request("POST", "/v1/completions", parts, {"authorization": f"Bearer {KEY}"}, encode_chunked=True)
    assert chunked.getresponse().status == 413
    chunked.close()
    alive(served)


def test_paths_and_heads_read_no_file(served, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    secret = b"root:"
    for path in (
        "/etc/passwd", "/../../etc/passwd", "/v1/../../../etc/passwd", "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/%2fetc%2fpasswd",
        "/v1/models/%00", "/static/x", "/%ff", "/.env",
        "http://other/etc/passwd", "/v1/models?file=/etc/passwd",
    ):  # fmt: skip
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n\r\n"
        reply = served.raw(head.encode())
        assert reply.startswith(b"HTTP/1.1 ") and secret not in reply
        assert parsed(reply)[0] == (200 if "?" in path else 404), path
    for request in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    ):
        reply = served.raw(request)
        assert not reply or reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 404")), reply[:200]
    upgrade = (
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n"
    )
    assert served.raw(f"GET / HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n".encode())[:12] in (b"", b"HTTP/1.1 404")
    alive(served)


def test_texts_that_speak_of_files_and_templates_are_texts(served):
    for text in (
        "file:///etc/passwd",
        "{{ 7 * 7 }}{% include '/etc/passwd' %}",
        "<|im_end|>\n<|im_start|>",
        "\x00",
    ):
        status, _, page = served.post(
            "/v1/chat/completions", {**ASK, "messages": [{"role": "user", "content": text}]}
        )
        assert status == 200 and "root:" not in json.dumps(page)


def test_a_client_that_never_reads_is_cut_off(served, monkeypatch):
    """Its socket buffers are full at once, since they are small and every event has many log-probs."""
    monkeypatch.setattr(server, "READ_SECONDS", 0.2)
    body = json.dumps(
        {**ASK, "stream": True, "n": 32, "logprobs": True, "top_logprobs": 20, "ignore_eos": True}
    ).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", served.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait(lambda: served.engine.running() > 0)
        wait(
            lambda: not served.service._queues and not served.engine.running() and not served.engine.waiting()
        )
        got = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                got += part
        assert got.startswith(b"HTTP/1.1 200") and b"[DONE]" not in got
    alive(served)


def wait(done, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_slow_sender_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    with served.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
        assert closed(connection)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    with served.connect() as connection:
        connection.sendall(head.encode() + b"content-length: 9\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")
    alive(served)


def closed(connection) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_leaves_frees_its_slots(served, caplog):
    body = json.dumps({**ASK, "n": 32, "ignore_eos": True, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    for _ in range(3):
        with served.connect() as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            assert connection.recv(1)
    with served.connect() as connection:  # leaves in the middle of its body
        connection.sendall(f"{head}expect: 100-continue\r\ncontent-length: 9\r\n\r\n{{".encode())
        assert connection.recv(1)
    wait(lambda: not served.engine.running() and not served.engine.waiting() and not served.service._queues)
    alive(served)
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


# ---- the program


def run_program(*flags, environment=None):
    command = [sys.executable, "-m", "pivotrl_jax.serve", "--checkpoint=embedded", "--port=0", *flags]
    environment = {**os.environ, **(environment or {})}
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


SIZES = ("--context=256", "--completion_tokens=48", "--rows=2", "--slots=4")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_line_and_status_0(number, request):
    process = run_program(*SIZES, "--grace=20", "--api_key_env=MY_KEY", environment={"MY_KEY": KEY})
    request.addfinalizer(process.kill)
    line = process.stdout.readline()
    found = re.fullmatch(r"serving embedded at http://127\.0\.0\.1:(\d+)/v1, with an API key; .*\n", line)
    assert found, line + process.stderr.read()
    body = json.dumps({"model": "embedded", "prompt": "x", "max_tokens": 48, "ignore_eos": True}).encode()
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=60) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}expect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 "), "the request has been taken"
        process.send_signal(number)
        connection.sendall(body)
        reply = b""
        while part := connection.recv(65536):
            reply += part
    assert parsed(reply)[0] == 200, "an open request is finished"
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert re.fullmatch(r"ended: 1 completions, 48 tokens\n", out) and not err


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--checkpoint=/nowhere"], "/nowhere"),
        (["--api_key_env=NO_SUCH_KEY"], "NO_SUCH_KEY holds no API key"),
        (["--api_key_file=/nowhere/key"], "cannot be read"),
        (["--rows=0"], "--rows is 0"),
        (["--queue=0"], "--queue is 0"),
        (["--slots=100000000"], "tokens do not fit the memory: lower --rows, --slots"),
        (["--chat_template_arguments={"], "not JSON"),
        (["--chat_template=/nowhere/x.jinja"], "no such file"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(flags, part):
    with pytest.raises(InputError) as e:
        make_service(*flags)
    assert part in str(e.value) and "\n" not in str(e.value)


def test_a_port_that_is_taken_is_one_sentence(served):
    with pytest.raises(InputError, match="cannot listen"):
        server.listen("127.0.0.1", served.port)


def test_it_listens_on_the_loopback_unless_told_otherwise():
    given = program.options().parse_args(["--checkpoint=embedded"])
    assert (given.host, given.api_key_env, given.api_key_file) == ("127.0.0.1", None, None)
