"""What every user of an OpenAI-compatible endpoint shares: how it is addressed, and what its failures mean.

A failure may pass (429, 5xx, a timeout, a broken connection, half an answer), and the request is sent again
after a pause; any other error lies in the request itself and stops the program with the server's message. The
API key is read from the environment when a client is made, and is written nowhere.
"""

import dataclasses
import email.utils
import json
import math
import os
import random
import time
import urllib.parse
from typing import Any

from pivotrl_jax.records import InputError

RETRIED = (408, 409, 425, 429)  # and every 5xx: these may pass; any other error lies in the request itself
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds of backoff
LONGEST_RETRY_AFTER = 600.0  # seconds; an endpoint that asks for more counts as down


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a request failed, and how many seconds the endpoint asks to wait before the next one."""

    why: str
    wait: float = 0.0
    busy: bool = False  # HTTP 429: nothing is wrong with the request, nor with the endpoint


class Refused(InputError):
    """The endpoint refuses a request, and would refuse it again. `status` is HTTP's."""

    def __init__(self, sentence: str, status: int, message: str):
        super().__init__(sentence)
        self.status, self.message = status, message


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a model is served. `role` ("the judge") and `section` ("config.judge") are for sentences.

    Raises InputError for an address that is none, that holds credentials, or without a model's name.
    """

    role: str
    section: str
    base_url: str
    model: str
    api_key_env: str
    timeout: float  # seconds

    def __post_init__(self):
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{self.role}'s base_url is {self.base_url!r}; want http(s)://host/v1")
        if "@" in parts.netloc:  # they would be written to run.json
            raise InputError(f"{self.role}'s base_url holds credentials; leave them out and name api_key_env")
        if not self.model:
            raise InputError(f"no model is named for {self.role} at {self.base_url}")

    @property
    def name(self) -> str:
        """ "the judge at http://...", for sentences."""
        return f"{self.role} at {self.base_url}"

    def client(self, kind: str = "OpenAI") -> Any:
        """A client of the openai package, of the class `kind`; it sends nothing twice by itself."""
        import openai  # takes a second, so runs without an endpoint do not import it

        key = (os.environ.get(self.api_key_env) or "").strip() or "none"  # self-hosted servers need no key
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"${self.api_key_env} holds characters that no API key has (outside of printable ASCII); set "
                "it again"
            )
        return getattr(openai, kind)(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0)

    def failure(self, error: Exception) -> Failure:
        """What an exception of the client means, if it may pass. Raises Refused if it will not, and the error
        itself if it is not the client's."""
        import openai

        if isinstance(error, (openai.APITimeoutError, TimeoutError)):
            return Failure(f"nothing within {self.timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            return Failure(self.shown(f"{error} {error.__cause__ or ''}"))
        if not isinstance(error, openai.APIStatusError):
            raise error
        status, message = error.status_code, self.shown(_message_of(error))
        why = f"HTTP {status}: {message}"
        wait = retry_after(error.response.headers.get("retry-after", ""))
        passing = status in RETRIED or status >= 500
        if passing and wait <= LONGEST_RETRY_AFTER:
            return Failure(why, wait, status == 429)
        hints = {401: f"set ${self.api_key_env}", 403: f"check ${self.api_key_env}"}
        advice = hints.get(status, f"check {self.section}")
        if passing:
            advice = f"it asks for a pause of {wait:g} s: start again after that"
        raise Refused(f"{self.name} refuses ({why}); {advice}", status, message) from None

    def shown(self, message: str) -> str:
        """A server's message for use in a sentence, with the API key masked in case the server repeats it."""
        key = (os.environ.get(self.api_key_env) or "").strip()
        message = message.replace(key, "***") if key else message
        message = "".join(c if c.isprintable() else " " for c in message)
        return " ".join(message.split())[:200]


def _message_of(error: Any) -> str:
    """What the server says in an error, without the client's words around it."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    said = next((inner[k] for k in ("message", "detail") if isinstance(inner.get(k), str)), "")
    return said or error.message


def backoff(attempt: int) -> float:
    """Seconds to wait after failure number `attempt`, from 0: exponential, with jitter."""
    return min(FIRST_WAIT * 2 ** min(attempt, 30), LONGEST_WAIT) * random.uniform(0.5, 1.0)


def json_object(raw: bytes) -> dict | Failure:
    """The JSON object of a reply, or a failure if it holds none."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return Failure(f"not JSON: {raw[:80]!r}")
    return value if isinstance(value, dict) else Failure(f"no JSON object: {raw[:80]!r}")


def choices_of(value: dict) -> list | Failure:
    """The choices of a completion, or a failure if there is no list of them (an error in a 200)."""
    choices = value.get("choices")
    return choices if isinstance(choices, list) else Failure(f"no completion: {json.dumps(value)[:80]!r}")


def retry_after(header: str) -> float:
    """The seconds of a Retry-After header, which holds seconds or a date; 0 if it holds neither."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0
