"""An OpenAI-compatible endpoint on the loopback that behaves as a test says; and how the tests ask it."""

import contextlib
import http.server
import json
import threading

from pivotrl_jax import endpoints
from pivotrl_jax.records import Question, Verdict
from pivotrl_jax.verifiers import judge_templates
from pivotrl_jax.verifiers.judge import Judge

KEY = "sk-the-key-of-this-test"
SAME, OTHER = "[[A=B]]", "[[A!=B]]"
TEMPLATES = judge_templates.load()


def completion(text) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Endpoint:
    """What a server thread does with each request: `behave(number, prompt)` returns a text (the reply), or
    (status, headers, body), or a function of the handler."""

    def __init__(self, behave):
        self.behave, self.requests, self.keys = behave, [], set()
        self.now = self.most = 0
        self.lock = threading.Lock()

    def handle(self, handler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            number = len(self.requests)
            self.requests.append(asked)
            self.keys.add(handler.headers["authorization"])
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            answer = self.behave(number, asked["messages"][-1]["content"])
        finally:
            with self.lock:
                self.now -= 1
        if callable(answer):
            return answer(handler)
        status, headers, body = (200, {}, completion(answer)) if isinstance(answer, str) else answer
        handler.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextlib.contextmanager
def serve(behave):
    """An Endpoint and its address."""
    endpoint = Endpoint(behave)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            with contextlib.suppress(ConnectionError):  # of clients that have given up
                endpoint.handle(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield endpoint, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def quick(monkeypatch) -> None:
    """Short waits, a key, and no proxy on the way."""
    monkeypatch.setattr(endpoints, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask(url, questions, **options) -> list[Verdict]:
    return Judge(url, "m", TEMPLATES, **{"swap": False, "retries": 2, **options}).answer(questions)


def question(n=0, kind="answer") -> Question:
    return Question(kind, "how many?", f"gold {n}", f"actual {n}")


def rewards(verdicts) -> list:
    return [v.reward for v in verdicts]
