"""A language model that decides where rules do not: any OpenAI-compatible endpoint, asked once per question.

A verifier that cannot decide leaves a `Question` in its verdict; `settle` asks all of them at once and puts
the answers in their place. A reply without a label is an abstention (reward None), never a silent 0.

Replies are kept on disk by the content of what was asked, so a run that goes on, or starts over, asks nothing
twice. The key is read from the environment when a request is sent and written nowhere.
"""

import concurrent.futures
import dataclasses
import email.utils
import functools
import hashlib
import json
import math
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError, Question, Verdict
from pivotrl_jax.verifiers import judge_templates
from pivotrl_jax.verifiers.judge_templates import Template

ABSTAINED = "judge_abstained"


RETRIED = (408, 409, 425, 429)  # and every 5xx: of the moment, not of the request


FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds of backoff


LONGEST_RETRY_AFTER = 600.0  # an endpoint that asks for more is down


class _Stopped(Exception):
    """Another question has failed; this one is not asked any more."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """An endpoint, a model and how they are asked. `cache`: a directory for replies, None for memory alone.

    `once` runs what comes from outside: in several processes, in the first of them for all (`hosts.once`).
    """

    base_url: str
    model: str
    templates: dict[str, Template]
    api_key_env: str = "OPENAI_API_KEY"
    swap: bool = True
    reward_if_swap_fails: float = 0.0
    concurrency: int = 16
    timeout: float = 60.0  # seconds a request may be silent
    retries: int = 5
    cache: Path | None = None
    once: Callable[[Callable[[], Any]], Any] = lambda compute: compute()

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"the judge's base_url is {self.base_url!r}; want http(s)://host/v1")
        if "@" in parts.netloc:  # it is written into run.json
            raise InputError("the judge's base_url holds credentials; leave them out and name api_key_env")
        if not self.model:
            raise InputError(f"no model is named for the judge at {self.base_url}")

    @property
    def settings(self) -> dict:
        """What its verdicts depend on, for settings and provenance: not where it runs, nor how fast."""
        return {
            "model": self.model,
            "templates": judge_templates.templates_fingerprint(self.templates),
            "swap": self.swap,
            "reward_if_swap_fails": self.reward_if_swap_fails,
        }

    def answer(self, questions: Sequence[Question]) -> list[Verdict]:
        """The judge's verdict on every question, in order; equal questions are asked once.

        Raises InputError when one cannot be asked; replies that came are kept.
        """
        unique = list(dict.fromkeys(questions))
        found = self.once(lambda: [dataclasses.asdict(v) for v in self._answer_all(unique)])
        verdicts = {question: Verdict(**value) for question, value in zip(unique, found)}
        return [verdicts[question] for question in questions]

    def _answer_all(self, questions: Sequence[Question]) -> list[Verdict]:
        for question in questions:  # before anything is asked
            if question.kind not in self.templates:
                raise InputError(
                    f"the judge has no template for questions of the kind {question.kind!r}; add "
                    f"[{question.kind}] to a file and name it in config.judge.templates"
                )
        _ = self._replies, self._client  # made once, not in every thread
        stop = threading.Event()
        pool = concurrent.futures.ThreadPoolExecutor(self.concurrency, "judge")
        try:
            futures = [pool.submit(self._decide, question, stop) for question in questions]
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:  # also on Ctrl-C: requests under way end and are kept, no further one is sent
            stop.set()
            pool.shutdown(cancel_futures=True)
        errors = [f.exception() for f in futures if not f.cancelled() and f.exception()]
        for error in errors:
            if not isinstance(error, _Stopped):
                raise InputError(f"{error}; {self._replies.kept()}") if type(error) is InputError else error
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
        import openai  # a second that runs without a judge need not pay

        key = os.environ.get(self.api_key_env) or "none"  # servers of one's own ask for none
        return openai.OpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0)

    def _reply(self, messages: list[dict], stop: threading.Event) -> str:
        """The reply to `messages`, from the cache or the endpoint. Raises InputError, or _Stopped."""
        asked = json.dumps([self.model, messages], sort_keys=True)
        key = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
        if (known := self._replies.get(key)) is not None:
            return known
        for attempt in range(self.retries + 1):
            if stop.is_set():
                raise _Stopped
            outcome = self._request(messages)
            if isinstance(outcome, str):
                self._replies.add(key, outcome)
                return outcome
            if attempt < self.retries:
                backoff = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
                stop.wait(max(outcome.wait, backoff))
        raise InputError(
            f"the judge at {self.base_url} does not answer ({outcome.why}), {self.retries + 1} times over; "
            "start again when it does"
        )

    def _request(self, messages: list[dict]) -> "str | Trouble":
        """One request: the reply's text, or what went wrong if another try may go better. Raises InputError
        where none will."""
        import openai

        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, temperature=0
            )
        except openai.APITimeoutError:
            return Trouble(f"nothing within {self.timeout:g} s")
        except openai.APIConnectionError as e:
            return Trouble(f"{e} {e.__cause__ or ''}".strip())
        except openai.APIStatusError as e:
            why = f"HTTP {e.status_code}: {self._shown(e.message)}"
            wait = retry_after(e.response.headers.get("retry-after", ""))
            if (e.status_code in RETRIED or e.status_code >= 500) and wait <= LONGEST_RETRY_AFTER:
                return Trouble(why, wait)
            then = {401: f"set ${self.api_key_env}", 403: f"check ${self.api_key_env}"}
            advice = then.get(e.status_code, "check config.judge")
            if e.status_code in RETRIED or e.status_code >= 500:
                advice = f"it wants {wait:g} s of rest: start again then"
            raise InputError(f"the judge at {self.base_url} refuses ({why}); {advice}") from None
        return reply_text(raw.content)

    def _shown(self, message: str) -> str:
        """A server's message in a sentence, without the key should the server repeat it."""
        key = os.environ.get(self.api_key_env)
        message = message.replace(key, "***") if key else message
        return " ".join(message.split())[:200]


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A request that failed for now, and the seconds the endpoint asks to be left alone."""

    why: str
    wait: float = 0.0


def reply_text(raw: bytes) -> "str | Trouble":
    """The text of a chat completion. A choice without text, or no choice (a content filter), is an empty
    reply: the model has spoken. What is no chat completion is trouble on the way."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return Trouble(f"not JSON: {raw[:80]!r}")
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list):
        return Trouble(f"no chat completion: {raw[:80]!r}")
    message = choices[0].get("message") if choices and isinstance(choices[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # parts
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; 0 where it says nothing."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0


class Replies:
    """Key -> reply, in memory and in `directory`/replies.jsonl: a line per reply, appended as it comes.

    A kill leaves at most a torn last line, which is skipped and costs one question.
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
        """Keep a reply. Raises InputError when it cannot be written."""
        line = json.dumps({"key": key, "reply": reply}).encode() + b"\n"
        with self._lock:
            self._known[key] = reply
            if not self._file:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("ab+") as f:  # one write at the end of the file
                    if f.tell() and (f.seek(-1, os.SEEK_END), f.read(1))[1] != b"\n":
                        line = b"\n" + line  # a torn line stays alone
                    f.write(line)
            except OSError as e:
                raise InputError(f"{self._file}: {e.strerror}; the judge's replies are kept there") from None

    def kept(self) -> str:
        """A clause about what is not lost."""
        if not self._file:
            return f"the {len(self._known)} replies so far were in memory alone"
        return f"{len(self._known)} replies are kept in {self._file} and will not be asked for again"


def resolve_with_judge(verdicts: Sequence[Verdict], judge: Judge | None) -> list[Verdict]:
    """Verdicts with every open question answered: the judge's reward and reason replace the rules'.

    Without a judge they stay as they are. Raises InputError when the judge cannot be asked.
    """
    asked = [verdict.question for verdict in verdicts if verdict.question is not None]
    if judge is None or not asked:
        return list(verdicts)
    answers = iter(judge.answer(asked))
    return [v if v.question is None else _settled(v, next(answers)) for v in verdicts]


def _settled(verdict: Verdict, answer: Verdict) -> Verdict:
    before = f"{verdict.reason}{': ' if verdict.details else ''}{verdict.details}"
    return dataclasses.replace(answer, details=f"{answer.details} (rules: {before})")


def make_judge(c: Any, directory: Path | None, once: Callable | None = None) -> Judge | None:
    """The judge of `config.judge`; None without a base_url. Raises InputError."""
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
        **({"once": once} if once else {}),
    )
