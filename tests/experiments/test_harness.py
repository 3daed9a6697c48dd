"""experiments/harness: bfcl-eval and a NeMo Gym server, against endpoints on loopback."""

import contextlib
import http.server
import importlib.util
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kstest
from support.bfcl_reference import need_bfcl
from support.paths import ROOT

from pivotrl_jax.environments.bfcl import demonstrations, tasks
from pivotrl_jax.environments.episode import expert_of

CATEGORIES = ("simple_python", "parallel", "irrelevance", "multi_turn_base")


def call(name, arguments):
    return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}


def gold_calls(messages: list[dict]) -> list[dict]:
    """The ground truth's calls where these messages end; none after a tool's answer."""
    users = [m["content"] for m in messages if m["role"] == "user"]
    for task in tasks.tasks("multi_turn_base")[:2]:
        if task.messages(0)[-1]["content"] == users[0]:
            calls = expert_of(task.id).calls[len(users) - 1] if messages[-1]["role"] == "user" else []
            return [call(c.name, json.dumps(c.arguments)) for c in calls]
    for row in demonstrations.single_turn(CATEGORIES[:-1], 4):
        if row.messages[-2]["content"] == users[-1]:
            calls = [c["function"] for c in row.messages[-1].get("tool_calls", ())]
            return [call(c["name"], json.dumps(c["arguments"])) for c in calls]
    raise AssertionError(users)


@contextlib.contextmanager
def server(answer):
    """The address of a server on loopback that answers a POST with `answer(path, body)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = json.dumps(answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()


@contextlib.contextmanager
def endpoint(edit):
    """An endpoint whose model makes the right calls, changed by `edit`, and the requests it got."""
    seen = []

    def answer(path, body):
        seen.append(body)
        calls = edit(gold_calls(body["messages"]))
        said = {"content": calls} if isinstance(calls, str) else {"content": "Done.", "tool_calls": calls}
        message = {"role": "assistant", **said}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }

    with server(answer) as url:
        yield f"{url}/v1", seen


def judged(url: str, out) -> tuple[dict[str, tuple[float, float, int]], str]:
    """Category -> (bfcl-eval's score, ours, replies with different verdicts), and everything printed."""
    script = ROOT / "experiments" / "harness" / "bfcl.py"
    flags = [f"--base_url={url}", f"--out={out}", f"--categories={','.join(CATEGORIES)}", "--threads=1"]
    done = subprocess.run(
        [sys.executable, script, *flags, "--rows=2"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if words and words[0] in CATEGORIES:
            found[words[0]] = float(words[2]), float(words[3]), int(words[4])
    return found, done.stdout


@pytest.fixture
def bfcl_harness():
    need_bfcl()
    if missing := [m for m in ("pandas", "tenacity", "tree_sitter") if not importlib.util.find_spec(m)]:
        pytest.skip(f"needs pip install -e '.[bfcl_harness]': {missing}")


def test_the_right_calls_pass_by_both_and_names_keep_their_dots(bfcl_harness, tmp_path):
    with endpoint(lambda calls: calls or None) as (url, seen):
        found, _ = judged(url, tmp_path)
    assert found == {category: (1.0, 1.0, 0) for category in CATEGORIES}
    assert "spotify.play" in {tool["function"]["name"] for body in seen for tool in body["tools"]}


def test_wrong_replies_fail_by_both_and_finished_rows_are_not_asked_again(bfcl_harness, tmp_path):
    with endpoint(lambda calls: [call("f", "{}")]) as (url, seen):
        found, _ = judged(url, tmp_path)
        asked = len(seen)
        again, _ = judged(url, tmp_path)
        assert len(seen) == asked
    assert again == found == {category: (0.0, 0.0, 0) for category in CATEGORIES}


@pytest.mark.parametrize("said", [[call("f", '{"a": ')], '<tool_call>\n{"name": "f", "argu'])
def test_an_unreadable_call_where_none_is_wanted_is_the_known_difference(bfcl_harness, tmp_path, said):
    """Whether the server hands it on as a call, or leaves it in the text."""
    with endpoint(lambda calls: said) as (url, _):
        found, printed = judged(url, tmp_path)
    expected = {category: (0.0, 0.0, 0) for category in CATEGORIES}
    assert found == expected | {"irrelevance": (1.0, 0.0, 2)}
    assert "2 where ours is 'malformed' and BFCL's is a pass" in printed


def test_a_gym_servers_rewards_are_compared_row_by_row(tmp_path):
    rows = [{"responses_create_params": {}, "response": {"n": n}, "reward": float(n % 2)} for n in range(4)]
    file = tmp_path / "rollouts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def compared(reward_of):
        def answer(path, body):
            assert path == "/verify" and "reward" not in body
            return {"reward": reward_of(body["response"]["n"])}

        with server(answer) as url:
            command = [sys.executable, ROOT / "experiments" / "harness" / "nemo_gym.py", file]
            return subprocess.run([*command, f"--verify_url={url}"], capture_output=True, text=True)

    same = compared(lambda n: float(n % 2))
    assert same.returncode == 0 and "4 of 4 rollouts have the same reward" in same.stdout
    other = compared(lambda n: float(n == 3))
    assert other.returncode == 1 and "line 2: 0.0 there, 1.0 here" in other.stdout


@pytest.fixture
def profile_script():
    spec = importlib.util.spec_from_file_location("served", ROOT / "experiments" / "harness" / "profile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(rng, rates, samples: int) -> dict[str, list[float]]:
    return {str(i): list(rng.binomial(1, rate, samples).astype(float)) for i, rate in enumerate(rates)}


def test_profiles_are_compared_by_the_chi_square_of_their_tables(profile_script):
    rng = np.random.default_rng(0)
    one, other = drawn(rng, rng.uniform(size=30), 8), drawn(rng, rng.uniform(size=30), 5)
    want = 0.0
    for name in one:
        table = [[sum(x), len(x) - sum(x)] for x in (one[name], other[name])]
        if min(np.sum(table, axis=0)):
            want += chi2_contingency(table, correction=False).statistic
    assert profile_script.p_value(one, other, 9)[0] == pytest.approx(want)


def test_the_p_value_is_even_for_equal_policies_and_small_for_different_ones(profile_script):
    rng = np.random.default_rng(1)
    rates = rng.beta(0.4, 0.4, 40)
    ps = [profile_script.p_value(drawn(rng, rates, 8), drawn(rng, rates, 8), 199)[1] for _ in range(100)]
    assert kstest(ps, "uniform").pvalue > 0.001
    worse = drawn(rng, rates * 0.6, 8)
    assert profile_script.p_value(drawn(rng, rates, 8), worse, 199)[1] < 0.02
