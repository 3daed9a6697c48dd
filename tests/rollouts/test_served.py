"""Rollouts through an endpoint: none lost, none doubled, and the same rewards whatever goes wrong."""

import collections
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from support import served_profile, tiny_run
from support.faulty_server import BAD_DAY, FaultyServer, token_choice
from support.paths import ROOT
from support.profiles import rollouts_in

from pivotrl_jax import endpoints, verifiers
from pivotrl_jax.pivots import adaptive
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import served
from pivotrl_jax.rollouts.replies import CHAT, COMPLETIONS

# by hand: PIVOTRL_SERVED_ROLLOUTS=10000
COUNT = int(os.environ.get("PIVOTRL_SERVED_ROLLOUTS", 400))
KEY = "sk-the-key-of-this-test"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.005)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def request(n=0, samples=1):
    prompt = tiny_run.conversations(n + 1)[2 * n]
    c = prompt.candidate
    return served.Request(c.id, prompt.ids, c.trajectory_id, samples, 0, c)


def keys(rollouts):
    return collections.Counter((r.candidate_id, r.sample) for r in rollouts)


# ---- faults


@pytest.mark.parametrize("mode", [COMPLETIONS, CHAT])
def test_a_bad_day_ends_as_a_calm_one(mode, tmp_path):
    with FaultyServer() as calm, FaultyServer(BAD_DAY, restart_every=COUNT // 3) as bad:
        calm.keep = bad.keep = False
        profiles, expected, _ = served_profile.profile(tmp_path / "calm", calm.url, COUNT, mode)
        found, rollouts, actor = served_profile.profile(tmp_path / "bad", bad.url, COUNT, mode)
    assert bad.did["restart"] >= 2 and sum(bad.did.values()) > COUNT / 10, "this was no bad day"
    assert set(keys(rollouts).values()) == {1} and len(rollouts) == COUNT
    assert rollouts == expected and found == profiles
    assert rollouts_in(tmp_path / "bad") == rollouts
    assert {r.reward for r in rollouts} == {0.0, 1.0}
    assert not list((tmp_path / "bad").glob("*.partial"))
    assert f"gave {COUNT} rollouts" in actor.summary()


def test_a_killed_client_goes_on_where_it_was(tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    with FaultyServer({"late": 1.0}) as server:
        server.keep = False
        _, expected, _ = served_profile.profile(tmp_path / "whole", server.url, COUNT, concurrency=64)
    with FaultyServer({**BAD_DAY, "late": 0.6}) as server:
        argv = [sys.executable, "-m", "support.served_profile", str(tmp_path / "cut"), server.url, str(COUNT)]
        for _ in range(2):  # killed twice
            before = server.count
            client = subprocess.Popen(argv, env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
            while server.count < before + COUNT // 4 and client.poll() is None:
                time.sleep(0.01)
            client.send_signal(signal.SIGKILL)
            client.wait()
            assert client.returncode == -signal.SIGKILL, "it must not have ended before"
        partial = next((tmp_path / "cut").glob("*.partial"))
        with partial.open("ab") as f:
            f.write(b'{"name": "t1@0", "sample": 3, "tok')  # what a kill in the middle of a write leaves
        saved = [json.loads(line) for line in partial.read_bytes().splitlines()[:-1]]
        known = keys(rollouts_in(tmp_path / "cut")) + collections.Counter(
            (x["name"], x["sample"]) for x in saved
        )
        assert set(known.values()) == {1}
        server.requests.clear()
        _, rollouts, actor = served_profile.profile(tmp_path / "cut", server.url, COUNT)
    assert rollouts == expected and rollouts_in(tmp_path / "cut") == expected
    assert set(keys(rollouts).values()) == {1}
    assert actor.drawn == COUNT - len(known), "what was on disk is not asked for again"


def test_a_server_that_stays_down_is_one_sentence_and_nothing_is_lost(tmp_path):
    with FaultyServer() as server:
        answers = 30
        server.refuse = lambda path, body: (503, {}) if server.count > answers else None
        with pytest.raises(InputError) as stopped:
            served_profile.profile(tmp_path, server.url, COUNT, give_up_after=4, concurrency=3)
    assert "failed 4 times in a row, the last time with HTTP 503" in str(stopped.value)
    assert f"what has arrived is in {tmp_path}, and the same command goes on" in str(stopped.value)
    assert "\n" not in str(stopped.value) and server.url in str(stopped.value)
    with FaultyServer() as calm:
        _, rollouts, actor = served_profile.profile(tmp_path, calm.url, COUNT)
    assert len(rollouts) == COUNT and actor.drawn == COUNT - answers


def test_nobody_there_is_a_sentence(tmp_path):
    with socket.socket() as taken:  # a port of our own on which nobody listens, and nobody else can begin to
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(InputError, match=r"failed 3 times in a row, the last time with Connection error"):
            served_profile.profile(tmp_path, url, COUNT, give_up_after=3, timeout=60.0)


def test_a_busy_server_is_waited_for_while_others_get_through(tmp_path):
    """As with a limit of requests per minute: most are told to come back, however often they ask."""
    with FaultyServer() as server:
        server.refuse = lambda path, body: (429, {}) if server.count % 3 else None
        _, rollouts, _ = served_profile.profile(
            tmp_path, server.url, 32, retries=0, give_up_after=9, concurrency=4
        )
    assert len(rollouts) == 32


def test_one_request_that_always_fails_stops_after_its_retries(tmp_path):
    poison = [int(i) for i in request(1).prompt]
    with FaultyServer() as server:
        server.refuse = lambda path, body: (500, {}) if body["prompt"] == poison else None
        with pytest.raises(InputError, match=r"did not answer sample \d of t1@0 in 3 tries"):
            served_profile.profile(tmp_path, server.url, COUNT, retries=2, concurrency=2)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "check config.rollouts"), (401, r"set \$OPENAI_API_KEY"), (404, "check config.rollouts")],
)
def test_what_a_server_refuses_stops_at_once_with_its_message(status, advice, tmp_path):
    with FaultyServer() as server:
        server.refuse = lambda path, body: (status, {"error": {"message": f"no, {KEY}, no"}})
        with pytest.raises(InputError, match=rf"refuses \(HTTP {status}: .*no, \*\*\*, no.*\); {advice}"):
            served_profile.profile(tmp_path, server.url, COUNT, concurrency=1)
        assert server.count == 1 and server.headers == [f"bearer {KEY}"]


def test_a_name_that_the_server_refuses_does_not_bind_the_directory(tmp_path):
    with FaultyServer() as server:
        server.refuse = lambda path, body: (404, {}) if body["model"] == "typo" else None
        with pytest.raises(InputError, match="refuses"):
            served_profile.profile(tmp_path, server.url, COUNT, model="typo")
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, COUNT)
    assert len(rollouts) == COUNT


def test_requests_are_open_at_the_same_time_up_to_the_limit(tmp_path):
    with FaultyServer({"late": 1.0}) as server:
        served_profile.profile(tmp_path, server.url, 64, concurrency=5)
    assert server.most_open == 5


def test_a_pause_that_the_server_asks_for_is_kept(tmp_path, monkeypatch):
    waits = []
    patience = served.Asker(served_profile.actor("http://h/v1").served.endpoint, 1, 9)._patience
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    patience.failed(endpoints.Failure("429", 7.0), 100.0)
    waits.append(patience._until)
    patience.failed(endpoints.Failure("429", 7.0), 99.0)  # sent before: the same trouble
    assert waits == [107.0] and patience._until == 107.0 and patience.total == 2
    patience.succeeded()
    assert patience._until == 0


# ---- several samples in one request


def test_short_answers_are_asked_for_the_rest(tmp_path):
    with FaultyServer({"short": 0.4, "drop": 0.1}) as server:
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, 160, samples_per_request=4)
    assert len(rollouts) == 160 and set(keys(rollouts).values()) == {1}
    assert {body["n"] for _, body in server.requests} == {1, 4}
    assert not any("seed" in body for _, body in server.requests), "a seed would be that of several samples"


def test_adaptive_profiling_asks_for_less(tmp_path):
    rule = adaptive.StoppingRule(served_profile.GROUP, 0.6, 2, 0.02)
    with FaultyServer() as server:
        _, whole, _ = served_profile.profile(tmp_path / "a", server.url, 160)
        _, fewer, _ = served_profile.profile(tmp_path / "b", server.url, 160, stopping=rule)
    drawn = {(r.candidate_id, r.sample): r for r in whole}
    assert 0 < len(fewer) < len(whole) and all(r == drawn[r.candidate_id, r.sample] for r in fewer)


# ---- what is sent, and what is kept


def test_completions_send_the_exact_prompt_and_keep_the_exact_answer(tmp_path):
    with FaultyServer() as server:
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, 16)
    seeds = set()
    for path, body in server.requests:
        assert path == "/v1/completions" and body["model"] == "m" and body["n"] == 1
        assert body["temperature"] == body["top_p"] == body["repetition_penalty"] == 1
        assert (body["top_k"], body["min_p"], body["max_tokens"]) == (-1, 0, tiny_run.SAMPLING.max_tokens)
        assert body["return_token_ids"] and body["stop_token_ids"] == list(tiny_run.STOPS)
        seeds.add(body["seed"])
    assert len(seeds) == 16
    prompts = {p.candidate.id: p.ids.tolist() for p in tiny_run.conversations(1)}
    stream = jax.random.fold_in(jax.random.key(0), 1)
    for r in rollouts:
        seed = served.seed_of(stream, r.candidate_id, r.sample)
        body = next(body for _, body in server.requests if body["seed"] == seed)
        assert body["prompt"] == prompts[r.candidate_id]
        choice = token_choice(body, 0)
        assert (r.token_ids, r.log_probs) == (choice["token_ids"], choice["logprobs"]["token_logprobs"])
        assert r.finished == (choice["finish_reason"] == "stop")
        assert r.served == {"mode": COMPLETIONS, "model": "served-model", "fingerprint": "fp_1"}
        if not r.finished:
            assert (r.reward, r.reason) == (0.0, "unfinished")


def test_seeds_depend_on_stream_name_and_sample_alone():
    one, two = jax.random.key(1), jax.random.key(2)
    seeds = [
        served.seed_of(s, name, i) for s in (one, two) for name in ("a", "b", "\ud800") for i in range(3)
    ]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    assert served.seed_of(one, "a", 0) == served.seed_of(jax.random.key(1), "a", 0)


@pytest.mark.parametrize("refused", ["seed", "top_k", "min_p", "repetition_penalty"])
def test_an_optional_field_that_the_server_refuses_is_left_out(refused, tmp_path, capsys):
    with FaultyServer() as server:
        error = {"error": {"message": f"Unrecognized request argument supplied: {refused}"}}
        server.refuse = lambda path, body: (400, error) if refused in body else None
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, 32, concurrency=4)
    assert len(rollouts) == 32 and server.count <= 32 + 4
    assert capsys.readouterr().out.count(f"takes no {refused}: left out") == 1


def test_a_field_that_changes_the_distribution_is_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_run, "SAMPLING", served.dataclasses.replace(tiny_run.SAMPLING, top_k=20))
    with FaultyServer() as server:
        server.refuse = lambda path, body: (400, {"error": {"message": "unknown: top_k"}})
        with pytest.raises(InputError, match="unknown: top_k"):
            served_profile.profile(tmp_path, server.url, 16)


def test_max_tokens_has_another_name_at_newer_services(tmp_path):
    error = {
        "error": {"message": "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead."}
    }
    with FaultyServer() as server:
        server.refuse = lambda path, body: (400, error) if "max_tokens" in body else None
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, 16, CHAT)
    assert len(rollouts) == 16 and server.requests[-1][1]["max_completion_tokens"] == 5


def test_token_ids_of_another_model_stop_the_profile(tmp_path):
    def other(body, n):
        choice = token_choice(body, n)
        return {**choice, "token_ids": [*choice["token_ids"][:-1], 2], "finish_reason": "stop"}

    with FaultyServer(tokens=other) as server:
        with pytest.raises(InputError, match=r"token 2, none of the stop tokens .*mode=chat"):
            served_profile.profile(tmp_path, server.url, 16)
        with pytest.raises(InputError, match=r"token \d+, outside the vocabulary of 1"):
            served_profile.profile(tmp_path, server.url, 16, vocab_size=1)


def test_more_tokens_than_asked_for_stop_the_profile(tmp_path):
    def longer(body, n):
        return token_choice({**body, "max_tokens": 30}, n)

    with FaultyServer(tokens=longer) as server:
        with pytest.raises(InputError, match=r"gives \d+ tokens, though max_tokens is 5"):
            served_profile.profile(tmp_path, server.url, 16)


# ---- which way a server is asked


def changed(**fields):
    return lambda body, n: {**token_choice(body, n), **fields}


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (token_choice, ""),
        (None, "HTTP 404"),
        (changed(token_ids=None), "no token_ids"),
        (changed(logprobs=None), "without a log-prob"),
        (changed(prompt_token_ids=[1]), "changes the prompt"),
        (changed(text="Paris"), "another model's"),
    ],
    ids=["fit", "no route", "no ids", "no log-probs", "other prompt", "other tokenizer"],
)
def test_a_first_request_finds_out_what_the_server_can(tokens, why):
    with FaultyServer({"503": 0.5, "none": 0.1}, tokens=tokens) as server:
        found = served_profile.actor(server.url).probe(request())
    assert why in found and bool(why) == bool(found)


def test_a_first_request_that_is_not_allowed_stops():
    with FaultyServer() as server:
        server.refuse = lambda path, body: (401, {"error": {"message": "who are you"}})
        with pytest.raises(InputError, match="who are you"):
            served_profile.actor(server.url).probe(request())


# ---- identity


def test_a_profile_knows_model_and_mode_and_not_the_address(tmp_path):
    with FaultyServer() as server, FaultyServer() as elsewhere:
        _, rollouts, _ = served_profile.profile(tmp_path, server.url, 16)
        assert str(server.port) not in (tmp_path / "settings.json").read_text("utf-8")
        _, again, _ = served_profile.profile(tmp_path, elsewhere.url, 16)
        assert again == rollouts and not elsewhere.count, (
            "another address resumes, and nothing is left to ask"
        )
        for change, difference in (
            ({"model": "other"}, "model.served is 'm' there and 'other' here"),
            ({"mode": CHAT}, "model.mode is 'completions' there and 'chat' here"),
        ):
            with pytest.raises(InputError, match=difference):
                served_profile.profile(tmp_path, server.url, 16, **change)
