"""A profile through an endpoint from the command line, without weights; training on it, and through it."""

import json
import re

import jax
import pytest
from support import tiny_run
from support.faulty_server import FaultyServer, number_of
from support.paths import TESTS
from support.profiles import rollouts_in
from support.train_cli import CONFIG, MICRO, micro, subprocess_of

from pivotrl_jax.chat import template
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.replies import action_of
from pivotrl_jax.checkpoints import hf, hf_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import Candidate, Pivot, Profile, read_records
from pivotrl_jax.rollouts.actor import Actor, BatchShape, Request
from pivotrl_jax.rollouts.sampling import Sampling

pytestmark = pytest.mark.slow

ENDPOINT = ("rollouts.model=m", "sampling.max_tokens=16", "rollouts.retries=3", "rollouts.give_up_after=3")
NO_PROXY = {"NO_PROXY": "127.0.0.1"}


def pivots(workdir, checkpoint, url, *overrides):
    fixed = [f"--config={CONFIG}", f"workdir={workdir}", f"model.checkpoint={checkpoint}"]
    served = (f"rollouts.base_url={url}", *ENDPOINT, *overrides)
    profile = [x for x in MICRO if x.split("=")[0] != "sampling.max_tokens"]
    return subprocess_of("find_pivots", *fixed, *profile, *served, env=NO_PROXY)


def expert(table):
    """A chat model that half of the time does what was demonstrated."""

    def choice(body, n):
        number = number_of(body["messages"], body["seed"])
        message = {"role": "assistant", "content": "I do not know."}
        if number % 2:
            message = table[json.dumps(body["messages"][-1], sort_keys=True)]
        return {"message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}

    return choice


def as_wire(message):
    calls = [
        {"id": "x", "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"])}}
        for c in message.get("tool_calls", ())
    ]
    return {"content": message["content"], "tool_calls": calls}


@pytest.fixture(scope="module")
def chat_profile(checkpoint, tmp_path_factory):  # noqa: F811, RUF100
    """(workdir, stdout, table, url) of a profile with chat completions; the server is gone afterwards."""
    root = tmp_path_factory.mktemp("chat")
    table = {}
    with FaultyServer({"503": 0.2}, tokens=None, chat=expert(table)) as server:
        # a first run with a server that only says no gives the candidates
        server.refuse = lambda path, body: (404, {"error": {"message": "no such model"}})
        code, _, err = pivots(root / "first", checkpoint, server.url, "rollouts.mode=chat")
        assert code == 1 and "no such model" in err
        for c in read_records(root / "first" / "candidates.jsonl", Candidate):
            last = {k: v for k, v in c.messages[-1].items() if k != "reasoning_content"}
            table[json.dumps(last, sort_keys=True)] = as_wire(c.demonstration)
        server.refuse = lambda path, body: None
        code, out, err = pivots(root / "run", checkpoint, server.url)
        assert code == 0, err
        url = server.url
    return root / "run", out, url


def test_a_profile_of_a_served_model_needs_no_weights(chat_profile):
    workdir, out, url = chat_profile
    assert f"rollouts of m come from {url}: chat completions with tools, without token ids (HTTP 404" in out
    assert re.search(
        r"m gave \d+ rollouts in .* prompt and [\d,]+ completion tokens; \d+ requests failed", out
    )
    rollouts = rollouts_in(workdir / "rollouts")
    candidates = {c.id: c for c in read_records(workdir / "candidates.jsonl", Candidate)}
    assert len(rollouts) == 4 * len(candidates)
    good = [r for r in rollouts if r.text != "I do not know."]
    assert all(r.reward == 1 for r in good) and 0 < len(good) < len(rollouts)
    called = [r for r in good if candidates[r.candidate_id].is_call]
    assert called and all(
        action_of(r.served["message"]).calls
        == message_to_action(candidates[r.candidate_id].demonstration).calls
        for r in called
    )
    assert all(r.token_ids == [] and r.served["model"] == "served-model" for r in rollouts)
    assert {p.policy for p in read_records(workdir / "profiles.jsonl", Profile)} == {"served:m"}
    assert read_records(workdir / "pivots.jsonl", Pivot)
    run = json.loads((workdir / "run.json").read_text("utf-8"))
    assert (
        run["model"] == "m, served" and run["policy"] == "" and run["profiled"].startswith("m, served (chat)")
    )


def test_training_starts_from_a_served_profile_without_its_server(chat_profile, checkpoint):  # noqa: F811, RUF100
    workdir, _, url = chat_profile
    served = (f"rollouts.base_url={url}", *ENDPOINT)
    code, out, err = micro(workdir, checkpoint, *served, env=NO_PROXY)
    assert code == 0, err
    assert "training starts from" in out and "--config.rollouts.same_weights=True" in out
    assert "profile of" in out
    run = json.loads((workdir / "run.json").read_text("utf-8"))
    assert run["policy"] and "maybe other weights" in run["profiled"]
    # without the endpoint the same directory is that of another profile
    code, _, err = micro(workdir, checkpoint, "sampling.max_tokens=16")
    assert code == 1 and re.search("policy is 'served:m' there", err)


# ---- training through the endpoint


class Policy:
    """A server's model: it samples with the weights that it was last told to load."""

    def __init__(self, checkpoint):
        self.chat = template.load_chat(checkpoint, False)
        self.config, self.mesh = hf_config.load_config(checkpoint, "float32"), tiny_run.mesh()
        sampling = Sampling(1.0, 1.0, 0, 0.0, 4, self.chat.stop_ids)
        shape = BatchShape(1, 1, 1)
        self.actor = Actor(
            self.config, sampling, self.mesh, shape=shape, row_lengths=[1024], attention_chunk=128
        )
        self.loaded = []  # sums of the weights
        self.load(checkpoint)

    def load(self, folder):
        shardings = sharding.param_shardings(decoder.abstract_params(self.config), self.mesh)
        params = hf.load_params(folder, self.config, "float32", shardings)
        self.params = self.actor.place(params)
        self.loaded.append(sum(float(abs(x).sum()) for x in jax.tree.leaves(params)))

    def tokens(self, body, n):
        key = jax.random.key(body["seed"])
        ((drawn,),) = self.actor.act(self.params, [Request("r", body["prompt"], "t", 1)], key)
        return {
            "token_ids": drawn.token_ids,
            "text": self.chat.decode(drawn.token_ids),
            "logprobs": {"token_logprobs": drawn.log_probs},
            "finish_reason": "stop" if drawn.finished else "length",
        }

    def reload(self, path, body):
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.load(body["kwargs"]["weights_path"])
        elif path == "/update_weights_from_disk":
            self.load(body["model_path"])
        elif path != "/reset_prefix_cache":
            return None
        return 200, {"success": True, "message": "ok"}


@pytest.fixture
def trainer(checkpoint):  # noqa: F811, RUF100
    """(a server that loads weights, its policy)."""
    policy = Policy(checkpoint)
    with FaultyServer({"429": 0.1}, tokens=policy.tokens, refuse=policy.reload) as server:
        yield server, policy


COINS = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from support import tiny_run
from pivotrl_jax import train
from pivotrl_jax.run import cli
tiny_run.flip_coins()
cli.start(train.main)
"""


@pytest.mark.parametrize("reload", ["vllm", "sglang"])
def test_training_draws_from_the_endpoint_after_giving_it_each_steps_weights(
    reload,
    trainer,
    checkpoint,
    tmp_path,  # noqa: F811, RUF100
):
    server, policy = trainer
    served = (
        f"rollouts.base_url={server.url}",
        *ENDPOINT,
        "rollouts.train=True",
        f"rollouts.reload={reload}",
    )
    more = ("sampling.max_tokens=4", "rollouts.same_weights=True")
    lora = ("model.lora.rank=2",) if reload == "sglang" else ()
    code, out, err = micro(tmp_path / "run", checkpoint, *served, *more, *lora, code=COINS, env=NO_PROXY)
    assert code == 0, err
    assert out.count("completions of rendered token ids, with token ids and log-probs") == 2
    run = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert run["profiled"] == "m, served (completions): the same weights as pi_0"
    assert "training starts from" not in out
    paths = [path for path, _ in server.requests]
    reset = paths.count("/reset_prefix_cache")
    at_start, first, second = policy.loaded
    assert abs(at_start - first) < 1e-2 < abs(second - first), "each step's weights, and they change"
    assert reset == (2 if reload == "vllm" else 0)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 1]
    drift = [line["log_prob_drift"] for line in lines]
    assert max(drift) < 1e-4, "the learner's log-probs of the server's tokens are the server's own"


def test_a_server_that_does_not_load_weights_stops_training(trainer, checkpoint, tmp_path):  # noqa: F811, RUF100
    server, _ = trainer
    answer = server.refuse
    server.refuse = lambda path, body: (
        (200, {"success": False, "message": "out of memory"})
        if "update_weights" in path
        else answer(path, body)
    )
    served = (f"rollouts.base_url={server.url}", *ENDPOINT, "rollouts.train=True", "rollouts.reload=sglang")
    code, _, err = micro(
        tmp_path / "run",
        checkpoint,
        *served,
        "sampling.max_tokens=4",
        code=COINS,
        env=NO_PROXY,
    )
    assert code == 1 and "did not load the weights" in err and "out of memory" in err
