"""A language model that decides where rules cannot, at any OpenAI-compatible endpoint.

A verifier that cannot decide leaves a `Question` in its verdict; `resolve_with_judge` asks all of them at
once and replaces the verdicts by the answers. A reply without a label is an abstention: its reward is None,
not 0.

Replies are stored on disk, keyed by the request, so that a resumed or repeated run asks no question again.
The API key is read from the environment when a request is sent, and is written nowhere.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax import endpoints
from pivotrl_jax.endpoints import Endpoint, Failure
from pivotrl_jax.records import InputError, Question, Verdict
from pivotrl_jax.verifiers import judge_templates
from pivotrl_jax.verifiers.judge_templates import Template

ABSTAINED = "judge_abstained"
# of finish_reason, in lower case: the reply was cut, or something broke while it was written
CUT = ("length", "max_tokens", "content_filter", "safety")
BROKEN = ("abort", "aborted", "cancelled", "error")


class _Stopped(Exception):
    """Another question has failed, so this one is no longer asked."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """An endpoint, a model, and how they are asked.

    `cache` is a directory for replies; None keeps them in memory only. `on_first_process` runs a function and
    returns its result; with several processes, only the first one runs it, and all get its result
    (`hosts.on_first_process`).
    """

    base_url: str
    model: str
    templates: dict[str, Template]
    api_key_env: str = "OPENAI_API_KEY"
    swap: bool = True
    reward_if_swap_fails: float = 0.0
    concurrency: int = 16
    timeout: float = 60.0  # seconds without a byte from the endpoint
    retries: int = 5
    cache: Path | None = None
    on_first_process: Callable[[Callable[[], Any]], Any] = lambda compute: compute()

    def __post_init__(self):
        _ = self._endpoint  # checks the address

    @functools.cached_property
    def _endpoint(self) -> Endpoint:
        return Endpoint(
            "the judge", "config.judge", self.base_url, self.model, self.api_key_env, self.timeout
        )

    @property
    def settings(self) -> dict:
        """What its verdicts depend on, to be recorded with them; the endpoint and its speed are not part."""
        return {
            "model": self.model,
            "templates": judge_templates.templates_fingerprint(self.templates),
            "swap": self.swap,
            "reward_if_swap_fails": self.reward_if_swap_fails,
        }

    def answer(self, questions: Sequence[Question]) -> list[Verdict]:
        """The judge's verdict on every question, in order; equal questions are asked once.

        Raises InputError when a question cannot be asked; replies received before that stay in the cache.
        """
        unique = list(dict.fromkeys(questions))
        answers = self.on_first_process(lambda: [dataclasses.asdict(v) for v in self._answer_all(unique)])
        verdicts = {question: Verdict(**value) for question, value in zip(unique, answers)}
        return [verdicts[question] for question in questions]

    def _answer_all(self, questions: Sequence[Question]) -> list[Verdict]:
        for question in questions:  # all are checked before any is asked
            if question.kind not in self.templates:
                raise InputError(
                    f"the judge has no template for questions of the kind {question.kind!r}; add "
                    f"[{question.kind}] to a file and name it in config.judge.templates"
                )
        _ = self._replies, self._client  # created here, not in every thread
        stop = threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(self.concurrency, "judge")
        try:
            futures = [pool.submit(self._decide, question, stop) for question in questions]
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:  # also on Ctrl-C: requests under way finish and are stored, and no more are sent
            stop.set()
            pool.shutdown(cancel_futures=True)
        errors = [f.exception() for f in futures if not f.cancelled() and f.exception()]
        for error in errors:
            if not isinstance(error, _Stopped):
                refused = isinstance(error, InputError)
                raise InputError(f"{error}; {self._replies.summary()}") if refused else error
        return [future.result() for future in futures]

    def _decide(self, question: Question, stop: threading.Event) -> Verdict:
        template = self.templates[question.kind]
        replies = []
        for swapped in (False, True) if self.swap else (False,):
            reply = self._reply(template.messages(question, swapped), stop)
            replies.append(f"{'swapped: ' if swapped else ''}{' '.join(reply.split())[-300:]}")
            details, equal = " | ".join(replies), template.verdict(reply)
            if equal is None:
                return Verdict(None, ABSTAINED, f"{self.model} gave no verdict: {details}")
            if not equal and swapped:
                return Verdict(self.reward_if_swap_fails, "judge_swap_failed", f"{self.model}: {details}")
            if not equal:
                return Verdict(0.0, "judge_different", f"{self.model}: {details}")
        return Verdict(1.0, "judge_equal", f"{self.model}: {details}")

    @functools.cached_property
    def _replies(self) -> "Replies":
        return Replies(self.cache)

    @functools.cached_property
    def _client(self):
        return self._endpoint.client()

    def _reply(self, messages: list[dict], stop: threading.Event) -> str:
        """The reply to `messages`, from the cache or the endpoint. Raises InputError, or _Stopped."""
        request = json.dumps([self.model, messages], sort_keys=True)
        key = hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()
        if (reply := self._replies.get(key)) is not None:
            return reply
        for attempt in range(self.retries + 1):
            if stop.is_set():
                raise _Stopped
            outcome = self._request(messages)
            if isinstance(outcome, str):
                self._replies.add(key, outcome)
                return outcome
            if attempt < self.retries:
                stop.wait(max(outcome.wait, endpoints.backoff(attempt)))
        raise InputError(
            f"the judge at {self.base_url} did not answer ({outcome.why}) in {self.retries + 1} tries; "
            "start again when it is back"
        )

    def _request(self, messages: list[dict]) -> str | Failure:
        """Send one request: the reply's text, or a failure that may pass. Raises InputError for any other."""
        import openai

        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, temperature=0
            )
        except openai.OpenAIError as e:
            return self._endpoint.failure(e)
        return reply_text(raw.content)


def reply_text(raw: bytes) -> str | Failure:
    """The text of a chat completion, or a failure if `raw` is not one. No choice, one without text, and one
    that a content filter or the token limit cut, is an empty reply: what it says last is no verdict."""
    value = endpoints.json_object(raw)
    choices = value if isinstance(value, Failure) else endpoints.choices_of(value)
    if isinstance(choices, Failure):
        return choices
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    reason = str(choice.get("finish_reason")).lower()
    if choice.get("error") or reason in BROKEN:
        return Failure(f"half a reply (finish_reason {reason[:40]!r})")
    if reason in CUT:
        return ""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # parts
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


class Replies:
    """Key -> reply, in memory and in `directory`/replies.jsonl, one line per reply.

    A killed process leaves at most an incomplete last line. It is skipped, and its question is asked again.
    """

    def __init__(self, directory: Path | None):
        self._file = directory / "replies.jsonl" if directory else None
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        for line in self._file.read_bytes().splitlines() if self._file and self._file.is_file() else []:
            try:
                value = json.loads(line)
                self._known[value["key"]] = str(value["reply"])
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def add(self, key: str, reply: str) -> None:
        """Store a reply. Raises InputError when it cannot be written."""
        line = json.dumps({"key": key, "reply": reply}).encode() + b"\n"
        with self._lock:
            self._known[key] = reply
            if not self._file:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("ab+") as f:  # one write at the end of the file
                    if f.tell() and (f.seek(-1, os.SEEK_END), f.read(1))[1] != b"\n":
                        line = b"\n" + line  # an incomplete line stays separate
                    f.write(line)
            except OSError as e:
                raise InputError(
                    f"{self._file}: {e.strerror}; the judge's replies must be stored there"
                ) from None

    def summary(self) -> str:
        """A clause that says how many replies are stored, and where."""
        if not self._file:
            return f"the {len(self._known)} replies so far were in memory only"
        return f"{len(self._known)} replies are stored in {self._file} and will not be asked for again"


def resolve_with_judge(verdicts: Sequence[Verdict], judge: Judge | None) -> list[Verdict]:
    """The verdicts, with the judge's reward and reason for those that hold a question.

    Without a judge, the verdicts are returned unchanged. Raises InputError when the judge cannot be asked.
    """
    questions = [verdict.question for verdict in verdicts if verdict.question is not None]
    if judge is None or not questions:
        return list(verdicts)
    answers = iter(judge.answer(questions))
    return [v if v.question is None else _answered(v, next(answers)) for v in verdicts]


def _answered(verdict: Verdict, answer: Verdict) -> Verdict:
    before = f"{verdict.reason}{': ' if verdict.details else ''}{verdict.details}"
    return dataclasses.replace(answer, details=f"{answer.details} (rules: {before})")


def make_judge(c: Any, directory: Path | None, on_first_process: Callable | None = None) -> Judge | None:
    """The judge that `c`, a `config.judge`, describes; None without a base_url. Raises InputError."""
    if not c.base_url:
        return None
    return Judge(
        base_url=c.base_url,
        model=c.model,
        templates=judge_templates.load(c.templates),
        api_key_env=c.api_key_env,
        swap=c.swap,
        reward_if_swap_fails=c.reward_if_swap_fails,
        concurrency=c.concurrency,
        timeout=c.timeout,
        retries=c.retries,
        cache=directory,
        **({"on_first_process": on_first_process} if on_first_process else {}),
    )
